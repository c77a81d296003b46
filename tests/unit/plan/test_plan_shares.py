"""A plan of `shares`: bytes and flops as its scheme says, by the slowest of three owners."""

from __future__ import annotations

import msgspec
import pytest
from plan_figures import cost, machine, op, passes, worker

from tempo.config import Config
from tempo.errors import UsageError
from tempo.plan.machine import RING
from tempo.plan.model import CostModel
from tempo.plan.plan import make_plan
from tempo.plan.shared import SharedModel
from tempo.plan.trace import Trace

SHARES = Config(scheme="shares", placement="always")
T, K, N = 1000, 200, 300
X, W, Y = T * K, N * K, T * N


def owner(name="w0", *, ring=1e12, **figures):
    made = worker(name, **figures)
    return msgspec.structs.replace(made, flops_per_second={**made.flops_per_second, RING: ring})


def hardware(workers=None, *, overlap=0.0, scheme=None):
    made = machine(workers=workers or [owner(f"w{i}") for i in range(3)], overlap=overlap)
    return msgspec.structs.replace(made, passes={"shares": scheme or passes()})


def pieces(op_, workers=3, config=SHARES):
    of = hardware([owner(f"w{i}") for i in range(workers)])
    return len(SharedModel(of, config, of.scheme("shares"), inference=False).cut(op_))


def test_a_training_step_sends_ten_bytes_an_entry_and_receives_fifteen():
    found = CostModel(hardware(), SHARES, inference=False).cost(op(T, K, N))
    assert found.bytes_up == 10 * (X + W + Y)
    assert found.bytes_down == 15 * (Y + X + pieces(op(T, K, N)) * W)


def test_thirty_products_of_residues_take_the_place_of_one():
    fast = [owner(f"w{i}", up=1e30, down=1e30, ring=1e10) for i in range(3)]
    found = CostModel(hardware(fast), SHARES, inference=False).cost(op(T, K, N))
    # Three owners work at once, each on ten of them.
    assert found.worker_seconds == pytest.approx(3 * 10 * 2 * T * K * N / 1e10)
    assert found.link_seconds == pytest.approx(0.0, abs=1e-12)


def test_requests_share_x_alone():
    found = CostModel(hardware(), SHARES, inference=True).cost(op(T, K, N, want_x=False, want_w=False))
    assert (found.bytes_up, found.bytes_down) == (10 * X, 15 * Y)


def test_without_key_shift_x_is_shared_twice():
    apart = Config(scheme="shares", placement="always", key_shift=False)
    found = CostModel(hardware(), apart, inference=False).cost(op(T, K, N))
    assert found.bytes_up == 10 * (2 * X + W + Y)


def test_the_slowest_owner_counts():
    even = CostModel(hardware(), SHARES, inference=False).cost(op(T, K, N))
    slow = [owner("w0"), owner("w1", ring=1e11), owner("w2")]
    found = CostModel(hardware(slow), SHARES, inference=False).cost(op(T, K, N))
    assert found.worker_seconds == pytest.approx(10 * even.worker_seconds)
    assert found.tempo_seconds > even.tempo_seconds


def test_two_workers_of_each_owner_take_half_of_the_rows_each():
    big = op(64 * T, K, N)
    one = CostModel(hardware(), SHARES, inference=False).cost(big)
    two = CostModel(hardware([owner(f"w{i}") for i in range(6)]), SHARES, inference=False).cost(big)
    assert two.bytes_up == pytest.approx(one.bytes_up, rel=0.01)
    assert two.tempo_seconds < one.tempo_seconds


def test_the_masters_time_is_that_of_its_passes():
    encoding = passes(encode=1e-9, decode=0.0, check=0.0)
    found = CostModel(hardware(scheme=encoding), SHARES, inference=False).cost(op(T, K, N))
    assert found.master_seconds["encode"] == pytest.approx(1e-9 * (X + W + Y))
    scanning = passes(encode=0.0, decode=0.0, check=0.0, scan=cost(1e-9))
    found = CostModel(hardware(scheme=scanning), SHARES, inference=False).cost(op(T, K, N))
    assert found.master_seconds["lower"] == pytest.approx(1e-9 * (X + W + Y))


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_overlap_saves_and_never_costs(overlap):
    found = CostModel(hardware(overlap=overlap), SHARES, inference=False).cost(op(T, K, N))
    apart = CostModel(hardware(), SHARES, inference=False).cost(op(T, K, N))
    assert 0 < found.tempo_seconds <= apart.tempo_seconds
    assert 0 < found.law_share <= 1


def test_three_owners_are_needed():
    with pytest.raises(UsageError, match="workers of 3 owners, the figures are of 2"):
        CostModel(hardware([owner("a"), owner("b")]), SHARES, inference=False)


def test_figures_without_residues_are_refused():
    with pytest.raises(UsageError, match="products of residues"):
        CostModel(hardware([worker(f"w{i}") for i in range(3)]), SHARES, inference=False)


def test_the_plan_says_what_is_seen():
    trace = Trace(ops=(op(T, K, N),), kept=(), other_elements=0, parameters=0, training=True)
    (row,) = make_plan(trace, hardware(), SHARES, default="always").rows
    fields = row.fields()
    assert fields["leakage"] == "shapes; nothing else, if no two owners collude (proven)"
    assert fields["leakage_class"] == "shapes"
    assert "spectrum" not in fields["visible"]
