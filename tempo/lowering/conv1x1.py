"""Convolutions with a kernel of one pixel: a linear layer on every pixel that the stride meets.

Axes: B batch, C = K in-channels, N out-channels, I J output pixels, R = B I J rows; one group.

    y[b, n, i, j] = sum_c x[b, c, stride i, stride j] w[n, c]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from tempo.errors import UsageError
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.shapes import ConvShape


@final
@dataclass(frozen=True)
class Conv1x1(Lowering):
    """Kernel 1, no padding, one group, any stride."""

    conv: ConvShape
    name = "conv 1x1"

    def __post_init__(self) -> None:
        if not self.lowers(self.conv):
            raise UsageError(f"Conv1x1 takes kernel 1 without padding or groups, not {self.conv}")
        object.__setattr__(self, "shape", ProductShape(1, self.conv.rows, self.conv.c, self.conv.n))
        object.__setattr__(self, "flops", self.conv.flops)

    @staticmethod
    def lowers(conv: ConvShape) -> bool:
        return conv.kernel == (1, 1) and conv.before == conv.after == (0, 0) and conv.groups == 1

    def lower_x(self, x: Tensor) -> Tensor:
        return self._rows(self._met(self.conv.image(x)))

    def lower_w(self, w: Tensor) -> Tensor:
        return self.conv.weight(w).reshape(1, self.conv.n, self.conv.c)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        # Contiguous, as a convolution's output is: user code calls view() on it.
        return self._pixels(y_GRN).contiguous().reshape(self.conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return self._rows(self.conv.out_image(dy))

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        pixels = self._pixels(dx_GRK)
        if self.conv.stride == (1, 1):
            return pixels.contiguous().reshape(self.conv.x_shape)
        # Pixels that the stride leaps over have no part in y.
        dx = dx_GRK.new_zeros(self.conv.batch, self.conv.c, *self.conv.size)
        self._met(dx).copy_(pixels)
        return dx.reshape(self.conv.x_shape)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return dw_GNK.reshape(self.conv.w_shape)

    def _met(self, image: Tensor) -> Tensor:
        down, right = self.conv.stride
        return image[:, :, ::down, ::right]

    def _rows(self, image: Tensor) -> Tensor:
        return image.permute(0, 2, 3, 1).reshape(1, self.conv.rows, image.shape[1])

    def _pixels(self, rows: Tensor) -> Tensor:
        return rows.reshape(self.conv.batch, *self.conv.out, rows.shape[2]).permute(0, 3, 1, 2)
