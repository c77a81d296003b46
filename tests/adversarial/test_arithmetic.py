"""Workers that compute in less than float32: honest ones, who were allowed to, and liars, who were not.

TF32 is simulated on the bits of the operands, in both ways that hardware rounds. Every draw is fixed.
"""

import hashlib
import math

import pytest
import torch

from tempo.errors import IntegrityError
from tempo.integrity import Verifier
from tempo.ops import Arithmetic, Job, Op, Operand, Unverified, compute
from tempo.secrecy.keys import SessionKey

pytestmark = pytest.mark.security

BF16 = torch.bfloat16
FP32 = torch.float32


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


def generator(seed):
    return torch.Generator().manual_seed(seed)


def tf32(t):
    """To 10 explicit bits of mantissa, to nearest, ties to even."""
    bits = t.view(torch.int32)
    bits = bits + 0xFFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(FP32)


def tf32_cut_off(t):
    """What a tensor core does to float32 registers that nobody rounded."""
    return (t.view(torch.int32) & ~0x1FFF).view(FP32)


def bf16(t):
    return t.to(BF16).float()


def as_sent(t):
    return t


#: Worker: what it does to float32 operands, and the arithmetic that allows it.
WORKERS = {
    "tf32": (tf32, Arithmetic.TF32),
    "tf32, cut off": (tf32_cut_off, Arithmetic.TF32),
    "float32, tf32 allowed": (as_sent, Arithmetic.TF32),
    "bf16": (bf16, Arithmetic.BF16),
    "tf32, bf16 allowed": (tf32, Arithmetic.BF16),
}


def job(op, left, right, rows, arithmetic=Arithmetic.FP32):
    pair = [Operand(i, tuple(t.shape), t.dtype, t) for i, t in enumerate((left, right))]
    return Job(op, *pair, tuple(rows), arithmetic)


def answer(j, rounds=as_sent):
    """The reply of a worker that rounds float32 operands so, and sums in float32."""
    operands = (o.tensor if o.dtype == BF16 else rounds(o.tensor) for o in j.operands)
    left, right = (t.float() for t in operands)
    return compute(j.op, left, right, j.rows).to(j.result_dtype)


def judged(verifier, j, reply):
    """|difference| / calibrated tolerance of every row and probe, as the check computes them."""
    checks = verifier.begin()
    checks.expect(j)
    proof = checks._proofs[j]
    rows = reply.reshape(-1, reply.shape[-1]).double()
    tolerance = proof.tolerance
    if reply.dtype == BF16:
        squares = rows.square() @ proof.probe.square()
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        tolerance = tolerance.rounded(squares, norms, float(proof.probe.norm(dim=0).max()))
    difference = (rows @ proof.probe - proof.expected).abs()
    assert bool((difference <= tolerance.sound).all()), "an honest reply beyond the sound tier"
    return difference / tolerance.calibrated


def refused(verifier, j, reply):
    checks = verifier.begin()
    checks.expect(j)
    try:
        checks.accept(j, Unverified(reply))
    except IntegrityError:
        return True
    return False


def normal(g, *shape):
    return torch.randn(*shape, generator=g)


CASES = {
    "normal": normal,
    "positive": lambda g, *s: torch.rand(*s, generator=g),
    "sparse": lambda g, *s: normal(g, *s).relu(),
    "heavy tails": lambda g, *s: normal(g, *s).mul(3).exp(),
    "one large": lambda g, *s: normal(g, *s).index_fill(-1, torch.tensor([3]), 1e6 / 3),
    "one per row": lambda g, *s: torch.zeros(*s).index_fill(-1, torch.tensor([5]), 3.7),
    "rows of all sizes": lambda g, *s: normal(g, *s) * torch.logspace(-9, 9, s[-2])[:, None],
    "rank one": lambda g, *s: normal(g, *s[:-1], 1) * normal(g, 1, s[-1]),
    "zero": lambda g, *s: torch.zeros(*s),
}
SIZES = [((64,), 64, 64), ((100, 28), 65, 96), ((70, 0, 8), 300, 20), ((256,), 768, 128), ((96,), 3072, 64)]


