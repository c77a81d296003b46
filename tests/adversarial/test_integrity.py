"""A worker that lies about results, by name of the lie; and honest workers, who must never be accused.

Every draw is fixed, so each test has one outcome. Where a lie may pass by chance, the probability is
computed from the tolerance and the number of misses is held to it.
"""

import hashlib
import math

import pytest
import torch

from tempo.errors import IntegrityError
from tempo.integrity import Verifier
from tempo.ops import Job, Op, Operand, Unverified, compute, spans
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import FeatureKey, RowKey

pytestmark = pytest.mark.security

DTYPES = [torch.float32, torch.float64]


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


def generator(seed):
    return torch.Generator().manual_seed(seed)


def job(op, left, right, rows):
    pair = [Operand(i, tuple(t.shape), t.dtype, t) for i, t in enumerate((left, right))]
    return Job(op, *pair, tuple(rows))


def job_of(op, rows=(96,), k=80, n=64, dtype=torch.float32, seed=0):
    g, total = generator(seed), sum(rows)
    x = torch.randn(total, k, generator=g, dtype=torch.float64)
    w = torch.randn(len(rows), n, k, generator=g, dtype=torch.float64)
    dy = torch.randn(total, n, generator=g, dtype=torch.float64)
    left, right = {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}[op]
    return job(op, left.to(dtype), right.to(dtype), rows)


def honest(j):
    return compute(j.op, j.left.tensor, j.right.tensor, j.rows)


def refused(verifier, j, reply):
    checks = verifier.begin()
    checks.expect(j)
    try:
        checks.accept(j, Unverified(reply))
    except IntegrityError:
        assert (checks.made, checks.failed) == (1, 1)
        return True
    assert (checks.made, checks.failed) == (1, 0)
    return False


def ratios(verifier, j, reply):
    """|difference| / calibrated tolerance of every row and probe of a reply."""
    checks = verifier.begin()
    checks.expect(j)
    proof = checks._proofs[j]
    projection = reply.reshape(-1, reply.shape[-1]).double() @ proof.probe
    return (projection - proof.expected).abs() / proof.tolerance.calibrated


def within(x):
    """P(|Z| <= x), Z standard normal."""
    return math.erf(x / 2**0.5)


# ---- lies --------------------------------------------------------------------------------------


def one_row_replaced(j, y):
    y = y.clone()
    rows = y.view(-1, y.shape[-1])
    rows[5] = rows[6]
    return y


def two_rows_exchanged(j, y):
    y = y.clone()
    rows = y.view(-1, y.shape[-1])
    rows[[5, 6]] = rows[[6, 5]]
    return y


def two_columns_exchanged(j, y):
    y = y.clone()
    y[..., [2, 3]] = y[..., [3, 2]]
    return y


def low_rank_addition(j, y):
    """A backdoor in the gradient: rank one, a thousandth of the result."""
    g = generator(9)
    u = torch.randn(*y.shape[:-1], 1, generator=g, dtype=torch.float64)
    v = torch.randn(1, y.shape[-1], generator=g, dtype=torch.float64)
    addition = u * v
    return y + (1e-3 * y.norm() / addition.norm() * addition).to(y.dtype)


def in_low_precision(bits):
    def lie(j, y):
        """Operands rounded to so many bits of mantissa, products exact: what tensor cores do."""

        def rounded(t):
            mantissa, exponent = torch.frexp(t.double())
            return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)

        left, right = rounded(j.left.tensor), rounded(j.right.tensor)
        return compute(j.op, left, right, j.rows).to(y.dtype)

    return lie


def of_another_layer(j, y):
    g = generator(77)
    right = torch.randn(j.right.tensor.shape, generator=g, dtype=torch.float64).to(y.dtype)
    return compute(j.op, j.left.tensor, right, j.rows)


def stale(j, y):
    """The same layer a step earlier: weights or inputs that differ by a thousandth."""
    g = generator(78)
    noise = torch.randn(j.right.tensor.shape, generator=g, dtype=torch.float64).to(y.dtype)
    return compute(j.op, j.left.tensor, j.right.tensor + 1e-3 * noise, j.rows)


def one(value):
    def lie(j, y):
        y = y.clone()
        y.view(-1)[17] = value
        return y

    return lie


def groups_exchanged(j, y):
    """dW of another group; rows of one group in the next."""
    return y.flip(0) if len(y) == len(j.rows) > 1 else y.roll(1, -2)


