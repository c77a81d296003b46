"""Runs jobs on a torch device. A job takes two steps, since its operands arrive between them:

missing = executor.admit(request)          checks everything, makes room, allocates nothing
result  = executor.run(request, shipped)   computes, keeps what is to be kept
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from tempo.errors import TempoError, UsageError
from tempo.ops import compute, result_shape
from tempo.wire import DTYPES, Compute, Part, limits, nbytes
from tempo.worker.store import OperandStore


class TooLarge(TempoError):
    """The job is sound, but does not fit the memory that this worker may use."""


@final
class Executor:
    """One device and the operands kept on it.

    memory: bytes of operands and results at any moment; what is kept makes room for what is needed.
    """

    def __init__(self, device: str | torch.device, memory: int) -> None:
        self.device = torch.device(device)
        self.store = OperandStore(memory, limits.MAX_OPERANDS)

    def admit(self, request: Compute) -> tuple[int, ...]:
        """Check a request before any of its bytes is stored, and make room for it.

        Returns the ids it refers to that are no longer here; with any, the job cannot be run.
        Raises UsageError for a request that breaks a rule, TooLarge for one that does not fit.
        """
        shape = result_shape(request.operation, request.left.shape, request.right.shape, request.rows)
        left, right = request.parts
        if left.dtype != right.dtype:
            raise UsageError("operands of one job share a dtype")
        if left.id == right.id and (right.sent or left.shape != right.shape):
            raise UsageError("an operand is sent once, and has one shape")
        sent = {part.id for part in request.sent}
        referred = [part for part in request.parts if part.id not in sent]
        missing = tuple({part.id: None for part in referred if not self._holds(part)})
        if missing:
            return missing
        result = nbytes(shape, DTYPES[left.dtype])
        if result > limits.MAX_PAYLOAD:
            raise TooLarge("the result does not fit a frame")
        kept = {part.id for part in referred}
        # Operands sent again replace their older copies: those may go first.
        self.store.release(sent)
        if not self.store.make_room(request.payload + result, len(sent), kept):
            raise TooLarge("the job does not fit the memory of this worker")
        return ()

    def run(self, request: Compute, shipped: Mapping[int, Tensor]) -> Tensor:
        """The result, on the CPU. Call it only after `admit` found nothing missing."""
        operands: dict[int, Tensor] = {}
        for part in request.parts:
            if part.sent:
                operands[part.id] = shipped[part.id].to(self.device)
        for part in request.sent:
            if part.keep:
                self.store.put(part.id, operands[part.id])
        left, right = (operands[p.id] if p.id in operands else self._stored(p.id) for p in request.parts)
        with torch.no_grad(), full_precision():
            return compute(request.operation, left, right, request.rows).cpu().contiguous()

    def release(self, operands: Iterable[int]) -> None:
        self.store.release(operands)

    def _holds(self, part: Part) -> bool:
        tensor = self.store.get(part.id)
        if tensor is not None and (tuple(tensor.shape) != part.shape or tensor.dtype != DTYPES[part.dtype]):
            raise UsageError("a kept operand is referred to with another shape or dtype")
        return tensor is not None

    def _stored(self, operand: int) -> Tensor:
        tensor = self.store.get(operand)
        assert tensor is not None, "admit() found it"
        return tensor


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 products in float32, no TF32 and no bfloat16: what Welcome declares and checks assume."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