def operands():
    for i, (rows, k, n) in enumerate(SIZES):
        for name, draw in CASES.items():
            g, total = generator(i), sum(rows)
            x, w = draw(g, total, k), draw(g, len(rows), n, k)
            dy = normal(g, total, n)
            for op, pair in ((Op.PRODUCT, (x, w)), (Op.GRAD_X, (dy, w)), (Op.GRAD_W, (dy, x))):
                yield f"{name}, {op.value}, {rows} {k} {n}", op, pair, rows


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_rounds_as_it_may_is_never_accused(worker):
    rounds, arithmetic = WORKERS[worker]
    verifier, worst, count = Verifier(key_of("honest"), 2), (0.0, ""), 0
    for name, op, (left, right), rows in operands():
        j = job(op, left, right, rows, arithmetic)
        reply = answer(j, rounds)
        ratio = judged(verifier, j, reply).nan_to_num(0.0)  # 0 / 0 never: flushed dust is allowed
        worst, count = max(worst, (float(ratio.max()), name)), count + ratio.shape[0]
        assert not refused(verifier, j, reply), name
    print(f"{worker}: {count} rows, largest ratio {worst[0]:.3f} ({worst[1]})")
    assert count > 8_000
    assert worst[0] < 1


@pytest.mark.parametrize("kinds", [(BF16, BF16), (BF16, FP32), (FP32, BF16)], ids=str)
def test_a_worker_on_bfloat16_operands_is_never_accused(kinds):
    verifier, worst, count = Verifier(key_of("sent"), 2), (0.0, ""), 0
    for name, op, pair, rows in operands():
        left, right = (t.to(kind) for t, kind in zip(pair, kinds))
        j = job(op, left, right, rows)
        reply = compute(op, left, right, rows)
        ratio = judged(verifier, j, reply)
        worst, count = max(worst, (float(ratio.max()), name)), count + ratio.shape[0]
        assert not refused(verifier, j, reply), name
    print(f"{kinds}: {count} rows, largest ratio {worst[0]:.3f} ({worst[1]})")
    assert worst[0] < 1


def test_wide_products_are_judged_as_well_as_narrow_ones():
    """Inner and outer lengths of thousands: the ratios stay where they are."""
    g, verifier = generator(3), Verifier(key_of("wide"), 2)
    for rows, k, n in [((64,), 8192, 64), ((64,), 64, 8192), ((4096,), 64, 64)]:
        x, w, dy = normal(g, sum(rows), k), normal(g, 1, n, k), normal(g, sum(rows), n)
        for op, pair in ((Op.PRODUCT, (x, w)), (Op.GRAD_X, (dy, w)), (Op.GRAD_W, (dy, x))):
            for rounds, arithmetic in WORKERS.values():
                j = job(op, *pair, rows, arithmetic)
                assert float(judged(verifier, j, answer(j, rounds)).max()) < 0.9
            narrow = [t.to(BF16) for t in pair]
            j = job(op, *narrow, rows)
            assert float(judged(verifier, j, compute(op, *narrow, rows)).max()) < 0.9


# ---- less than was asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "asked", "widest"),
    [
        (bf16, Arithmetic.FP32, 4096),
        (bf16, Arithmetic.TF32, 4096),
        (tf32, Arithmetic.FP32, 2048),
        (tf32_cut_off, Arithmetic.FP32, 2048),
    ],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
@pytest.mark.parametrize("op", Op)
def test_a_worker_that_computes_in_less_than_was_asked_is_caught(op, rounds, asked, widest):
    """Up to an inner length of `widest`. Beyond it a float32 sum may err as much (docs/numerics.md)."""
    for inner in (64, 768, widest):
        g, t, other = generator(inner), 256, 128
        left, right = {
            Op.PRODUCT: ((t, inner), (1, other, inner)),
            Op.GRAD_X: ((t, inner), (1, inner, other)),
            Op.GRAD_W: ((inner, t), (inner, other)),
        }[op]
        rows = (inner,) if op is Op.GRAD_W else (t,)
        j = job(op, normal(g, *left), normal(g, *right), rows, asked)
        verifier = Verifier(key_of(("less", inner)), 2)
        assert refused(verifier, j, answer(j, rounds)), inner
        assert not refused(verifier, j, answer(j)), inner


def test_a_float32_result_of_bfloat16_operands_is_held_to_float32():
    """Over 512 rows a lie of a thousandth of dW is found, which a bfloat16 result would hide."""
    g = generator(4)
    dy, x = normal(g, 512, 64).to(BF16), normal(g, 512, 96).to(BF16)
    j = job(Op.GRAD_W, dy, x, (512,))
    true, verifier = compute(Op.GRAD_W, dy, x, (512,)), Verifier(key_of("dw"), 2)
    assert true.dtype == FP32
    assert not refused(verifier, j, true)
    assert refused(verifier, j, true * (1 + 1e-3))
    assert refused(verifier, j, true.to(BF16).float())


