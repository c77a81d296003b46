"""The cost model against figures worked out by hand, and what must hold on any machine."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_figures import cost, machine, op, passes, worker

import tempo
from tempo.config import Config
from tempo.errors import UsageError
from tempo.lowering import lower_linear
from tempo.plan.machine import Pass
from tempo.plan.model import CostModel
from tempo.plan.phases import Work
from tempo.plan.pipeline import Piece, elapsed, in_turn, overlapped
from tempo.plan.plan import why_stay
from tempo.secrecy.rows import Selection


def pieces_of(one, *, dw=True):
    m, config = machine(), Config()
    return Work(one, m.scheme("mixing"), m, config, mixes=True).cut(dw=dw)


def of(one, of_machine=None, *, inference=False, **options):
    return CostModel(of_machine or machine(), Config(**options), inference=inference).cost(one)


# ---- by hand: 1000 rows, 200 to 300, one worker; X 2e5, Y 3e5, W 6e4 elements --------------------------

X, Y, W = 2e5, 3e5, 6e4


def test_a_training_step_by_hand():
    c = of(op())
    assert c.flops == 3 * 2 * 1000 * 200 * 300
    assert c.tee_seconds == pytest.approx(c.flops / 1e11)
    assert c.tee_fastest_seconds == pytest.approx(c.flops / 1e11)
    # X', W' and dY' are sent; Y', dX' and dW' come back.
    assert c.bytes_up == 4 * (X + W + Y)
    assert c.bytes_down == 4 * (Y + X + W)
    m = c.master_seconds
    assert m["encode"] == pytest.approx(5e-9 * (X + W + Y))
    assert m["decode"] == pytest.approx(4e-9 * (Y + X + W))
    # X once as an operand and as a witness, W twice, dY once for two products; then three replies.
    assert m["check"] == pytest.approx(1e-9 * (X + W + Y + W + Y + W + X))
    assert c.link_seconds == pytest.approx(4 * 2 * (X + W + Y) / 1e9)
    assert c.worker_seconds == pytest.approx(c.flops / 1e12)
    assert c.tempo_seconds == pytest.approx(c.master_total_seconds + c.link_seconds + c.worker_seconds)


def test_inference_encodes_a_weight_once_in_many_requests():
    c = of(op(want_x=False, want_w=False), inference=True, weight_uses=100, unsafe_many_uses=True)
    assert c.flops == 2 * 1000 * 200 * 300
    assert c.master_seconds["encode"] == pytest.approx(5e-9 * (X + W / 100))
    assert c.bytes_up == 4 * (X + W / 100)
    assert c.bytes_down == 4 * Y
    # No witness, and only the reply's check beside X and W.
    assert c.master_seconds["check"] == pytest.approx(1e-9 * (X + W + Y))
    many = {"weight_uses": 100, "unsafe_many_uses": True}
    computed = of(op(want_x=False, want_w=False, weight_computed=True), inference=True, **many)
    assert computed.bytes_up == 4 * (X + W)


def test_a_shared_weight_is_encoded_and_sent_once():
    first, again = of(op()), of(op(weight_shared=True))
    assert first.master_seconds["encode"] - again.master_seconds["encode"] == pytest.approx(5e-9 * W)
    assert first.bytes_up - again.bytes_up == 4 * W


def test_without_key_shift_three_more_encodings():
    shifted, fresh = of(op()), of(op(), key_shift=False)
    more = fresh.master_seconds["encode"] - shifted.master_seconds["encode"]
    assert more == pytest.approx(5e-9 * (X + W + Y))  # dY a second time, X and W again
    assert fresh.worker_kept_bytes == shifted.worker_kept_bytes - 4 * X


def test_without_key_shift_x_is_projected_twice_and_no_witness_is_kept():
    """For Y and for dW. dY twice, W' of either kind once; replies Y, dW and dX."""
    c = of(op(), key_shift=False)
    assert c.master_seconds["check"] == pytest.approx(1e-9 * (2 * X + 2 * Y + 2 * W + Y + W + X))
    assert c.tee_kept_bytes == 4 * W


