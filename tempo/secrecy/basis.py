"""A secret basis: an invertible map E on one axis of a tensor.

    encode(t) = E t        decode(t) = E^-1 t        dual() = E^-T

Contracting an axis of two operands, one encoded by E and one by its dual, leaves the product as it
was: (E x)^T (E^-T w) = x^T w. That is all the key shift is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from tempo.secrecy.keys import Hidden


class Basis(Hidden, ABC):
    """Abstract. `encode` and `decode` take a float32 or float64 tensor of any shape and strides,
    whose `axis` has `length` entries, and return a new one of the same shape."""

    length: int

    @abstractmethod
    def encode(self, t: Tensor, axis: int) -> Tensor:
        """E along `axis`."""

    @abstractmethod
    def decode(self, t: Tensor, axis: int) -> Tensor:
        """E^-1 along `axis`."""

    @abstractmethod
    def dual(self) -> Basis:
        """The basis E^-T."""

    def _require_length(self, t: Tensor, axis: int) -> None:
        if t.shape[axis] != self.length:
            raise ValueError(f"axis {axis} has {t.shape[axis]} entries, the basis {self.length}")

    @property
    @abstractmethod
    def condition(self) -> float:
        """Upper bound of ||E|| ||E^-1|| (2-norms): how much an error can grow."""


@final
class Identity(Basis):
    """No secret at all: for the scheme `none`."""

    def __init__(self, length: int) -> None:
        self.length = length

    def encode(self, t: Tensor, axis: int) -> Tensor:
        return t.clone(memory_format=torch.contiguous_format)

    decode = encode

    def dual(self) -> Basis:
        return self

    @property
    def condition(self) -> float:
        return 1.0


@final
class DirectSum(Basis):
    """Independent bases on consecutive stretches of one axis, so that a long axis streams in chunks."""

    def __init__(self, parts: Sequence[Basis]) -> None:
        self._parts = tuple(parts)
        self._sizes = [part.length for part in parts]
        self.length = sum(self._sizes)

    def encode(self, t: Tensor, axis: int) -> Tensor:
        pieces = t.split(self._sizes, axis)
        return torch.cat([b.encode(p, axis) for b, p in zip(self._parts, pieces, strict=True)], axis)

    def decode(self, t: Tensor, axis: int) -> Tensor:
        pieces = t.split(self._sizes, axis)
        return torch.cat([b.decode(p, axis) for b, p in zip(self._parts, pieces, strict=True)], axis)

    def dual(self) -> Basis:
        return DirectSum([part.dual() for part in self._parts])

    @property
    def condition(self) -> float:
        return max((part.condition for part in self._parts), default=1.0)


def chunks(length: int, size: int) -> list[int]:
    """Lengths of the stretches of an axis: `size` each, the last one merged with what remains."""
    if length < 2 * size:
        return [length]
    whole = length // size
    return [size] * (whole - 1) + [length - size * (whole - 1)]


def tile(t: Tensor, rows: Basis, columns: Basis) -> Tensor:
    """Encode both axes of a matrix: E_rows t E_columns^T."""
    return columns.encode(rows.encode(t, 0), 1)


def untile(t: Tensor, rows: Basis, columns: Basis) -> Tensor:
    """Undo `tile`."""
    return columns.decode(rows.decode(t, 0), 1)
