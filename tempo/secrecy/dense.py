"""A basis of a short axis as one matrix: a product is quicker there than its many passes.

    encode(t) = E t        decode(t) = E^-1 t

E and its inverse are taken from the basis itself, which stays the definition.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor

from tempo.secrecy.basis import Basis

#: Up to this length a matrix costs less than permuting, scaling and mixing (2 L flops an element).
DENSE: Final = 128


@final
class Dense(Basis):
    def __init__(self, matrix: Tensor, inverse: Tensor, condition: float) -> None:
        """matrix, inverse: (L, L) float64."""
        self.length = matrix.shape[0]
        self._matrix = matrix
        self._inverse = inverse
        self._condition = condition

    @classmethod
    def of(cls, basis: Basis) -> Dense:
        """The same map as `basis`."""
        unit = torch.eye(basis.length, dtype=torch.float64)
        return cls(basis.encode(unit, 0), basis.decode(unit, 0), basis.condition)

    def encode(self, t: Tensor, axis: int) -> Tensor:
        return _along(self._matrix, t, axis)

    def decode(self, t: Tensor, axis: int) -> Tensor:
        return _along(self._inverse, t, axis)

    def dual(self) -> Basis:
        return Dense(self._inverse.mT, self._matrix.mT, self._condition)

    @property
    def condition(self) -> float:
        return self._condition


def _along(matrix: Tensor, t: Tensor, axis: int) -> Tensor:
    matrix = matrix.to(t.dtype)
    if axis % t.ndim == t.ndim - 1:
        return (t.reshape(-1, t.shape[-1]) @ matrix.mT).view(t.shape)
    return torch.movedim(torch.movedim(t, axis, -1) @ matrix.mT, -1, axis).contiguous()
