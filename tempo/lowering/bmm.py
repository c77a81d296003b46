"""Batched matrix products, as in attention.

Axes: G the batch axes after broadcasting, flattened; R rows; K inner; N columns.

    y[g, r, n] = sum_k x[g, r, k] w[g, k, n]

Broadcasting copies an operand along an axis; its adjoint sums over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.shapes import Shape, expect


@final
@dataclass(frozen=True)
class Bmm(Lowering):
    """x (..., R, K) and w (..., K, N), batch axes broadcast as torch.matmul does."""

    x_shape: Shape
    w_shape: Shape
    name = "bmm"

    def __post_init__(self) -> None:
        if len(self.x_shape) < 2 or len(self.w_shape) < 2:
            raise UsageError(f"a batched product takes matrices, not {self.x_shape} and {self.w_shape}")
        if self.x_shape[-1] != self.w_shape[-2]:
            raise UsageError(
                f"{self.x_shape} @ {self.w_shape}: {self.x_shape[-1]} columns, {self.w_shape[-2]} rows"
            )
        try:
            torch.broadcast_shapes(self.x_shape[:-2], self.w_shape[:-2])
        except RuntimeError as error:
            raise UsageError(f"{self.x_shape} @ {self.w_shape}: the batch axes do not broadcast") from error
        groups, (r, k), n = prod(self.batch), self.x_shape[-2:], self.w_shape[-1]
        object.__setattr__(self, "shape", ProductShape(groups, r, k, n))
        object.__setattr__(self, "flops", 2 * groups * r * k * n)

    @cached_property
    def batch(self) -> Shape:
        return tuple(torch.broadcast_shapes(self.x_shape[:-2], self.w_shape[:-2]))

    def lower_x(self, x: Tensor) -> Tensor:
        return self._flatten(expect(x, self.x_shape, "the left operand"))

    def lower_w(self, w: Tensor) -> Tensor:
        return self._flatten(expect(w, self.w_shape, "the right operand")).mT

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        return self._unflatten(y_GRN)

    def lower_dy(self, dy: Tensor) -> Tensor:
        y_shape = (*self.batch, self.shape.rows, self.shape.n)
        return self._flatten(expect(dy, y_shape, "the output's gradient"))

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        return self._unflatten(dx_GRK).sum_to_size(self.x_shape)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return self._unflatten(dw_GNK.mT).sum_to_size(self.w_shape)

    def _flatten(self, t: Tensor) -> Tensor:
        return t.expand(*self.batch, *t.shape[-2:]).reshape(self.shape.groups, *t.shape[-2:])

    def _unflatten(self, t_G: Tensor) -> Tensor:
        return t_G.reshape(*self.batch, *t_G.shape[-2:])
