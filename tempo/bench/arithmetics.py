"""Workers that compute in every arithmetic there is, on a CPU: what hardware would do to the operands, done
to their bits.

    float32, float64   as sent, summed in kind
    tf32               operands to 10 explicit bits of mantissa, to nearest or cut off, summed in float32
    bf16               operands to bfloat16, summed in float32
    bfloat16           operands sent as bfloat16, summed in float32, results rounded once
    sequential         float32, one term added after another: the plainest order, which errs most
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.ops import Arithmetic, Job, Op, Operand, compute, spans

Rounds = Callable[[Tensor], Tensor]


def as_sent(t: Tensor) -> Tensor:
    return t


def to_tf32(t: Tensor) -> Tensor:
    """To nearest, ties to even."""
    bits = t.contiguous().view(torch.int32)
    bits = bits + 0xFFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(torch.float32)


def cut_tf32(t: Tensor) -> Tensor:
    """What a tensor core does to float32 registers that nobody rounded."""
    return (t.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


def to_bf16(t: Tensor) -> Tensor:
    return t.bfloat16().float()


@final
@dataclass(frozen=True, slots=True)
class Form:
    """name: as in a row's `dtype`. sent: dtype of both operands. allowed: what a worker may round them to.
    rounds: what an honest one does to them."""

    name: str
    sent: torch.dtype
    allowed: Arithmetic = Arithmetic.FP32
    rounds: Rounds = as_sent


FORMS: Final = (
    Form("float32", torch.float32),
    Form("float64", torch.float64),
    Form("float32, tf32", torch.float32, Arithmetic.TF32, to_tf32),
    Form("float32, tf32 cut off", torch.float32, Arithmetic.TF32, cut_tf32),
    Form("float32, bf16", torch.float32, Arithmetic.BF16, to_bf16),
    Form("bfloat16", torch.bfloat16),
)


def job_of(op: Op, left: Tensor, right: Tensor, rows: tuple[int, ...], form: Form) -> Job:
    """As sent in this form."""
    pair = [
        Operand(number, tuple(t.shape), form.sent, t.to(form.sent).contiguous())
        for number, t in enumerate((left, right))
    ]
    return Job(op, pair[0], pair[1], rows, form.allowed)


def answer(job: Job, rounds: Rounds) -> Tensor:
    """The reply of a worker that does this to float32 operands."""
    left, right = operands(job)
    if job.left.dtype == torch.bfloat16:
        return compute(job.op, left.float(), right.float(), job.rows).to(job.result_dtype)
    if job.left.dtype == torch.float32:
        left, right = rounds(left), rounds(right)
    return compute(job.op, left, right, job.rows)


def exact(job: Job) -> Tensor:
    """The product of what was sent, in float64."""
    left, right = operands(job)
    return compute(job.op, left.double(), right.double(), job.rows)


def one_after_another(job: Job) -> Tensor:
    """A float32 reply whose sums are taken term by term, in order."""
    left, right = operands(job)
    parts = []
    for g, (lo, hi) in enumerate(spans(job.rows)):
        a, b = _matrices(job.op, left[lo:hi], right, g, lo, hi)
        total = torch.zeros(a.shape[0], b.shape[1])
        for k in range(a.shape[1]):
            total += a[:, k, None] * b[None, k]
        parts.append(total)
    return torch.stack(parts) if job.op is Op.GRAD_W else torch.cat(parts)


def sizes(job: Job) -> tuple[Tensor, Tensor]:
    """Of each row of the reply, in float64: ||a|| ||B|| (rows,), B with its Frobenius norm, and what
    `Guarantee.of_row` is relative to."""
    left, right = (t.double() for t in operands(job))
    norms, rows = [], []
    for g, (lo, hi) in enumerate(spans(job.rows)):
        a, b = _matrices(job.op, left[lo:hi], right, g, lo, hi)
        norms.append(torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b))
        random = (a.square() @ b.square().sum(1)).sqrt()
        even = norms[-1] / max(1, a.shape[1]) ** 0.5
        rows.append(torch.stack([torch.linalg.vector_norm(a @ b, dim=1), random, even]).amax(0))
    return torch.cat(norms), torch.cat(rows)


def _matrices(op: Op, left: Tensor, right: Tensor, g: int, lo: int, hi: int) -> tuple[Tensor, Tensor]:
    """(rows, inner) and (inner, outer) of one group."""
    match op:
        case Op.PRODUCT:
            return left, right[g].mT
        case Op.GRAD_X:
            return left, right[g]
        case Op.GRAD_W:
            return left.mT, right[lo:hi]


def operands(job: Job) -> tuple[Tensor, Tensor]:
    left, right = job.left.tensor, job.right.tensor
    assert left is not None, "a job of the bench has both its operands"
    assert right is not None, "a job of the bench has both its operands"
    return left, right
