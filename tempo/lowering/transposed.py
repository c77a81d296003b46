"""Transposed convolutions: a linear layer on every input pixel, whose results are added up window by window.

Axes: B batch, G groups, C in-channels and N out-channels of one group, P Q input pixels, A E kernel offsets,
R = B P Q rows, K = C, and A E N out-features of the product.

    Y[g, (b p q), (n a e)] = sum_c x[b, (g c), p, q] w[(g c), n, a, e]
    y[b, (g n), stride p + dilation a - top, stride q + dilation e - left] += Y[g, (b p q), (n a e)]

The sum over windows and its adjoint, reading them, are PyTorch's fold and unfold. A one-dimensional layer
is a two-dimensional one of height 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

import torch.nn.functional as F
from torch import Tensor

from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.pixels import image_of, rows_of
from tempo.lowering.shapes import Pair, Shape, expect


@final
@dataclass(frozen=True)
class ConvTransposed(Lowering):
    """x (B, G C, P, Q) and w (G C, N, A, E), or without Q and E, or without B; sizes per axis, of height 1
    for a one-dimensional layer. y_shape: as PyTorch derives it, output padding included."""

    x_shape: Shape
    w_shape: Shape
    y_shape: Shape
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    name = "conv transposed"

    def __post_init__(self) -> None:
        dims = len(self.w_shape) - 2
        rows = prod(self.x_shape[: -dims - 1]) * prod(self.x_shape[-dims:])
        k, n = self.w_shape[0] // self.groups, prod(self.w_shape[1:])
        object.__setattr__(self, "shape", ProductShape(self.groups, rows, k, n))
        object.__setattr__(self, "flops", 2 * rows * prod(self.w_shape))

    def lower_x(self, x: Tensor) -> Tensor:
        image = expect(x, self.x_shape, "the input").reshape(-1, self.w_shape[0], *self._size(self.x_shape))
        return rows_of(image, self.groups)

    def lower_w(self, w: Tensor) -> Tensor:
        return expect(w, self.w_shape, "the weight").reshape(self.groups, self.shape.k, self.shape.n).mT

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        positions = prod(self._size(self.x_shape))
        windows = y_GRN.reshape(self.groups, -1, positions, self.shape.n).permute(1, 0, 3, 2)
        whole = F.fold(windows.flatten(1, 2), tuple(self._whole), **self._windows)
        return F.pad(whole, [-side for side in self._margins]).reshape(self.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        channels = self.groups * self.w_shape[1]
        image = expect(dy, self.y_shape, "the output's gradient").reshape(
            -1, channels, *self._size(self.y_shape)
        )
        windows = F.unfold(F.pad(image, self._margins), **self._windows)
        windows = windows.unflatten(1, (self.groups, self.shape.n))
        rows: Tensor = windows.permute(1, 0, 3, 2).reshape(self.groups, self.shape.rows, self.shape.n)
        return rows

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        size = self._size(self.x_shape)
        return image_of(dx_GRK, self.shape.rows // prod(size), size).reshape(self.x_shape)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return dw_GNK.mT.reshape(self.w_shape)

    def _size(self, shape: Shape) -> Pair:
        """Pixels along both axes."""
        return (1, shape[-1]) if len(self.w_shape) == 3 else (shape[-2], shape[-1])

    @property
    def _whole(self) -> list[int]:
        """What all windows cover, before padding takes off its margin: [down, across]."""
        sizes = zip(
            self._size(self.x_shape), self._size(self.w_shape), self.stride, self.dilation, strict=True
        )
        return [(pixels - 1) * s + d * (k - 1) + 1 for pixels, k, s, d in sizes]

    @property
    def _margins(self) -> list[int]:
        """What the output lacks of that: [left, right, top, bottom]; below zero where output padding adds
        to it."""
        out = self._size(self.y_shape)
        far = [w - p - o for w, p, o in zip(self._whole, self.padding, out, strict=True)]
        return [self.padding[1], far[1], self.padding[0], far[0]]

    @property
    def _windows(self) -> dict[str, Pair]:
        kernel = self._size(self.w_shape)
        return {"kernel_size": kernel, "stride": self.stride, "dilation": self.dilation}
