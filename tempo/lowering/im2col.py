"""Any convolution, by copying the window of every output pixel into a row.

Axes: B batch, G groups, C in-channels and N out-channels of one group, I J output pixels, A E kernel
offsets, R = B I J rows, K = A E C.

    X[g, (b i j), (a e c)] = x[b, (g c), stride i + dilation a - top, stride j + dilation e - left]
    W[g, n, (a e c)]       = w[(g n), c, a, e]

Channels come last in K, so that windows are copied in runs of C numbers at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

from torch import Tensor

from tempo.kernels import Windows, from_windows, pooled, to_windows
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.pixels import image_of, rows_of
from tempo.lowering.shapes import ConvShape


@final
@dataclass(frozen=True)
class Im2col(Lowering):
    """Any kernel, stride, dilation, groups and padding, one- or two-dimensional."""

    conv: ConvShape
    name = "im2col"

    def __post_init__(self) -> None:
        conv, k = self.conv, self._c * prod(self.conv.kernel)
        object.__setattr__(self, "shape", ProductShape(conv.groups, conv.rows, k, conv.n // conv.groups))
        object.__setattr__(self, "flops", conv.flops)

    @property
    def _c(self) -> int:
        return self.conv.c // self.conv.groups

    def lower_x(self, x: Tensor) -> Tensor:
        out = pooled((self.shape.groups, self.shape.rows, self.shape.k), x)
        to_windows(self.conv.image(x), self._windows, out)
        return out

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        dx = pooled((self.conv.batch, self.conv.c, *self.conv.size), dx_GRK)
        from_windows(dx_GRK, self._windows, dx)
        return dx.reshape(self.conv.x_shape)

    def lower_w(self, w: Tensor) -> Tensor:
        return self.conv.weight(w).permute(0, 2, 3, 1).reshape(self.shape.groups, self.shape.n, self.shape.k)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        dw_NAEC = dw_GNK.reshape(self.conv.n, *self.conv.kernel, self._c)
        return dw_NAEC.permute(0, 3, 1, 2).reshape(self.conv.w_shape)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        return image_of(y_GRN, self.conv.batch, self.conv.out).reshape(self.conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return rows_of(self.conv.out_image(dy), self.conv.groups)

    @property
    def _windows(self) -> Windows:
        conv = self.conv
        return Windows(conv.kernel, conv.stride, conv.dilation, conv.before, conv.out, conv.groups)
