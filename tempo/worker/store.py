"""The operands that a worker keeps between jobs: bounded, the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import final

from torch import Tensor


@final
class OperandStore:
    """Operands by id. Room is made before memory is taken, so the bound holds at every moment."""

    def __init__(self, max_bytes: int, max_count: int) -> None:
        self.max_bytes = max_bytes
        self.max_count = max_count
        self.bytes = 0
        self._tensors: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, operand: int) -> bool:
        return operand in self._tensors

    def get(self, operand: int) -> Tensor | None:
        """The tensor, which now counts as just used, or None if it is not here."""
        tensor = self._tensors.get(operand)
        if tensor is not None:
            self._tensors.move_to_end(operand)
        return tensor

    def put(self, operand: int, tensor: Tensor) -> None:
        """Keep a tensor for which `make_room` has been asked. It replaces one of the same id."""
        self.release((operand,))
        self._tensors[operand] = tensor
        self.bytes += tensor.nbytes

    def release(self, operands: Iterable[int]) -> None:
        """Forget; ids that are not here are no error, since they may have been evicted."""
        for operand in operands:
            tensor = self._tensors.pop(operand, None)
            if tensor is not None:
                self.bytes -= tensor.nbytes

    def make_room(self, nbytes: int, count: int, in_use: Collection[int]) -> bool:
        """Evict until `nbytes` and `count` more fit, never an operand in use. False if they cannot."""
        for operand in list(self._tensors):
            if self.bytes + nbytes <= self.max_bytes and len(self) + count <= self.max_count:
                return True
            if operand not in in_use:
                self.release((operand,))
        return self.bytes + nbytes <= self.max_bytes and len(self) + count <= self.max_count