LIES = {
    "scaled": lambda j, y: y * 1.01,
    "scaled a little": lambda j, y: y * 1.0001,
    "negated": lambda j, y: -y,
    "zeros": lambda j, y: torch.zeros_like(y),
    "ones": lambda j, y: torch.ones_like(y),
    "nan": lambda j, y: torch.full_like(y, float("nan")),
    "inf": lambda j, y: torch.full_like(y, float("inf")),
    "one nan": one(float("nan")),
    "one inf": one(float("inf")),
    "one huge": one(3e38),
    "stale": stale,
    "of another layer": of_another_layer,
    "one row replaced": one_row_replaced,
    "two rows exchanged": two_rows_exchanged,
    "two columns exchanged": two_columns_exchanged,
    "low rank addition": low_rank_addition,
    "rolled": lambda j, y: y.roll(1, -1),
    "groups exchanged": groups_exchanged,
    "bfloat16 result": lambda j, y: y.bfloat16().to(y.dtype),
    "bfloat16 operands": in_low_precision(8),
    "float16 operands": in_low_precision(11),
    "tf32 operands": in_low_precision(11),
    "a row left out of the sum": lambda j, y: compute(
        j.op, torch.cat([torch.zeros_like(j.left.tensor[:1]), j.left.tensor[1:]]), j.right.tensor, j.rows
    ),
    "shape: a row less": lambda j, y: y[:-1],
    "shape: a row more": lambda j, y: torch.cat([y, y[:1]]),
    "shape: flat": lambda j, y: y.flatten(),
    "shape: an axis more": lambda j, y: y[None],
    "shape: turned": lambda j, y: y.mT,
    "shape: a number": lambda j, y: y.sum(),
    "shape: empty": lambda j, y: y[:0],
    "dtype: the other float": lambda j, y: y.to(torch.float64 if y.dtype is torch.float32 else torch.float32),
    "dtype: half": lambda j, y: y.half(),
    "dtype: integers": lambda j, y: y.long(),
    "dtype: complex": lambda j, y: y.to(torch.complex64),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [(96,), (48, 48), (70, 0, 26)], ids=str)