def test_every_piece_pays_for_the_checks_of_w():
    """Eight pieces or so: both products with W, and a dW of each."""
    one = op(1 << 17, 200, 300)
    c, pieces = of(one), len(pieces_of(one))
    x, y = (1 << 17) * 200, (1 << 17) * 300
    assert pieces == 8
    assert c.master_seconds["check"] == pytest.approx(1e-9 * (x + y + y + x + 3 * pieces * W))
    assert c.bytes_up == 4 * (x + y + W)
    assert c.bytes_down == 4 * (x + y + pieces * W)


def test_gradients_under_fresh_keys_are_cut_each_for_itself():
    """dW pays for its pieces with partial results; dX does not, and has more of them."""
    one = op(16384, 512, 512)
    x = y = 16384 * 512
    w = 512 * 512
    c = of(one, key_shift=False)
    of_x, of_w = pieces_of(one, dw=False), pieces_of(one, dw=True)
    assert len(of_x) == 7
    assert len(of_w) == 7
    assert c.bytes_up == 4 * (2 * x + 2 * y + 2 * w), "either W' goes to the worker once"
    assert c.bytes_down == 4 * (2 * y + len(of_w) * w)
    wide = op(16384, 1024, 1024)
    assert (len(pieces_of(wide, dw=False)), len(pieces_of(wide, dw=True))) == (7, 6)


def test_a_small_pass_in_a_large_operation_has_one_thread():
    """W of 2^16 elements beside X of 2^24."""
    one_thread, all_threads = cost(8e-9), cost(1e-9)
    encode = Pass(narrow_one=one_thread, narrow_all=all_threads, wide_one=one_thread, wide_all=all_threads)
    scheme = msgspec.structs.replace(passes(), encode=encode)
    c = of(
        op(1 << 16, 256, 256, want_x=False, want_w=False),
        machine(scheme=scheme),
        inference=True,
        weight_uses=1,
    )
    assert c.master_seconds["encode"] == pytest.approx(1e-9 * (1 << 24) + 8e-9 * (1 << 16))


@pytest.fixture(scope="module")
def engine():
    with tempo.Session("cpu") as session:
        yield session._interceptor._offload._engine


@pytest.mark.parametrize("k", [256, 512])
@given(rows=st.integers(64, 1 << 17), dw=st.booleans(), double=st.booleans())
@settings(deadline=None)
def test_pieces_are_those_of_the_engine(engine, k, rows, dw, double):
    """Rows, lanes and order, whatever the dtype."""
    found = pieces_of(op(rows, k, 256, itemsize=8 if double else 4), dw=dw)
    lowering = lower_linear((rows, k), (256, k))
    shards, home = engine.shards(lowering, Selection.everything(1, rows), dw=dw)
    assert found == [(lane, sum(where.counts)) for lane, where in shards]
    assert home.empty


def test_a_gradient_that_is_not_wanted_costs_nothing():
    first_layer = of(op(want_x=False))
    assert first_layer.flops == 2 * 2 * 1000 * 200 * 300
    assert first_layer.bytes_down == 4 * (Y + W)
    frozen = of(op(want_w=False))
    assert frozen.bytes_down == 4 * (Y + X)


def test_lowering_is_paid_by_lowered_elements():
    plain, lowered = of(op()), of(op(operation="im2col"), machine(lowering=1e-9))
    assert plain.master_seconds["lower"] == 0
    assert lowered.master_seconds["lower"] == pytest.approx(2e-9 * (X + Y + W))


def test_rows_go_to_workers_by_speed_and_each_is_sent_w():
    alone = of(op())
    two = of(op(), machine(workers=[worker("a"), worker("b")]))
    assert two.bytes_up == alone.bytes_up + 4 * W
    assert two.bytes_down == alone.bytes_down + 4 * W  # a dW of each
    assert two.worker_seconds == pytest.approx(alone.worker_seconds / 2)
    uneven = of(op(), machine(workers=[worker("a"), worker("b", up=1e7, down=1e7, flops=1e10)]))
    assert uneven.worker_seconds < 1.1 * alone.worker_seconds * 100 / 4


def test_workers_that_share_cores_slow_each_other_down():
    two = [worker("a"), worker("b")]
    apart, shared = of(op(), machine(workers=two)), of(op(), machine(workers=two, together=0.5))
    assert shared.worker_seconds == pytest.approx(2 * apart.worker_seconds)