@pytest.mark.parametrize("op", [Op.PRODUCT, Op.GRAD_X])
def test_a_result_rounded_to_fewer_bits_than_bfloat16_is_caught(op):
    g = generator(5)
    left, right = normal(g, 256, 128).to(BF16), normal(g, 1, 128, 128).to(BF16)
    j = job(op, left, right, (256,))
    true, verifier = compute(op, left, right, (256,)), Verifier(key_of("fp8"), 2)
    assert not refused(verifier, j, true)
    assert refused(verifier, j, true.to(torch.float8_e4m3fn).to(BF16))
    assert refused(verifier, j, true * 1.01)
    forged = true.clone()
    forged[7] = 0
    assert refused(verifier, j, forged)


@pytest.mark.parametrize("dtype", [FP32, torch.float64, torch.float16])
def test_a_bfloat16_job_takes_no_other_dtype(dtype):
    g = generator(6)
    left, right = normal(g, 64, 64).to(BF16), normal(g, 1, 64, 64).to(BF16)
    j = job(Op.PRODUCT, left, right, (64,))
    reply = compute(Op.PRODUCT, left, right, (64,)).to(dtype)
    assert refused(Verifier(key_of("dtype"), 2), j, reply)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 3e38])
def test_a_huge_reply_does_not_buy_itself_a_tolerance(bad):
    """The tolerance of a bfloat16 result grows with the reply; never as fast as the reply."""
    g = generator(7)
    left, right = normal(g, 64, 64).to(BF16), normal(g, 1, 64, 64).to(BF16)
    j = job(Op.PRODUCT, left, right, (64,))
    true = compute(Op.PRODUCT, left, right, (64,))
    for forged in (torch.full_like(true, bad), true.clone().index_fill_(0, torch.tensor([3]), bad)):
        assert refused(Verifier(key_of("huge"), 2), j, forged)


# ---- just inside and just outside ----------------------------------------------------------------

KINDS = {
    "tf32": (FP32, Arithmetic.TF32, tf32),
    "bf16": (FP32, Arithmetic.BF16, bf16),
    "bf16 sent": (BF16, Arithmetic.FP32, as_sent),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", [0.05, 1.0, 30.0])
def test_a_change_of_c_tolerances_is_refused_as_often_as_theory_says(kind, c):
    """One row is moved by c tolerances: the difference is normal, and passes two probes with
    (2 Phi(1/c) - 1)^2; the honest error, about 0.1 tolerances, moves that little."""
    dtype, arithmetic, rounds = KINDS[kind]
    g, passed, expected, trials = generator(8), 0, 0.0, 200
    left, right = normal(g, 1, 256).to(dtype), normal(g, 1, 192, 256).to(dtype)
    j = job(Op.PRODUCT, left, right, (1,), arithmetic)
    true = compute(j.op, left.double(), right.double(), j.rows)
    verifier = Verifier(key_of(("outside", kind, c)), 2)
    for _ in range(trials):
        checks = verifier.begin()
        checks.expect(j)
        proof, change = checks._proofs[j], normal(g, *true.shape).double()
        tolerance = proof.tolerance
        if dtype == BF16:
            rows = true.double()
            squares, norms = rows.square() @ proof.probe.square(), rows.norm(dim=1, keepdim=True)
            tolerance = tolerance.rounded(squares, norms, float(proof.probe.norm(dim=0).max()))
        allowed = float(tolerance.calibrated.mean())
        forged = (true + change * (c * allowed / change.norm())).to(j.result_dtype)
        expected += math.erf(1 / c / 2**0.5) ** 2
        try:
            checks.accept(j, Unverified(forged))
            passed += 1
        except IntegrityError:
            pass
    print(f"{kind}, {c:g} tolerances: {passed} of {trials} passed, {expected:.1f} expected")
    assert abs(passed - expected) <= 5 * (trials * 0.25) ** 0.5 * (0.05 < c < 30) + 2


@pytest.mark.security
@pytest.mark.parametrize("size", [1e3, 1e8, 1e15])
def test_a_large_lie_in_bfloat16_does_not_buy_its_own_room(size):
    """The room for rounding grows with the reply; a row beyond what any honest one can be is refused."""
    key, x, w = SessionKey(), torch.randn(2048, 64).to(BF16), torch.randn(1, 64, 64).to(BF16)
    job = Job(Op.PRODUCT, Operand(1, (2048, 64), BF16, x), Operand(2, (1, 64, 64), BF16, w), (2048,))
    honest = compute(Op.PRODUCT, x, w, (2048,))
    for lie in honest + (8 * size * torch.randn(2048, 64)).to(BF16), honest * size:
        for probes in (1, 2):
            checks = Verifier(key, probes).begin()
            checks.expect(job)
            with pytest.raises(IntegrityError, match="2048 of 2048 rows"):
                checks.accept(job, Unverified(lie))
    checks = Verifier(key, 2).begin()
    checks.expect(job)
    assert torch.equal(checks.accept(job, Unverified(honest)), honest)