@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(lie, op, rows, dtype):
    j = job_of(op, rows, dtype=dtype)
    true = honest(j)
    forged = LIES[lie](j, true)
    verifier = Verifier(key_of(lie), 2)
    assert refused(verifier, j, forged)
    assert not refused(verifier, j, true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dx_and_dw_exchanged(dtype):
    """All axes of one length, so that shapes tell nothing."""
    g = generator(3)
    x, w, dy = (torch.randn(64, 64, generator=g, dtype=torch.float64).to(dtype) for _ in range(3))
    grad_x, grad_w = job(Op.GRAD_X, dy, w[None], (64,)), job(Op.GRAD_W, dy, x, (64,))
    verifier = Verifier(key_of("swap"), 2)
    assert refused(verifier, grad_x, honest(grad_w)[0])
    assert refused(verifier, grad_w, honest(grad_x)[None])
    assert refused(verifier, grad_x, honest(grad_w))
    product = job(Op.PRODUCT, x, w[None], (64,))
    assert refused(verifier, product, honest(job(Op.PRODUCT, x, w.mT[None], (64,))))


@pytest.mark.parametrize("op", Op)
def test_junk_in_an_empty_group_is_refused(op):
    j = job_of(op, (40, 0, 30))
    true = honest(j)
    if op is Op.GRAD_W:
        true[1, 3, 4] = 1e-20
        assert refused(Verifier(key_of("junk"), 2), j, true)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", Op)
def test_rows_of_all_sizes_are_each_held_to_their_own(op, dtype):
    """A lie in a row of size 1e-12 is found beside rows of size 1e12."""
    j = job_of(op, (96,), k=64, n=64, dtype=dtype)
    sizes = torch.logspace(-12, 12, 96 if op is not Op.GRAD_W else 64, dtype=torch.float64).to(dtype)
    j.left.tensor.mul_(sizes[:, None] if op is not Op.GRAD_W else sizes)
    true, verifier = honest(j), Verifier(key_of("sizes"), 2)
    assert not refused(verifier, j, true)
    for row in range(true.reshape(-1, 64).shape[0]):
        forged = true.clone()
        forged.view(-1, 64)[row] *= 1.01
        assert refused(verifier, j, forged), row


# ---- a single entry ----------------------------------------------------------------------------


def miss_probability(change, tolerance, probes):
    """A change of one entry moves the projection by change * r, r standard normal."""
    return within(float(tolerance) / abs(change)) ** probes if change else 1.0


@pytest.mark.parametrize(("op", "probes"), [(Op.PRODUCT, 2), (Op.GRAD_X, 1), (Op.GRAD_W, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_flipped_sign_is_missed_no_oftener_than_computed(op, probes, dtype):
    j, g = job_of(op, (40,), k=64, n=72, dtype=dtype), generator(5)
    true, verifier = honest(j), Verifier(key_of("flip"), probes)
    expected = missed = 0.0
    for _ in range(600):
        at = int(torch.randint(true.numel(), (1,), generator=g))
        forged = true.clone()
        forged.view(-1)[at] *= -1
        checks = verifier.begin()
        checks.expect(j)
        tolerance = checks._proofs[j].tolerance.calibrated[at // true.shape[-1]]
        expected += miss_probability(2 * float(true.view(-1)[at]), tolerance, probes)
        try:
            checks.accept(j, Unverified(forged))
            missed += 1
        except IntegrityError:
            pass
    allowance = 5 * expected**0.5 + 1
    print(f"{op.value} {dtype} probes {probes}: {missed:g} of 600 missed, {expected:.3g} expected")
    assert missed <= expected + allowance
    assert expected < 12, "a flipped sign is all but certain to be found"


@pytest.mark.parametrize("probes", [1, 2])
def test_small_entries_beside_large_ones_are_missed_as_often_as_computed(probes):
    """What the check does not see: entries below the round-off of their row. Not more, not less."""
    j, g = job_of(Op.PRODUCT, (40,), k=64, n=72), generator(13)
    j.right.tensor.mul_(torch.logspace(-9, 0, 72)[:, None])
    true, verifier = honest(j), Verifier(key_of(("small flip", probes)), probes)
    expected = variance = missed = 0.0
    for _ in range(800):
        at = int(torch.randint(true.numel(), (1,), generator=g))
        forged = true.clone()
        forged.view(-1)[at] *= -1
        checks = verifier.begin()
        checks.expect(j)
        tolerance = checks._proofs[j].tolerance.calibrated[at // 72]
        chance = miss_probability(2 * float(true.view(-1)[at]), tolerance, probes)
        expected, variance = expected + chance, variance + chance * (1 - chance)
        try:
            checks.accept(j, Unverified(forged))
            missed += 1
        except IntegrityError:
            pass
    print(f"probes {probes}: {missed:g} of 800 missed, {expected:.1f} expected")
    assert 100 < expected < 700
    assert abs(missed - expected) <= 5 * variance**0.5 + 8


@pytest.mark.parametrize(("t", "k", "n"), [(64, 1024, 1024), (32, 4096, 512), (2048, 128, 256)])
def test_one_flipped_sign_in_a_large_product(t, k, n):
    j, g = job_of(Op.PRODUCT, (t,), k=k, n=n), generator(6)
    true, verifier = honest(j), Verifier(key_of("large flip"), 2)
    expected = missed = 0.0
    for _ in range(6):
        at = int(torch.randint(true.numel(), (1,), generator=g))
        forged = true.clone()
        forged.view(-1)[at] *= -1
        checks = verifier.begin()
        checks.expect(j)
        tolerance = checks._proofs[j].tolerance.calibrated[at // n]
        expected += miss_probability(2 * float(true.view(-1)[at]), tolerance, 2)
        try:
            checks.accept(j, Unverified(forged))
            missed += 1
        except IntegrityError:
            pass
    assert missed <= expected + 5 * expected**0.5 + 0.5


@pytest.mark.parametrize("op", Op)
def test_the_largest_entry_flipped_is_found_in_every_op(op):
    j = job_of(op, (512,), k=512, n=512)
    forged = honest(j)
    forged.view(-1)[forged.abs().argmax()] *= -1
    assert refused(Verifier(key_of("largest"), 2), j, forged)


# ---- just outside the tolerance ----------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 2, 4])
@pytest.mark.parametrize("c", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_a_change_of_c_tolerances_is_refused_as_often_as_theory_says(c, probes):
    """The difference is normal with deviation c tolerances: passed with (2 Phi(1/c) - 1)^probes."""
    j, g, trials = job_of(Op.PRODUCT, (1,), k=64, n=64, dtype=torch.float64), generator(7), 500
    # float64 operands judged by the float32 rule would not do: the tolerance is the job's own.
    true, verifier = honest(j), Verifier(key_of(("just outside", c, probes)), probes)
    passed = 0
    for _ in range(trials):
        checks = verifier.begin()
        checks.expect(j)
        tolerance = float(checks._proofs[j].tolerance.calibrated)
        change = torch.randn(1, 64, generator=g, dtype=torch.float64)
        # In float64 the change itself is rounded to the grid of the result: a few parts in a hundred.
        forged = true + change * (c * tolerance / change.norm())
        try:
            checks.accept(j, Unverified(forged))
            passed += 1
        except IntegrityError:
            pass
    theory = within(1 / c) ** probes
    deviation = (trials * theory * (1 - theory)) ** 0.5
    assert abs(passed - trials * theory) <= 5 * deviation + 0.01 * trials


def test_float32_changes_of_c_tolerances():
    """The same for the arithmetic that is mostly used, honest rounding included."""
    j, g, trials = job_of(Op.PRODUCT, (1,), k=64, n=64), generator(8), 500
    true, verifier = honest(j), Verifier(key_of("just outside, float32"), 2)
    for c in (0.5, 1.0, 3.0):
        passed = 0
        for _ in range(trials):
            checks = verifier.begin()
            checks.expect(j)
            tolerance = float(checks._proofs[j].tolerance.calibrated)
            change = torch.randn(1, 64, generator=g)
            try:
                checks.accept(j, Unverified(true + change * (c * tolerance / change.norm())))
                passed += 1
            except IntegrityError:
                pass
        theory = within(1 / c) ** 2
        assert abs(passed - trials * theory) <= 5 * (trials * theory * (1 - theory)) ** 0.5 + 0.02 * trials


def test_a_single_row_just_outside_is_found_among_thousands():
    j = job_of(Op.PRODUCT, (4096,), k=64, n=64)
    true, found, g = honest(j), 0, generator(10)
    verifier = Verifier(key_of("needle"), 2)
    for row in range(20):
        checks = verifier.begin()
        checks.expect(j)
        forged, change = true.clone(), torch.randn(64, generator=g)
        forged[200 * row] += change * (
            30 * float(checks._proofs[j].tolerance.calibrated[200 * row]) / change.norm()
        )
        try:
            checks.accept(j, Unverified(forged))
        except IntegrityError:
            found += 1
    assert found >= 19  # missed with (2 Phi(1/30) - 1)^2 = 0.0007


# ---- honest workers ----------------------------------------------------------------------------

CASES = {
    "normal": lambda g, *s: torch.randn(*s, generator=g, dtype=torch.float64),
    "positive": lambda g, *s: torch.rand(*s, generator=g, dtype=torch.float64),
    "sparse": lambda g, *s: torch.randn(*s, generator=g, dtype=torch.float64).relu(),
    "heavy tails": lambda g, *s: torch.randn(*s, generator=g, dtype=torch.float64).mul(4).exp(),
    "one large": lambda g, *s: torch.randn(*s, generator=g, dtype=torch.float64).index_fill(
        -1, torch.tensor([3]), 1e6
    ),
    "rows of all sizes": lambda g, *s: (
        torch.randn(*s, generator=g, dtype=torch.float64)
        * torch.logspace(-12, 12, s[-2], dtype=torch.float64)[:, None]
    ),
    "one per row": lambda g, *s: torch.zeros(*s, dtype=torch.float64).index_fill(-1, torch.tensor([5]), 3.7),
    "cancelling": lambda g, *s: (
        torch.randn(*s, generator=g, dtype=torch.float64).sign() * 1e4
        + torch.randn(*s, generator=g, dtype=torch.float64)
    ),
    "zero": lambda g, *s: torch.zeros(*s, dtype=torch.float64),
    "dust": lambda g, *s: torch.randn(*s, generator=g, dtype=torch.float64) * 1e-36,
}


def honest_jobs():
    """(name, job): every op, dtype, kind of operand, equal and ragged groups."""
    sizes = [((64,), 64, 64), ((100, 28), 65, 96), ((70, 0, 3), 300, 1), ((129,), 1, 70), ((256,), 512, 48)]
    for i, (rows, k, n) in enumerate(sizes):
        for name, draw in CASES.items():
            for dtype in DTYPES:
                g = generator(i)
                total, groups = sum(rows), len(rows)
                wide = max(k, n, 8)
                x = draw(g, total, wide)[:, :k].to(dtype)
                w = draw(g, groups, n, wide)[..., :k].to(dtype)
                dy = CASES["normal"](g, total, n).to(dtype)
                for op, pair in ((Op.PRODUCT, (x, w)), (Op.GRAD_X, (dy, w)), (Op.GRAD_W, (dy, x))):
                    left, right = (t.contiguous() for t in pair)
                    yield f"{name}, {op.value}, {dtype}", job(op, left, right, rows)


def test_an_honest_worker_is_never_accused():
    verifier, rows, worst = Verifier(key_of("honest"), 2), 0, (0.0, "")
    for name, j in honest_jobs():
        reply = honest(j)
        if not bool(reply.isfinite().all()):
            continue  # heavy tails beyond float32: nothing of the kind is sent
        assert not refused(verifier, j, reply), name
        ratio = ratios(verifier, j, reply)
        rows += ratio.shape[0]
        worst = max(worst, (float(ratio.max()), name))
    print(f"honest: {rows} rows, {2 * rows} projections, largest ratio {worst[0]:.3f} ({worst[1]})")
    assert rows >= 20_000
    assert worst[0] < 1


def test_an_honest_worker_is_never_accused_over_sealed_operands():
    """The same on what is really sent: operands in secret bases, all three ops of a step."""
    g, rows, worst = generator(11), 0, 0.0
    for i, name in enumerate(["mixing", "monomial", "unsafe_none"] * 4):
        dtype = DTYPES[i % 2]
        counts, k, n = (
            [(300, 200), (777,), (64, 65, 200), (1000,)][i % 4],
            64 + 37 * (i % 5),
            64 + 50 * (i % 3),
        )
        key, verifier = key_of(("sealed", i)), Verifier(key_of(("sealed", i)), 2)
        scheme = scheme_from(name, spread=2**0.5, chunk=256, smallest=64, rounds=2, row_rounds=2, block=64)
        weight = FeatureKey(key, scheme, (0,), groups=len(counts), k=k, n=n)
        row_key = RowKey(key, scheme, (0,), counts)
        a = row_key.bases()
        # As many rows as the longest group has; the others send their first ones.
        x, dy = (torch.randn(len(counts), max(counts), f, generator=g).relu().to(dtype) for f in (k, n))
        where = Selection(tuple(torch.arange(r) for r in counts), max(counts))
        w = weight.seal_w(torch.randn(len(counts), n, k, generator=g).to(dtype))
        x, dy = row_key.seal_x(a, weight.b, x, where), row_key.seal_dy(a, weight.c, dy, where)
        for j in (
            job(Op.PRODUCT, x, w, counts),
            job(Op.GRAD_X, dy, w, counts),
            job(Op.GRAD_W, dy, x, counts),
        ):
            reply = honest(j)
            assert not refused(verifier, j, reply)
            ratio = ratios(verifier, j, reply)
            rows, worst = rows + ratio.shape[0], max(worst, float(ratio.max()))
    print(f"sealed: {rows} rows, largest ratio {worst:.3f}")
    assert rows > 10_000
    assert worst < 1


@pytest.mark.parametrize(
    ("op", "rows", "k", "n"), [(Op.PRODUCT, (2048,), 256, 640), (Op.GRAD_W, (512,), 1024, 1100)]
)
def test_a_product_of_over_a_million_outputs(op, rows, k, n):
    j = job_of(op, rows, k=k, n=n)
    reply = honest(j)
    assert reply.numel() > 10**6
    ratio = float(ratios(Verifier(key_of("million"), 2), j, reply).max())
    print(f"{op.value} of {reply.numel()} outputs: largest ratio {ratio:.4f}")
    assert ratio < 0.2


@pytest.mark.parametrize("kind", ["normal", "positive", "sparse", "heavy tails"])
def test_a_worker_that_adds_one_term_after_another_in_float32(kind):
    """The plainest order of summation, which errs most: a GPU thread over its inner loop."""
    g, t, k, n = generator(12), 24, 4096, 24
    x, w = CASES[kind](g, t, k).float(), CASES[kind](g, 1, n, k).float()
    y = torch.zeros(t, n)
    for i in range(k):
        y += x[:, i, None] * w[0, :, i]
    j = job(Op.PRODUCT, x, w, (t,))
    ratio = float(ratios(Verifier(key_of("sequential"), 2), j, y).max())
    print(f"{kind}, sequential: ratio {ratio:.4f}")
    assert ratio < 1
    assert not refused(Verifier(key_of("sequential"), 2), j, y)


def test_a_worker_that_flushes_denormals_to_zero():
    j = job_of(Op.PRODUCT, (40,))
    j.left.tensor.mul_(1e-38)
    reply = honest(j)
    flushed = torch.where(reply.abs() < torch.finfo(torch.float32).tiny, 0.0, reply)
    assert not torch.equal(flushed, reply)
    verifier = Verifier(key_of("denormal"), 2)
    assert not refused(verifier, j, flushed)
    assert not refused(verifier, j, reply)


def test_spans_of_the_jobs_above_cover_them():
    for _, j in honest_jobs():
        assert spans(j.rows)[-1][1] == j.left.shape[0]
