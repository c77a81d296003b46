"""A secret basis: an invertible map E on one axis of a tensor.

    encode(t) = E t        decode(t) = E^-1 t        dual() = E^-T

Contracting an axis of two operands, one encoded by E and one by its dual, leaves the product as it
was: (E x)^T (E^-T w) = x^T w. That is all the key shift is.

A long axis has independent maps on consecutive stretches, so that it streams in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import final

from torch import Tensor

from tempo.kernels import Axis, Hidden, along


@final
class Basis(Hidden):
    """Immutable. condition: upper bound of ||E|| ||E^-1|| (2-norms), how much an error can grow."""

    def __init__(self, stretches: Sequence[Axis], condition: float) -> None:
        self.stretches = tuple(stretches)
        self.condition = condition
        self.length = sum(a.length for a in self.stretches)

    @cached_property
    def inverse(self) -> tuple[Axis, ...]:
        """E^-1, stretch by stretch."""
        return tuple(a.inverted() for a in self.stretches)

    @cached_property
    def _dual(self) -> Basis:
        return Basis([a.dual() for a in self.stretches], self.condition)

    def dual(self) -> Basis:
        """The basis E^-T."""
        return self._dual

    def times(self, factor: float) -> Basis:
        """factor E. The condition is the same."""
        return Basis([a.times(factor) for a in self.stretches], self.condition)

    def encode(self, t: Tensor, axis: int) -> Tensor:
        """E along `axis` of a float32 or float64 tensor of any shape and strides, in plain PyTorch: the
        definition. Raises ValueError where the length differs."""
        return along(t, axis, self.stretches)

    def decode(self, t: Tensor, axis: int) -> Tensor:
        """E^-1 along `axis`."""
        return along(t, axis, self.inverse)


def identity(length: int) -> Basis:
    """No secret at all: for the scheme `unsafe_none`."""
    return Basis([Axis(length)], 1.0)


def direct_sum(parts: Sequence[Basis]) -> Basis:
    """Independent bases on consecutive stretches of one axis."""
    stretches = [a for part in parts for a in part.stretches]
    return Basis(stretches, max((part.condition for part in parts), default=1.0))


def chunks(length: int, size: int) -> list[int]:
    """Lengths of the stretches of an axis: `size` each, the last one merged with what remains."""
    if length < 2 * size:
        return [length]
    whole = length // size
    return [size] * (whole - 1) + [length - size * (whole - 1)]
