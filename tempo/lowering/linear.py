"""Linear layers: nothing to transform, only axes to name.

Axes: R rows (the product of all leading axes), K in-features, N out-features; one group.

    Linear              y[..., n] = sum_k x[..., k] w[n, k]
    TransposedLinear    y[..., n] = sum_k x[..., k] w[k, n]      (Conv1D of Hugging Face's GPT-2)

Views wherever PyTorch can give one: callers that need contiguous memory ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import final

from torch import Tensor

from tempo.errors import UsageError
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.shapes import Shape, expect


@final
@dataclass(frozen=True)
class Linear(Lowering):
    """x (..., K) and w (N, K)."""

    x_shape: Shape
    w_shape: Shape
    name = "linear"

    def __post_init__(self) -> None:
        _check(self.x_shape, self.w_shape, k_axis=1)
        (n, k), rows = self.w_shape, prod(self.x_shape[:-1])
        object.__setattr__(self, "shape", ProductShape(1, rows, k, n))
        object.__setattr__(self, "flops", 2 * rows * k * n)

    def lower_x(self, x: Tensor) -> Tensor:
        return expect(x, self.x_shape, "the input").reshape(1, self.shape.rows, self.shape.k)

    def lower_w(self, w: Tensor) -> Tensor:
        return expect(w, self.w_shape, "the weight")[None]

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        return y_GRN.reshape(*self.x_shape[:-1], self.shape.n)

    def lower_dy(self, dy: Tensor) -> Tensor:
        expect(dy, (*self.x_shape[:-1], self.shape.n), "the output's gradient")
        return dy.reshape(1, self.shape.rows, self.shape.n)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        return dx_GRK.reshape(self.x_shape)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return dw_GNK[0]


@final
@dataclass(frozen=True)
class TransposedLinear(Lowering):
    """x (..., K) and w (K, N): a Linear that stores its weight the other way round."""

    x_shape: Shape
    w_shape: Shape
    name = "linear, weight transposed"

    def __post_init__(self) -> None:
        _check(self.x_shape, self.w_shape, k_axis=0)
        object.__setattr__(self, "shape", self._linear.shape)
        object.__setattr__(self, "flops", self._linear.flops)

    @cached_property
    def _linear(self) -> Linear:
        k, n = self.w_shape
        return Linear(self.x_shape, (n, k))

    def lower_x(self, x: Tensor) -> Tensor:
        return self._linear.lower_x(x)

    def lower_w(self, w: Tensor) -> Tensor:
        return expect(w, self.w_shape, "the weight").mT[None]

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        return self._linear.raise_y(y_GRN)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return self._linear.lower_dy(dy)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        return self._linear.raise_dx(dx_GRK)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return dw_GNK[0].mT


def _check(x_shape: Shape, w_shape: Shape, *, k_axis: int) -> None:
    if len(w_shape) != 2 or not x_shape:
        raise UsageError(f"a linear layer takes (..., K) and a matrix, not {x_shape} and {w_shape}")
    if x_shape[-1] != w_shape[k_axis]:
        raise UsageError(
            f"the input {x_shape} has {x_shape[-1]} features and the weight {w_shape} takes {w_shape[k_axis]}"
        )
