"""Products of shares against the same in 64-bit integers, on both units, and at the bounds of their sums."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from tempo.ops import PRIMES, Op, int8, modular, ring, ring_compute, ring_temporary_bytes, spans

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
CPU = torch.device("cpu")
UNITS = ["floats", "bytes", "as it is"]
#: Inner lengths around those at which sums are reduced.
LENGTHS = [512, 513, 1024, 1025, 65536, 65537, 131072, 131073]


def unit(a, b):
    """A tensor core for bytes, as CUDA has them: what it takes, and that no sum leaves 32 bits. In float64,
    which is exact here."""
    assert a.dtype == b.dtype == torch.int8
    assert a.shape[0] > 16
    assert a.shape[1] % 8 == b.shape[0] % 8 == b.shape[1] % 8 == 0
    assert a.is_contiguous()
    assert b.mT.is_contiguous()
    sums = a.double() @ b.double()
    magnitudes = a.double().abs() @ b.double().abs()
    assert not magnitudes.numel() or float(magnitudes.max()) < 2**31
    return sums.to(torch.int32)


@pytest.fixture(params=UNITS)
def device(request, monkeypatch):
    """The product on floats, on an emulated byte unit, and on whatever this machine has."""
    if request.param == "as it is":
        return
    monkeypatch.setattr(ring, "multiplies_bytes", lambda device: request.param == "bytes")
    monkeypatch.setattr(torch, "_int_mm", unit)


def plain(op, left, right, rows):
    """Each group of each prime in int64."""
    results = []
    for prime, l_HTF, r_H in zip(PRIMES, left.long().unbind(1), right.long().unbind(1), strict=True):
        pairs = [(l_HTF[0], r_H.sum(0)), *([(l_HTF[1], r_H[0])] if len(l_HTF) == 2 else [])]
        total = 0
        for one, other in pairs:
            parts = []
            for g, (lo, hi) in enumerate(spans(rows)):
                match op:
                    case Op.PRODUCT:
                        parts.append(one[lo:hi] @ other[g].mT)
                    case Op.GRAD_X:
                        parts.append(one[lo:hi] @ other[g])
                    case Op.GRAD_W:
                        parts.append(one[lo:hi].mT @ other[lo:hi])
            total = total + (torch.stack(parts) if op is Op.GRAD_W else torch.cat(parts))
        results.append(total.remainder(prime).to(torch.uint8))
    return torch.stack(results)


@st.composite
def jobs(draw):
    """(op, left, right, rows): one or two halves of any bytes at all."""
    rows = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 7, 40]), min_size=1, max_size=4)))
    if draw(st.booleans()):
        rows = (rows[0],) * len(rows)
    n, k = (draw(st.sampled_from([0, 1, 3, 8, 17, 520])) for _ in range(2))
    halves, op = draw(st.sampled_from([1, 2])), draw(st.sampled_from(list(Op)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def drawn(*shape):
        return torch.randint(0, 256, (halves, len(PRIMES), *shape), dtype=torch.uint8, generator=generator)

    t = sum(rows)
    x, w, dy = drawn(t, k), drawn(len(rows), n, k), drawn(t, n)
    return {Op.PRODUCT: (op, x, w, rows), Op.GRAD_X: (op, dy, w, rows), Op.GRAD_W: (op, dy, x, rows)}[op]


@few
@given(jobs())
def test_the_result_is_that_of_integers(device, job):
    result = ring_compute(*job)
    assert result.dtype == torch.uint8
    assert torch.equal(result, plain(*job))


def extreme(inner, sign, halves, m=2, n=3):
    """Factors whose terms are all as large as they can be: (p - 1)^2 / 4 in magnitude, of one sign, or of
    one sign first and the other after. The second half of the factor whose halves are added, the smaller
    one, is zero: its sum is its first half then."""
    signs = torch.ones(inner, dtype=torch.long)
    signs[inner // 2 if sign == 0 else inner :] = -1
    signs *= sign or 1
    left = torch.stack([((p - 1) // 2 * signs).remainder(p).expand(halves, m, -1) for p in PRIMES], 1)
    right = torch.empty(halves, len(PRIMES), 1, n, inner, dtype=torch.uint8)
    for i, p in enumerate(PRIMES):
        right[:, i] = (p - 1) // 2
    (left if m < n else right)[1:] = 0
    return left.to(torch.uint8), right


@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("halves", [1, 2])
@pytest.mark.parametrize("sign", [1, 0])
@pytest.mark.parametrize("inner", LENGTHS)
def test_exact_where_every_term_is_as_large_as_it_can_be(device, inner, sign, halves, m, n):
    left, right = extreme(inner, sign, halves, m, n)
    assert torch.equal(ring_compute(Op.PRODUCT, left, right, (m,)), plain(Op.PRODUCT, left, right, (m,)))


@pytest.mark.parametrize("inner", [513, 65537])
def test_exact_along_the_rows_too(device, inner):
    """dW sums over rows."""
    left, right = extreme(inner, 1, 2)
    dy, x = left.mT.contiguous(), right[:, :, 0].mT.contiguous()
    assert torch.equal(ring_compute(Op.GRAD_W, dy, x, (inner,)), plain(Op.GRAD_W, dy, x, (inner,)))


def test_longer_sums_of_floats_would_not_be_exact(monkeypatch):
    """The bound is where it has to be: what the test above would find, had the chunks twice the length."""
    monkeypatch.setattr(ring, "multiplies_bytes", lambda device: False)
    left, right = extreme(2047, 1, 1)  # an odd sum, since 125 is odd
    exact = plain(Op.PRODUCT, left, right, (2,))
    assert torch.equal(ring_compute(Op.PRODUCT, left, right, (2,)), exact)
    monkeypatch.setattr(modular, "TERMS", 2 * modular.TERMS)
    assert not torch.equal(ring_compute(Op.PRODUCT, left, right, (2,)), exact)


def test_longer_sums_of_bytes_would_leave_32_bits(monkeypatch):
    monkeypatch.setattr(ring, "multiplies_bytes", lambda device: True)
    monkeypatch.setattr(torch, "_int_mm", unit)
    left, right = extreme(2 * 65536, 1, 2)
    monkeypatch.setattr(int8, "TERMS", 2 * int8.TERMS)
    with pytest.raises(AssertionError):
        ring_compute(Op.PRODUCT, left, right, (2,))


@pytest.mark.parametrize("shape", [(1, 3000, 2), (1, 5, 9000), (70, 3, 4), (1, 1100, 2100)])
def test_results_of_several_tiles(device, shape, monkeypatch):
    monkeypatch.setitem(int8._SUM, "cpu", 1 << 12)
    monkeypatch.setitem(int8._SLAB, "cpu", 1 << 8)
    monkeypatch.setattr(modular, "_TILE", 1 << 12)
    monkeypatch.setattr(modular, "_SIDES", (1 << 5, 1 << 8))
    monkeypatch.setattr(modular, "_FACTORS", 1 << 18)
    groups, m, n = shape
    left = torch.randint(0, 256, (2, len(PRIMES), groups * m, 9), dtype=torch.uint8)
    right = torch.randint(0, 256, (2, len(PRIMES), groups, n, 9), dtype=torch.uint8)
    rows = (m,) * groups
    assert torch.equal(ring_compute(Op.PRODUCT, left, right, rows), plain(Op.PRODUCT, left, right, rows))


def test_many_threads_and_another_default_dtype_change_nothing(device):
    left, right = extreme(1025, 0, 2, 300, 400)
    exact, threads = plain(Op.PRODUCT, left, right, (300,)), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        assert torch.equal(ring_compute(Op.PRODUCT, left, right, (300,)), exact)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)


def test_operands_are_left_as_they_were(device):
    left, right = extreme(40, 0, 2)
    before = left.clone(), right.clone()
    ring_compute(Op.PRODUCT, left, right, (2,))
    assert torch.equal(left, before[0])
    assert torch.equal(right, before[1])


def test_torchs_settings_for_floats_do_not_round_residues(monkeypatch):
    monkeypatch.setattr(ring, "multiplies_bytes", lambda device: False)
    left, right = extreme(512, 1, 2)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(ring_compute(Op.PRODUCT, left, right, (2,)), plain(Op.PRODUCT, left, right, (2,)))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_byte_unit_that_saturates_is_not_used(monkeypatch):
    """As CPUs without VNNI do: pairs of products are added in 16 bits."""

    def saturating(a, b):
        pairs = (a.double()[:, 0::2] @ b.double()[0::2]) + (a.double()[:, 1::2] @ b.double()[1::2])
        return pairs.clamp(-32768, 32767).to(torch.int32)

    monkeypatch.setattr(int8, "_cpu_has_unit", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", saturating)
    int8.multiplies_bytes.cache_clear()
    assert not int8.multiplies_bytes(CPU)
    monkeypatch.setattr(torch, "_int_mm", unit)
    int8.multiplies_bytes.cache_clear()
    assert int8.multiplies_bytes(CPU)
    monkeypatch.setattr(int8, "_cpu_has_unit", lambda: False)
    int8.multiplies_bytes.cache_clear()
    assert not int8.multiplies_bytes(CPU)
    int8.multiplies_bytes.cache_clear()


# ---- memory --------------------------------------------------------------------------------------


def peak(run):
    """Most bytes at once, over those before, that `run` takes from PyTorch's CPU allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        run()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.parametrize("halves", [1, 2])
@pytest.mark.parametrize("rows", [(600, 600), (900, 300), (40,) * 30])
@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("bytes_", [False, True])
def test_the_memory_that_is_claimed_is_that_which_is_taken(op, rows, halves, bytes_, monkeypatch):
    """Never more, and by no large part less: a worker that counts twice what it needs refuses jobs."""
    monkeypatch.setattr(ring, "multiplies_bytes", lambda device: bytes_)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.zeros(len(a), b.shape[1], dtype=torch.int32))
    t, n, k = sum(rows), 400, 700
    shapes = {Op.PRODUCT: ((t, k), (len(rows), n, k)), Op.GRAD_X: ((t, n), (len(rows), n, k))}
    left, right = shapes.get(op, ((t, n), (t, k)))
    l_HP, r_HP = (torch.ones(halves, len(PRIMES), *shape, dtype=torch.uint8) for shape in (left, right))
    result = ring_compute(op, l_HP, r_HP, rows)
    claimed = ring_temporary_bytes(op, left, right, rows, halves, device=CPU)
    taken = peak(lambda: ring_compute(op, l_HP, r_HP, rows)) - result.nbytes
    assert taken <= claimed <= 2 * taken
