"""Workers that compute in less than float32: honest ones, who were allowed to, and liars, who were not.

TF32 is simulated on the bits of the operands, in both ways that hardware rounds. Every draw is fixed.
"""

import hashlib
import math

import pytest
import torch

from tempo.errors import IntegrityError
from tempo.integrity import Verifier
from tempo.ops import Arithmetic, Job, Op, Operand, Unverified, compute, result_dtype
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import FeatureKey, RowKey

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
