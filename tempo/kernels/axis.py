"""The map on one axis that the passes apply: monomials with block Hadamard mixing between them.

    t[i] = s[i] x[p[i]]        enter
    u[i] = s[i] (H t)[p[i]]    middle, rounds - 1 times
    y[p[i]] = s[i] (H u)[i]    leave

in positions i; with no rounds it is `enter` and `leave` without H. An inverse and a dual have the same
form, which is why encode, decode and their duals are one pass with different numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from tempo.kernels.hidden import Hidden


@final
class Monomial(Hidden):
    """A permutation with coefficients. index: (L,) int32, which is not checked to be one. scale: (L,)
    float64. Raises ValueError where lengths or dtypes differ from that."""

    __slots__ = ("index", "scale")

    def __init__(self, index: Tensor, scale: Tensor) -> None:
        if index.ndim != 1 or index.dtype != torch.int32:
            raise ValueError(f"a permutation is int32 (L,), not {index.dtype} {tuple(index.shape)}")
        if scale.shape != index.shape or scale.dtype != torch.float64:
            raise ValueError(
                f"{index.numel()} coefficients of float64, not {scale.dtype} {tuple(scale.shape)}"
            )
        self.index = index
        self.scale = scale

    def reciprocal(self) -> Monomial:
        """The same permutation with inverted coefficients."""
        return Monomial(self.index, self.scale.reciprocal())

    def turned(self) -> Monomial:
        """x[p[i]] = t[i] / s[i] as a map of the form t[i] = s'[i] x[p'[i]]."""
        index = torch.empty_like(self.index)
        index[self.index] = torch.arange(index.numel(), dtype=index.dtype)
        return Monomial(index, self.scale.reciprocal()[index])


@final
class Axis(Hidden):
    """Immutable. enter, leave: None is the identity. block: a power of two, at most the length."""

    __slots__ = ("block", "enter", "inverse", "leave", "length", "middle", "native", "rounds")

    def __init__(
        self,
        length: int,
        *,
        enter: Monomial | None = None,
        middle: Sequence[Monomial] = (),
        leave: Monomial | None = None,
        rounds: int = 0,
        block: int = 1,
        inverse: bool = False,
    ) -> None:
        if len(middle) != max(rounds - 1, 0):
            raise ValueError(
                f"{rounds} rounds have {max(rounds - 1, 0)} monomials between, not {len(middle)}"
            )
        if rounds and (block < 1 or block & (block - 1) or block > max(length, 1)):
            raise ValueError(f"an axis of {length} entries cannot be mixed in blocks of {block}")
        for m in (enter, *middle, leave):
            if m is not None and m.index.numel() != length:
                raise ValueError(f"an axis of {length} entries has no monomial of {m.index.numel()}")
        self.length = length
        self.enter = enter
        self.middle = tuple(middle)
        self.leave = leave
        self.rounds = rounds
        self.block = block
        self.inverse = inverse
        #: For the native passes: their form of this axis, by dtype.
        self.native: dict[torch.dtype, Any] = {}

    def inverted(self) -> Axis:
        """The inverse map."""
        return Axis(
            self.length,
            enter=None if self.leave is None else self.leave.reciprocal(),
            middle=[m.turned() for m in reversed(self.middle)],
            leave=None if self.enter is None else self.enter.reciprocal(),
            rounds=self.rounds,
            block=self.block,
            inverse=not self.inverse,
        )

    def dual(self) -> Axis:
        """The inverse transpose: H is orthogonal, so coefficients alone change."""
        return Axis(
            self.length,
            enter=None if self.enter is None else self.enter.reciprocal(),
            middle=[m.reciprocal() for m in self.middle],
            leave=None if self.leave is None else self.leave.reciprocal(),
            rounds=self.rounds,
            block=self.block,
            inverse=self.inverse,
        )

    def times(self, factor: float) -> Axis:
        """The map, `factor` times as large."""
        if self.leave is not None:
            enter, leave = self.enter, Monomial(self.leave.index, self.leave.scale * factor)
        elif self.enter is not None:
            enter, leave = Monomial(self.enter.index, self.enter.scale * factor), None
        else:
            raise ValueError("an axis without coefficients has one size")
        return Axis(
            self.length,
            enter=enter,
            middle=self.middle,
            leave=leave,
            rounds=self.rounds,
            block=self.block,
            inverse=self.inverse,
        )

    def first_round(self) -> tuple[Axis, Axis]:
        """The first of two rounds or more, and the rest: applied one after the other they are this map."""
        first = Axis(self.length, enter=self.enter, rounds=1, block=self.block, inverse=self.inverse)
        rest = Axis(
            self.length,
            enter=self.middle[0],
            middle=self.middle[1:],
            leave=self.leave,
            rounds=self.rounds - 1,
            block=self.block,
            inverse=self.inverse,
        )
        return first, rest