def test_memory():
    c = of(op())
    assert c.worker_kept_bytes == 4 * (X + W)
    assert c.worker_working_bytes == 4 * (X + Y + W)
    assert c.tee_kept_bytes == 1000 * 2 * 8 + 4 * W  # the witness of two probes, and W'
    halves = of(op(), machine(workers=[worker("a"), worker("b")]))
    assert halves.worker_kept_bytes == 4 * (X / 2 + W)


def test_float64_is_twice_of_everything():
    single, double = of(op()), of(op(itemsize=8))
    assert double.bytes_up == 2 * single.bytes_up
    assert double.master_total_seconds == pytest.approx(2 * single.master_total_seconds)
    assert double.tee_seconds == pytest.approx(2 * single.tee_seconds)


# ---- other numbers ---------------------------------------------------------------------------------------


def coarse():
    kinds = {", sent as bfloat16": 8e12, ", rounded to tf32": 4e12, ", rounded to bf16": 6e12}
    return machine(workers=[worker(others=kinds)])


def test_sent_as_bfloat16_half_of_the_bytes_but_for_dw():
    single, half = of(op(), coarse()), of(op(), coarse(), wire="bf16")
    assert half.bytes_up == single.bytes_up / 2
    assert half.bytes_down == 2 * (Y + X) + 4 * W
    assert half.link_seconds == pytest.approx((half.bytes_up + half.bytes_down) / 1e9)
    assert half.worker_seconds == pytest.approx(half.flops / 8e12)
    assert half.worker_kept_bytes == 2 * (X + W)
    assert half.worker_working_bytes == 2 * (X + Y) + 4 * W
    assert half.tee_kept_bytes == 1000 * 2 * 8 + 2 * W
    # The TEE's own arithmetic, and the passes, are those of float32.
    assert (half.tee_seconds, half.master_seconds) == (single.tee_seconds, single.master_seconds)


@pytest.mark.parametrize(("arithmetic", "rate"), [("tf32", 4e12), ("bf16", 6e12)])
def test_rounded_at_the_worker_the_same_bytes_and_its_rate(arithmetic, rate):
    single, coarser = of(op(), coarse()), of(op(), coarse(), arithmetic=arithmetic)
    assert (coarser.bytes_up, coarser.bytes_down) == (single.bytes_up, single.bytes_down)
    assert coarser.worker_seconds == pytest.approx(coarser.flops / rate)


def test_delicate_layers_are_sent_in_finer_numbers():
    fine, single = op(delicate=True), of(op(), coarse())
    for options, rate in (({"wire": "bf16"}, 1e12), ({"arithmetic": "bf16"}, 4e12)):
        cost = of(fine, coarse(), **options)
        assert cost.bytes_up == single.bytes_up
        assert cost.worker_seconds == pytest.approx(cost.flops / rate)
    double = of(op(itemsize=8), coarse(), wire="bf16")
    assert double.bytes_up == 2 * single.bytes_up
    assert double.worker_seconds == pytest.approx(double.flops / 1e12 * 2)


@pytest.mark.parametrize("options", [{"wire": "bf16"}, {"arithmetic": "tf32"}])
def test_numbers_that_were_not_measured_are_asked_for(options):
    with pytest.raises(UsageError, match="calibrate again under the wire and arithmetic"):
        of(op(), machine(), **options)


# ---- the law ---------------------------------------------------------------------------------------------


def test_the_law_is_that_of_the_design():
    """S <= 3 h b / (m F), h = K N / (K + N), with the figures of the design's two AVX2 cores."""
    h, b, m, f = 768 * 3072 / (768 + 3072), 1e9, 5.0, 1e11
    assert CostModel(machine(), Config(), inference=False).memcpys() == pytest.approx(m)
    assert of(op(25088, 768, 3072)).law_speedup == pytest.approx(3 * h * b / (m * f))
    request = of(op(25088, 768, 3072, want_x=False, want_w=False), inference=True)
    assert request.law_speedup == pytest.approx(2 * h * b / (m * f))


