"""Any convolution, by copying the window of every output pixel into a row.

Axes: B batch, G groups, C in-channels and N out-channels of one group, I J output pixels, A E kernel
offsets, R = B I J rows, K = A E C.

    X[g, (b i j), (a e c)] = x[b, (g c), stride i + dilation a - top, stride j + dilation e - left]
    W[g, n, (a e c)]       = w[(g n), c, a, e]

Channels come last in K, so that windows are copied in runs of C numbers at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import final

from torch import Tensor

from tempo.lowering.base import Lowering, ProductShape
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
        conv = self.conv
        image_BHWGC = self._padded(x)
        self._inside(image_BHWGC).copy_(conv.image(x))
        (b, h, w, g, c), (down, right), (d_h, d_w) = image_BHWGC.stride(), conv.stride, conv.dilation
        # All windows as one view; the only copy is the one that lays them out.
        x_GBIJAEC = image_BHWGC.as_strided(
            (conv.groups, conv.batch, *conv.out, *conv.kernel, self._c),
            (g, b, down * h, right * w, d_h * h, d_w * w, c),
        )
        return x_GBIJAEC.reshape(conv.groups, self.shape.rows, self.shape.k)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        conv = self.conv
        image_BHWGC = self._padded(dx_GRK)
        dx_GBIJAEC = dx_GRK.reshape(conv.groups, conv.batch, *conv.out, *conv.kernel, self._c)
        # Windows overlap: a pixel collects what every window it stands in sends back.
        for a, e in product(range(conv.kernel[0]), range(conv.kernel[1])):
            self._seen(image_BHWGC, a, e).add_(dx_GBIJAEC[:, :, :, :, a, e])
        return self._inside(image_BHWGC).contiguous().reshape(conv.x_shape)

    def lower_w(self, w: Tensor) -> Tensor:
        return self.conv.weight(w).permute(0, 2, 3, 1).reshape(self.shape.groups, self.shape.n, self.shape.k)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        dw_NAEC = dw_GNK.reshape(self.conv.n, *self.conv.kernel, self._c)
        return dw_NAEC.permute(0, 3, 1, 2).reshape(self.conv.w_shape)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        conv = self.conv
        y_GBIJN = y_GRN.reshape(conv.groups, conv.batch, *conv.out, self.shape.n)
        return y_GBIJN.permute(1, 0, 4, 2, 3).contiguous().reshape(conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        conv = self.conv
        dy_BGNIJ = conv.out_image(dy).reshape(conv.batch, conv.groups, self.shape.n, *conv.out)
        return dy_BGNIJ.permute(1, 0, 3, 4, 2).reshape(conv.groups, self.shape.rows, self.shape.n)

    def _padded(self, like: Tensor) -> Tensor:
        """Zeros, as large as the padded image, channels last."""
        height, width = (
            lo + size + hi
            for lo, size, hi in zip(self.conv.before, self.conv.size, self.conv.after, strict=True)
        )
        return like.new_zeros(self.conv.batch, height, width, self.conv.groups, self._c)

    def _inside(self, image_BHWGC: Tensor) -> Tensor:
        """The image without its padding, as (B, C, H, W)."""
        (top, left), (height, width) = self.conv.before, self.conv.size
        return image_BHWGC[:, top : top + height, left : left + width].flatten(3).permute(0, 3, 1, 2)

    def _seen(self, image_BHWGC: Tensor, a: int, e: int) -> Tensor:
        """The pixel at offset (a, e) of every window, as (G, B, I, J, C)."""
        conv = self.conv
        rows, columns = (
            slice(d * offset, d * offset + s * (count - 1) + 1, s)
            for d, offset, s, count in zip(conv.dilation, (a, e), conv.stride, conv.out, strict=True)
        )
        return image_BHWGC[:, rows, columns].permute(3, 0, 1, 2, 4)
