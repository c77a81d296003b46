"""Convolutions with a kernel of one pixel: a linear layer on every pixel that the stride meets.

Axes: B batch, C = K in-channels, N out-channels, I J output pixels, R = B I J rows; one group.

    y[b, n, i, j] = sum_c x[b, c, stride i, stride j] w[n, c]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from tempo.errors import UsageError
from tempo.kernels import Windows, from_windows, pooled, to_windows
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.pixels import image_of, rows_of
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
        image = self.conv.image(x)
        if self.conv.stride == (1, 1):
            return rows_of(image, 1)
        out = pooled((1, self.conv.rows, self.conv.c), image)
        to_windows(image, self._met, out)
        return out

    def lower_w(self, w: Tensor) -> Tensor:
        return self.conv.weight(w).reshape(1, self.conv.n, self.conv.c)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        return image_of(y_GRN, self.conv.batch, self.conv.out).reshape(self.conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return rows_of(self.conv.out_image(dy), 1)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        if self.conv.stride == (1, 1):
            return image_of(dx_GRK, self.conv.batch, self.conv.size).reshape(self.conv.x_shape)
        # Pixels that the stride leaps over have no part in y: they stand in no window.
        dx = pooled((self.conv.batch, self.conv.c, *self.conv.size), dx_GRK)
        from_windows(dx_GRK, self._met, dx)
        return dx.reshape(self.conv.x_shape)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        return dw_GNK.reshape(self.conv.w_shape)

    @property
    def _met(self) -> Windows:
        """The pixels that the stride meets, as windows of one."""
        return Windows((1, 1), self.conv.stride, (1, 1), (0, 0), self.conv.out, 1)