sizes = st.integers(64, 4096)
some_passes = st.builds(
    lambda e, d, c, g, r: passes(
        encode=e, decode=d, check=c, keys=cost(call=1e-6, row=r), centre=cost(r, group=g)
    ),
    *(st.floats(1e-10, 1e-7) for _ in range(3)),
    *(st.floats(0, 1e-6) for _ in range(2)),
)
machines = st.builds(
    machine,
    workers=st.lists(
        st.builds(
            worker,
            trip=st.floats(0, 1e-2),
            up=st.floats(1e6, 1e11),
            down=st.floats(1e6, 1e11),
            flops=st.floats(1e9, 1e15),
        ),
        min_size=1,
        max_size=4,
    ),
    scheme=some_passes,
    overlap=st.floats(0, 1),
    together=st.floats(0.1, 1),
    flops=st.floats(1e10, 1e14),
)
wanted = st.sampled_from([(True, True), (False, True), (True, False), (False, False)])


@given(machines, sizes, sizes, sizes, st.integers(1, 36), wanted)
@settings(max_examples=200, deadline=None)
def test_nothing_beats_the_law(m, rows, k, n, groups, wants):
    x, w = wants
    c = of(op(rows, k, n, groups=groups, want_x=x, want_w=w), m, inference=not (x or w))
    assert 0 < c.law_share <= 1 + 1e-9
    assert c.tempo_seconds >= c.master_total_seconds * (1 - 1e-9)


@given(machines, sizes, sizes, sizes)
@settings(max_examples=100, deadline=None)
def test_more_rows_cost_more(m, rows, k, n):
    few, many = of(op(rows, k, n), m), of(op(2 * rows, k, n), m)
    assert many.tee_seconds > few.tee_seconds
    assert many.master_total_seconds > few.master_total_seconds
    assert many.bytes_up > few.bytes_up
    assert many.tee_kept_bytes > few.tee_kept_bytes


@given(machines, st.integers(64, 1024))
@settings(max_examples=100, deadline=None)
def test_wide_layers_gain_more(m, width):
    """With many more rows than features: W is a share of the elements that does not count. One worker:
    shares of several are in quarters, and the slow one may have more than it can do."""
    m = msgspec.structs.replace(m, workers=m.workers[:1])
    narrow, wide = (of(op(100_000, w, w), m) for w in (width, 4 * width))
    assert wide.law_speedup > narrow.law_speedup
    assert wide.tee_seconds / wide.tempo_seconds > narrow.tee_seconds / narrow.tempo_seconds


# ---- overlap ---------------------------------------------------------------------------------------------


def test_a_pipeline_by_hand():
    pieces = [Piece(0, 1.0, 4.0, 0.5), Piece(1, 1.0, 4.0, 0.5)]
    # Sealed at 1 and 2, back at 5 and 6; checked at 5.5 and 6.5; decoded by 8.5.
    assert overlapped(pieces, 2.0) == 8.5
    # 2 of sealing, 4 of both workers at once, 1 of checks, 2 of decoding.
    assert in_turn(pieces, 2.0) == 9.0
    assert elapsed(pieces, 2.0, 0.5) == 8.75
    one_worker = [Piece(0, 1.0, 4.0, 0.5), Piece(0, 1.0, 4.0, 0.5)]
    assert overlapped(one_worker, 2.0) == 1 + 8 + 0.5 + 2
    assert in_turn(one_worker, 2.0) == 2 + 8 + 1 + 2
    assert overlapped([], 0.0) == in_turn([], 0.0) == 0.0


some_pieces = st.lists(
    st.builds(Piece, st.integers(0, 3), st.floats(0, 9), st.floats(0, 9), st.floats(0, 9)), max_size=8
)


@given(some_pieces, st.floats(0, 9), st.floats(0, 1))
def test_overlap_lies_between_its_ends(pieces, decode, share):
    fast, slow = overlapped(pieces, decode), in_turn(pieces, decode)
    master = sum(p.seal + p.open for p in pieces) + decode
    assert master - 1e-9 <= fast <= slow + 1e-9
    assert fast - 1e-9 <= elapsed(pieces, decode, share) <= slow + 1e-9


# ---- the decision -----------------------------------------------------------------------------------------


def test_the_decision_and_its_reason():
    slow, fast = of(op()), of(op(), machine(flops=1e9))
    assert why_stay(fast) is None
    reason = why_stay(slow)
    assert reason is not None
    assert reason.startswith("cheaper in the TEE: 3.6 ms here, ")
