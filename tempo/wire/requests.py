"""A job as a request, and the tensors that follow it."""

from __future__ import annotations

from torch import Tensor

from tempo.errors import UsageError
from tempo.ops import AnyJob, Job, Operand, RingJob, RingOperand, Seed
from tempo.wire import limits
from tempo.wire.messages import Compute, Ring
from tempo.wire.parts import NAMES, Part, RingPart


def request_message(job: AnyJob, number: int, ship: frozenset[int]) -> Compute | Ring:
    """The request for `job`, with the operands in `ship` sent and the others referred to.

    Raises UsageError where the job cannot cross the boundary.
    """
    expected = job.result_nbytes  # raises if the operands do not fit
    first, second = _sent(job, ship)
    message: Compute | Ring
    match job:
        case Job():
            left, right = _part(job.left, sent=first), _part(job.right, sent=second)
            message = Compute(number, job.op.value, left, right, job.rows, job.arithmetic.value)
        case RingJob():
            one, other = _ring_part(job.left, sent=first), _ring_part(job.right, sent=second)
            message = Ring(number, job.op.value, one, other, job.rows)
    if max(message.payload, expected) > limits.MAX_PAYLOAD or len(job.rows) > limits.MAX_GROUPS:
        raise UsageError(
            f"{job.op.value} of {job.left.shape} and {job.right.shape} in {len(job.rows)} groups passes "
            f"the limits of a frame ({limits.MAX_PAYLOAD} bytes, {limits.MAX_GROUPS} groups): split it"
        )
    return message


def payload(job: AnyJob, ship: frozenset[int]) -> list[Tensor]:
    """The tensors of the payload, in its order, contiguous on the CPU."""
    first, second = _sent(job, ship)
    tensors = [*(_tensors(job.left) if first else []), *(_tensors(job.right) if second else [])]
    return [tensor.detach().cpu().contiguous() for tensor in tensors]


def _sent(job: AnyJob, ship: frozenset[int]) -> tuple[bool, bool]:
    """Whether each operand is sent. One that is both is sent once."""
    left, right = job.operands
    return left.id in ship, right.id in ship and right.id != left.id


def _tensors(operand: Operand | RingOperand) -> list[Tensor]:
    if isinstance(operand, RingOperand):
        return [half for half in operand.halves if isinstance(half, Tensor)]
    return [] if operand.tensor is None else [operand.tensor]


def _part(operand: Operand, *, sent: bool) -> Part:
    name = NAMES.get(operand.dtype)
    if name is None:
        raise UsageError(
            f"operands are float32, float64 or bfloat16, not {operand.dtype}: convert before sealing"
        )
    _require(operand, sent=sent)
    return Part(operand.id, operand.shape, name, sent, operand.keep)


def _ring_part(operand: RingOperand, *, sent: bool) -> RingPart:
    _require(operand, sent=sent)
    halves = tuple(half.key if isinstance(half, Seed) else None for half in operand.halves)
    return RingPart(operand.id, operand.shape, halves if sent else (), operand.keep)


def _require(operand: Operand | RingOperand, *, sent: bool) -> None:
    if sent and not operand.here:
        raise UsageError(f"operand {operand.id} is to be sent, but the job has no tensor for it")
