"""Residues, remainders, shares and products modulo 2^61 - 1 against Python's own integers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import KeySpentError
from tempo.integrity.mersenne import Q, columns_times, draw, results_times, rows_times
from tempo.ops import PRIMES, Op, RingJob, expand, grad_w, grad_x, product, ring_compute
from tempo.secrecy.chinese import remaining, residues_of, whole
from tempo.secrecy.fixed import HALF, LARGEST, Integers, fixed_rows, fixed_weight
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.shares import ADDITIVE, REPLICATED, ShareKey, dealt

LIMIT = int(LARGEST)
operand = st.integers(-LIMIT, LIMIT) | st.sampled_from([-LIMIT, 1 - LIMIT, -1, 0, 1, LIMIT - 1, LIMIT])
result = st.integers(-HALF, HALF) | st.sampled_from([-HALF, 1 - HALF, -1, 0, 1, HALF - 1, HALF])
few = settings(max_examples=40, deadline=None)


def plain(values):
    """Integers as an operand, whatever scales."""
    t = torch.tensor(values, dtype=torch.float32)
    return Integers(t, torch.zeros(len(t), dtype=torch.int64), torch.zeros(1), None)


def test_every_operand_has_the_right_residues():
    v = torch.arange(-LIMIT, LIMIT + 1, 7)
    v = torch.cat(
        [v, torch.tensor([p * k + d for p in PRIMES for k in (-33420, 1, 33420) for d in (-1, 0, 1)])]
    )
    got = residues_of(v.float())
    for row, p in zip(got, PRIMES, strict=True):
        assert torch.equal(row.to(torch.int64), v.remainder(p))


@few
@given(st.lists(result, min_size=1, max_size=20))
def test_results_come_back_from_their_residues_up_to_the_bound(values):
    residues = torch.tensor([[v % p for v in values] for p in PRIMES], dtype=torch.uint8)
    assert whole([residues, torch.zeros_like(residues)]).to(torch.int64).tolist() == values


def test_one_beyond_the_bound_comes_back_as_another():
    residues = torch.tensor([[(HALF + 1) % p] for p in PRIMES], dtype=torch.uint8)
    assert whole([residues, torch.zeros_like(residues)]).item() == -HALF


@few
@given(st.lists(result, min_size=1, max_size=10), st.integers(0, 2**31))
def test_bytes_that_are_not_reduced_count_as_their_residues(values, number):
    """A worker may send any byte: the sum of three is still what it is modulo the prime."""
    g = torch.Generator().manual_seed(number)
    a, b = (torch.randint(256, (5, len(values)), generator=g, dtype=torch.uint8) for _ in range(2))
    primes = torch.tensor(PRIMES)[:, None]
    wanted = torch.tensor([[v % p for v in values] for p in PRIMES])
    c = (wanted - a.long() - b.long()).remainder(primes).to(torch.uint8)
    assert whole([a, b, c]).to(torch.int64).tolist() == values


@few
@given(st.lists(operand, min_size=1, max_size=20), st.sampled_from([ADDITIVE, REPLICATED]))
def test_shares_add_up_and_are_reduced(values, workers):
    v = torch.tensor(values, dtype=torch.float32)
    drawn = [expand(bytes([i]) * 32, v.shape) for i in range(workers - 1)]
    last = remaining(v, drawn)
    for i, p in enumerate(PRIMES):
        total = sum(share[i].long() for share in (*drawn, last)).remainder(p)
        assert total.tolist() == [x % p for x in values]
        assert int(last[i].max()) < p


@few
@given(st.data(), st.sampled_from(list(Op)), st.sampled_from([ADDITIVE, REPLICATED]))
def test_products_of_shares_are_the_products_at_the_bounds(data, op, workers):
    """Rows of +-1 times +-HALF / k: sums reach the ends of the range and stay exact."""
    g, r, k, n = 2, 3, 4, 5
    rows, size = (r,) * g, int((HALF // max(r, k, n)) ** 0.5)
    near = st.sampled_from([-size, 1 - size, 0, size - 1, size])
    x, w, dy = (
        torch.tensor(data.draw(st.lists(near, min_size=len_, max_size=len_)), dtype=torch.float32).view(shape)
        for len_, shape in ((g * r * k, (g * r, k)), (g * n * k, (g, n, k)), (g * r * n, (g * r, n)))
    )
    left, right, times = {
        Op.PRODUCT: (x, w, product),
        Op.GRAD_X: (dy, w, grad_x),
        Op.GRAD_W: (dy, x, grad_w),
    }[op]
    key, operands = SessionKey(), []
    for number, t in enumerate((left, right)):
        integers = Integers(t, torch.zeros(1, dtype=torch.int64), torch.zeros(1), None)
        if workers == ADDITIVE and number == 1:
            operands.append(dealt(9, ((residues_of(t),),) * workers, integers, keep=False))
        else:
            halves = ShareKey(key, (number,), workers).split(integers)
            operands.append(dealt(number, halves, integers, keep=False))
    jobs = [RingJob(op, a, b, rows) for a, b in zip(*operands, strict=True)]
    replies = [ring_compute(op, j.left.expanded(), j.right.expanded(), rows) for j in jobs]
    assert torch.equal(whole(replies), times(left.double(), right.double(), rows))


@few
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_products_modulo_the_mersenne_prime(rows, width, number):
    g = torch.Generator().manual_seed(number)
    a = torch.randint(-LIMIT, LIMIT + 1, (rows, width), generator=g)
    a[torch.rand(a.shape, generator=g) < 0.3] = LIMIT
    v, u = (draw(SessionKey().stream((i,)), size) for i, size in enumerate((width, rows)))
    v[0], u[0] = Q - 1, Q - 1

    def modulo(matrix, vector):
        return [sum(int(m) * int(x) for m, x in zip(row, vector)) % Q for row in matrix]

    assert rows_times(a.float(), v, float(LIMIT * width)).tolist() == modulo(a, v)
    assert columns_times(a.float(), u, float(LIMIT * rows)).tolist() == modulo(a.T, u)
    y = torch.randint(-HALF, HALF + 1, (rows, width), generator=g)
    y[torch.rand(y.shape, generator=g) < 0.3] = -HALF
    assert results_times(y.double(), v, HALF).tolist() == modulo(y, v)


def test_probes_are_below_the_prime():
    v = draw(SessionKey().stream(("probe",)), 4096)
    assert int(v.min()) >= 0
    assert int(v.max()) < Q
    assert int(v.max()) > Q // 2


@pytest.mark.security
def test_the_same_key_hides_one_operand():

    key = ShareKey(SessionKey(), ("x",), REPLICATED)
    key.split(plain([1, 2, 3]))
    with pytest.raises(KeySpentError):
        key.split(plain([1, 2, 3]))


@few
@given(st.lists(result, min_size=1, max_size=6), st.sampled_from([2, 3]))
def test_the_largest_sums_of_bytes_are_exact(values, workers):
    """Bytes as large as their residue class has: the sum that float64 must hold is as long as it gets."""
    primes = torch.tensor(PRIMES)[:, None]
    wanted = torch.tensor([[v % p for v in values] for p in PRIMES])
    replies = [torch.full((5, len(values)), 255, dtype=torch.uint8) for _ in range(workers - 1)]
    last = (wanted - 255 * (workers - 1)).remainder(primes)
    last += primes * (last + primes <= 255)
    assert whole([*replies, last.to(torch.uint8)]).to(torch.int64).tolist() == values


@few
@given(
    st.integers(0, 2**31),
    st.floats(0, 12),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_no_operands_leave_the_range(number, spread, sizes, dtype, summed):
    """Rows, columns and entries of sizes that differ by many powers of two, of any shape: sums of magnitudes,
    which nothing cancels, stay within HALF in all three products, and no integer is beyond LARGEST."""
    g, (r, k, n), groups = torch.Generator().manual_seed(number), sizes, 2
    rows = (r,) * groups

    def wild(*shape):
        t = torch.randn(shape, generator=g, dtype=torch.float64)
        for axis in (-1, -2):
            size = [shape[i] if i % len(shape) == axis % len(shape) else 1 for i in range(len(shape))]
            t = t * torch.exp2(spread * torch.randn(size, generator=g, dtype=torch.float64))
        return t.to(dtype)

    w = fixed_weight(wild(groups, n, k))
    x = fixed_rows(wild(groups * r, k), rows, w.rows, summed=summed)
    dy = fixed_rows(wild(groups * r, n), rows, w.columns, others=x.columns, summed=summed)
    xs, ws, ds = (t.values.double().abs() for t in (x, w, dy))
    assert float(product(xs, ws, rows).max()) <= HALF
    assert float(grad_x(ds, ws, rows).max()) <= HALF
    if summed:
        assert float(grad_w(ds, xs, rows).max()) <= HALF
    assert max(float(t.max()) for t in (xs, ws, ds)) <= LARGEST
