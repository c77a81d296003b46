"""Runs jobs on a torch device. A job takes two steps, since its operands arrive between them:

missing = executor.admit(request)          checks everything, makes room, allocates nothing
result  = executor.run(request, shipped)   computes, keeps what is to be kept
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import torch
from torch import Tensor

from tempo.errors import TempoError, UsageError
from tempo.ops import Op, compute, result_shape
from tempo.wire import DTYPES, Compute, Part, limits, nbytes
from tempo.worker.store import OperandStore


class TooLarge(TempoError):
    """The job is sound, but does not fit the memory that this worker may use."""


class Unsupported(TempoError):
    """The job is sound, but this device has no products in a dtype of its operands."""


@final
class Executor:
    """One device and the operands kept on it.

    memory: bytes of operands and results at any moment; what is kept makes room for what is needed.
    """

    def __init__(self, device: str | torch.device, memory: int) -> None:
        self.device = torch.device(device)
        self.store = OperandStore(memory, limits.MAX_OPERANDS)
        #: In which this device multiplies.
        self.dtypes = tuple(name for name, dtype in DTYPES.items() if _multiplies(self.device, dtype))

    def admit(self, request: Compute) -> tuple[int, ...]:
        """Check a request before any of its bytes is stored, and make room for it.

        Returns the ids it refers to that are no longer here; with any, the job cannot be run.
        Raises UsageError for a request that breaks a rule, TooLarge for one that does not fit,
        Unsupported for one in a dtype that the device does not multiply.
        """
        shape = result_shape(request.operation, request.left.shape, request.right.shape, request.rows)
        left, right = request.parts
        dtype = request.result_dtype
        if left.id == right.id and (right.sent or (left.shape, left.dtype) != (right.shape, right.dtype)):
            raise UsageError("an operand is sent once, and has one shape and dtype")
        if not {left.dtype, right.dtype} <= set(self.dtypes):
            raise Unsupported("this device does not multiply operands of such a dtype")
        sent = {part.id for part in request.sent}
        referred = [part for part in request.parts if part.id not in sent]
        missing = tuple({part.id: None for part in referred if not self._holds(part)})
        if missing:
            return missing
        result = nbytes(shape, dtype)
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
        with torch.no_grad():
            result = compute(request.operation, left, right, request.rows, request.allowed)
            return result.cpu().contiguous()

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


def _multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    try:
        one = torch.ones(1, 1, dtype=dtype, device=device)
        return bool(compute(Op.PRODUCT, one, one.view(1, 1, 1), (1,)).item() == 1)
    except (RuntimeError, TypeError):  # what torch raises for a dtype that a device has not got
        return False
