"""Every native instruction set against the plain twin: any shape, layout, axis, dtype, number of threads.

The twin computes in float64 from the same operands; the allowed difference is derived in
docs/numerics.md, section 6. Every target lies within a larger tensor whose other entries are canaries.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.kernels import Axis, Monomial, Transform, plain, transform
from tempo.kernels.native import MAX_BLOCK, SETS, Native
from tempo.numerics import native_deviation, native_error, twin_error

few = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
TYPES = [(F32, F32), (F32, BF16), (BF16, F32), (F64, F64)]
CANARY = 7.5


def available():
    found = []
    for name in SETS:
        try:
            Native(name)
        except OSError:
            continue
        found.append(name)
    return found


AVAILABLE = available()
every_set = pytest.mark.parametrize("name", AVAILABLE)


# ---- what is drawn -----------------------------------------------------------------------------


def monomial(length, generator):
    scale = torch.rand(length, dtype=F64, generator=generator) * 1.5 + 0.5
    sign = torch.randint(0, 2, (length,), generator=generator) * 2 - 1
    return Monomial(torch.randperm(length, generator=generator).int(), scale * sign)


@st.composite
def axes(draw, length):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    block = 1 << draw(st.integers(0, max(length.bit_length() - 1, 0)))
    if length < MAX_BLOCK * 2:
        block = min(block, MAX_BLOCK)
    rounds = draw(st.integers(0, 3))
    axis = Axis(
        length,
        enter=monomial(length, generator) if draw(st.booleans()) else None,
        middle=[monomial(length, generator) for _ in range(max(rounds - 1, 0))],
        leave=monomial(length, generator) if draw(st.booleans()) else None,
        rounds=rounds,
        block=block,
    )
    match draw(st.sampled_from(["itself", "inverse", "dual", "inverse of the dual"])):
        case "inverse":
            return axis.inverted()
        case "dual":
            return axis.dual()
        case "inverse of the dual":
            return axis.dual().inverted()
    return axis


LENGTHS = st.one_of(
    st.integers(0, 20),
    st.sampled_from([31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 200, 255, 257, 300]),
)


@dataclass
class Case:
    task: Transform
    whole: torch.Tensor  # what the target lies in

    def exact(self):
        """The result by the twin in float64, and the centred rows that it was made of."""
        t = self.task
        source = t.source.double()
        out = torch.full(t.target.shape, CANARY, dtype=F64)
        before, after = (None if v is None else v.double() for v in (t.before, t.after))
        wide = Transform(source, out, t.rows, t.features, t.source_rows, t.target_rows, before, after)
        plain.transform(wide)
        rows = source if t.source_rows is None else source[t.source_rows]
        rows = rows if before is None else rows - before
        return self.picked(out), rows

    def picked(self, t):
        return t if self.task.target_rows is None else t[self.task.target_rows]


def embedded(shape, dtype, fill, draw):
    """(whole, part): the part starts at any offset and its rows may be unaligned."""
    lead, left, right = (draw(st.sampled_from([0, 0, 1, 3, 16])) for _ in range(3))
    whole = torch.full((shape[0] + lead, left + shape[1] + right), fill, dtype=dtype)
    return whole, whole[lead:, left : left + shape[1]]


@st.composite
def cases(draw, types):
    source_type, target_type = types
    dtype = F64 if source_type == F64 else F32
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    stretches = [draw(axes(draw(LENGTHS))) for _ in range(draw(st.integers(1, 3)))]
    rows, width = sum(a.length for a in stretches), draw(LENGTHS)
    more = draw(st.integers(1, 9))
    source_rows = target_rows = None
    if draw(st.booleans()):
        source_rows = torch.randint(0, rows + more, (rows,), generator=generator)
    if draw(st.booleans()):
        target_rows = torch.randperm(rows + more, generator=generator)[:rows]
    _, source = embedded((rows if source_rows is None else rows + more, width), source_type, 0.0, draw)
    source.copy_(torch.randn(source.shape, dtype=F64, generator=generator) + 0.5)
    whole, target = embedded((rows if target_rows is None else rows + more, width), target_type, CANARY, draw)
    before, after = (
        torch.randn(width, dtype=F64, generator=generator).to(dtype) if draw(st.booleans()) else None
        for _ in range(2)
    )
    features = draw(axes(width))
    task = Transform(source, target, stretches, features, source_rows, target_rows, before, after)
    return Case(task, whole)


# ---- agreement ---------------------------------------------------------------------------------


def bare(axis):
    """Its permutations without its coefficients: where a fibre that is only moved comes to lie."""

    def of(m):
        return None if m is None else Monomial(m.index, torch.ones_like(m.scale))

    return Axis(axis.length, enter=of(axis.enter), leave=of(axis.leave))


def excess(case, got, error_of):
    """Largest ratio of an error's norm to what is allowed, over stretches and, where an axis is not
    mixed, over the fibres along the other one."""
    task, (exact, operand) = case.task, case.exact()
    got = got.double()
    # The cast and the addition at the end round each entry by itself.
    last = (2.0**-8 if task.target.dtype == BF16 else 0.0) + 2.0**-23
    last = last if task.dtype == F32 else 2.0**-52
    worst, lo = 0.0, 0
    for a in task.rows:
        part = slice(lo, lo + a.length)
        lo += a.length
        x, y, difference = operand[part], exact[part], got[part] - exact[part]
        # (operand, result, error) in fibres: one of them all, rows, columns.
        fibres = [(x.reshape(1, -1), y.reshape(1, -1), difference.reshape(1, -1))]
        if a.rounds == 0:
            fibres.append((plain.along(x, 0, [bare(a)]), y, difference))
        if task.features.rounds == 0:
            fibres.append((plain.along(x, 1, [bare(task.features)]).mT, y.mT, difference.mT))
        allowed = error_of(a, task.features, task.dtype)
        if task.dtype == F64:  # here the twin errs as much
            allowed += twin_error(a, task.features, F64)
        for operand_, result, error in fibres:
            if error.numel():
                bound = allowed * operand_.norm(dim=1) + last * result.norm(dim=1) + 1e-37
                worst = max(worst, float((error.norm(dim=1) / bound).max()))
    return worst


def untouched(case):
    """Whether only the target rows of the target were written. Restores the canaries there."""
    case.task.target[slice(None) if case.task.target_rows is None else case.task.target_rows] = CANARY
    return bool((case.whole == CANARY).all())


@every_set
@few
@given(st.data())
def test_native_passes_agree_with_the_twin(serve, name, data):
    types = data.draw(st.sampled_from(TYPES))
    several = data.draw(st.lists(cases(types), min_size=1, max_size=3))
    operands = [case.task.source.clone() for case in several]
    with serve(name, data.draw(st.sampled_from([1, 2]))):
        transform([case.task for case in several])
    for case, operand in zip(several, operands, strict=True):
        assert torch.equal(case.task.source, operand), "the operand changed"
        assert excess(case, case.picked(case.task.target), native_error) <= 1
        assert untouched(case), "an entry outside the target was written"


@few
@given(st.data())
def test_the_twin_keeps_its_own_bound(serve, data):
    case = data.draw(cases(data.draw(st.sampled_from(TYPES))))
    with serve("plain"):
        transform([case.task])
    assert excess(case, case.picked(case.task.target), twin_error) <= 1
    assert untouched(case)


@every_set
@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32, 64, 128])
def test_every_block_and_number_of_rounds_on_both_axes(serve, name, rounds, block):
    """What Hypothesis may miss: each kernel of the butterflies, whole and ragged, forth and back."""
    for rows, width in ((block, 2 * block), (3 * block + 5, block + 1), (129 + block, 67 + block)):
        for dtype in (F32, F64):
            g = torch.Generator().manual_seed(rows)

            def axis(length):
                middle = [monomial(length, g) for _ in range(max(rounds - 1, 0))]
                ends = {"enter": monomial(length, g), "leave": monomial(length, g)}
                return Axis(length, middle=middle, rounds=rounds, block=block, **ends)

            a, b = axis(rows), axis(width)
            x = torch.randn(rows, width, dtype=dtype, generator=g)
            for r, f in ((a, b), (a.inverted(), b.inverted()), (a.dual().inverted(), b.dual())):
                out = torch.full_like(x, CANARY)
                case = Case(Transform(x, out, [r], f), out)
                with serve(name):
                    transform([case.task])
                assert excess(case, out, native_error) <= 1


@every_set
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [0, 1])
def test_large_results_pass_the_caches_and_are_the_same(serve, name, threads, offset):
    """From 8 MiB on, aligned lines are stored past the caches."""
    g, rows, width = torch.Generator().manual_seed(1), 1500, 1600
    whole = torch.full((rows * width + 64,), CANARY)
    target = whole[offset : offset + rows * width].view(rows, width)
    x = torch.randn(rows, width, generator=g)
    a = Axis(rows, enter=monomial(rows, g), leave=monomial(rows, g), rounds=1, block=64)
    b = Axis(width, enter=monomial(width, g), leave=monomial(width, g), rounds=1, block=64)
    case = Case(Transform(x, target, [a], b), whole)
    with serve(name, threads):
        transform([case.task])
    assert excess(case, target, native_error) <= 1
    assert bool((whole[:offset] == CANARY).all() and (whole[offset + rows * width :] == CANARY).all())


def test_a_block_beyond_the_largest_is_served_by_the_twin(serve):
    g, length = torch.Generator().manual_seed(2), 2 * MAX_BLOCK + 3
    axis = Axis(length, enter=monomial(length, g), rounds=1, block=2 * MAX_BLOCK)
    x = torch.randn(length, 5, generator=g)
    ours, twin = torch.empty_like(x), torch.empty_like(x)
    for out, name in ((ours, (*AVAILABLE, "plain")[0]), (twin, "plain")):
        with serve(name):
            transform([Transform(x, out, [axis], Axis(5))])
    assert torch.equal(ours, twin)


@every_set
def test_in_the_mean_square_roundings_add_like_a_random_walk(serve, name):
    """A hundred times sharper than the sound bound, on operands large enough for means."""
    case = a_case()
    (rows,), features = case.task.rows, case.task.features
    for r, f in (
        (rows, features),
        (rows.inverted(), features.inverted()),
        (rows.dual(), features.dual()),
        (Axis(200), features),
        (rows, Axis(150)),
    ):
        other = Case(Transform(case.task.source, case.task.target, [r], f), case.whole)
        with serve(name):
            transform([other.task])
        exact, operand = other.exact()
        allowed = native_deviation(r, f, F32) * operand.norm()
        assert (other.task.target - exact).norm() <= allowed
        # One more rounding to 16 bits of mantissa would be outside.
        mantissa, exponent = other.task.target.frexp()
        blunt = ((mantissa * 2**16).round() / 2**16).ldexp(exponent)
        assert (blunt - exact).norm() > allowed


# ---- just outside the bound --------------------------------------------------------------------


def a_case(dtype=F32):
    g = torch.Generator().manual_seed(3)

    def axis(length):
        ends = {"enter": monomial(length, g), "leave": monomial(length, g)}
        return Axis(length, middle=[monomial(length, g)], rounds=2, block=64, **ends)

    x = torch.randn(200, 150, dtype=dtype, generator=g)
    out = torch.empty_like(x)
    return Case(Transform(x, out, [axis(200)], axis(150)), out)


@pytest.mark.parametrize("name", [*AVAILABLE, "plain"])
def test_one_rounding_to_fewer_bits_is_outside_the_bound(serve, name):
    case = a_case()
    with serve(name):
        transform([case.task])
    out = case.task.target
    assert excess(case, out, native_error) <= 1
    assert excess(case, out.bfloat16(), native_error) > 1
    mantissa, exponent = out.frexp()
    tf32 = ((mantissa * 2**11).round() / 2**11).ldexp(exponent)  # 11 bits with the leading one
    assert excess(case, tf32, native_error) > 1


@pytest.mark.parametrize("dtype", [F32, F64])
def test_an_error_just_above_the_bound_is_outside_and_just_below_is_not(dtype):
    case = a_case(dtype)
    exact, operand = case.exact()
    (rows,), features = case.task.rows, case.task.features
    error = torch.randn(exact.shape, dtype=F64, generator=torch.Generator().manual_seed(4))
    allowed = native_error(rows, features, dtype)
    allowed += twin_error(rows, features, F64) if dtype == F64 else 2.0**-23 * exact.norm() / operand.norm()
    error *= allowed * operand.norm() / error.norm()
    assert excess(case, exact + 1.1 * error, native_error) > 1
    assert excess(case, exact + 0.7 * error, native_error) <= 1


# ---- casts -------------------------------------------------------------------------------------


def identical_in_bits(a, b):
    """NaN counts as NaN, whichever bits it has."""
    nan = a.isnan()
    return torch.equal(nan, b.isnan()) and torch.equal(a.view(torch.int16)[~nan], b.view(torch.int16)[~nan])


def special():
    """Every exponent, both signs, mantissas on and beside ties, NaN and infinities of several bits."""
    high = torch.arange(0, 2**16, dtype=torch.int64) << 16
    low = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    return (high[:, None] + low).to(torch.int32).view(torch.float32)  # (65536, 6)


@every_set
def test_bfloat16_results_are_rounded_as_torch_rounds(serve, name):
    values = special()
    for x in (values, values.view(-1, 96), values.reshape(-1, 1)[:5000], values.view(-1, 8)[:, :7]):
        out = torch.empty(x.shape, dtype=BF16)
        with serve(name, 2):
            transform([Transform(x, out, [Axis(x.shape[0])], Axis(x.shape[1]))])
        assert identical_in_bits(out, x.bfloat16())


@every_set
def test_bfloat16_operands_are_read_exactly(serve, name):
    bits = torch.arange(2**16).to(torch.int16).view(BF16)
    for x in (bits.view(256, 256), bits.view(-1, 1), bits[: 5 * 13].view(5, 13)):
        out = torch.empty(x.shape)
        with serve(name):
            transform([Transform(x, out, [Axis(x.shape[0])], Axis(x.shape[1]))])
        nan = x.isnan()
        assert torch.equal(out.isnan(), nan)
        assert torch.equal(out.view(torch.int32)[~nan], x.float().view(torch.int32)[~nan])


@every_set
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_wherever_the_twin_says(serve, name, dtype, bad):
    for seed in range(12):
        case = a_case(dtype)
        g = torch.Generator().manual_seed(seed)
        for _ in range(seed % 3 + 1):
            case.task.source[int(torch.randint(200, (), generator=g)), seed] = bad
        task, twin = case.task, torch.empty_like(case.task.target)
        rows = Axis(200, enter=task.rows[0].enter, leave=task.rows[0].leave, rounds=1, block=64)
        features = Axis(150, enter=task.features.enter, leave=task.features.leave)
        for out, which in ((task.target, name), (twin, "plain")):
            with serve(which):
                transform([Transform(task.source, out, [rows], features)])
        assert torch.equal(task.target.isfinite(), twin.isfinite())
        assert not bool(twin.isfinite().all())


@every_set
@pytest.mark.parametrize("dtype", [F32, F64])
def test_denormal_entries_are_not_flushed(serve, name, dtype):
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x = (torch.randn(70, 33, dtype=F64, generator=torch.Generator().manual_seed(5)) * 50).round()
    x = x.to(dtype) * smallest
    out = torch.empty_like(x)
    with serve(name, 2):
        transform([Transform(x, out, [Axis(70)], Axis(33))])
        assert torch.equal(out, x)
        transform([Transform(x, out, [Axis(70, rounds=1, block=64)], Axis(33))])
    exact = plain.mix(x.double() / smallest, 0, 64)
    assert float((out.double() / smallest - exact).abs().max()) < 64
