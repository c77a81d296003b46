"""3x3 convolutions with stride 1 by Winograd's minimal filtering, F(m, 3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4.

Axes: B batch, C = K in-channels, N out-channels, I J tiles of m x m output pixels, A E pixels of a
tile, P = (m + 2)^2 points, which are the groups; R = B I J rows. With g a kernel, d a tile of
m + 2 x m + 2 pixels of the padded input, which overlaps its neighbours by 2, and Y a tile's points:

    X = B^T d B    W = G g G^T    Y[p] = X[p] W[p]^T    y = A^T Y A

Images and points are turned into one another in one pass each (tempo/kernels, to_points and its
adjoint). Precision: docs/numerics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.kernels import Tiles, from_points, pooled, to_points
from tempo.kernels.tiles import F2, F4, Transforms, of_inputs, of_outputs
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.shapes import ConvShape

__all__ = ["F2", "F4", "Transforms", "Winograd"]


@final
@dataclass(frozen=True)
class Winograd(Lowering):
    """Kernel 3x3, stride 1, dilation 1, one group, any padding. Its maps write into buffers: autograd
    does not go through them, it gets the adjoints."""

    conv: ConvShape
    transforms: Transforms

    def __post_init__(self) -> None:
        if not self.lowers(self.conv):
            raise UsageError(f"Winograd takes kernel 3x3, stride 1, dilation 1, one group, not {self.conv}")
        m, rows = self.transforms.m, self.conv.batch * self.grid[0] * self.grid[1]
        object.__setattr__(self, "name", f"winograd F({m},3)")
        object.__setattr__(self, "shape", ProductShape((m + 2) ** 2, rows, self.conv.c, self.conv.n))
        object.__setattr__(self, "flops", self.conv.flops)

    @staticmethod
    def lowers(conv: ConvShape) -> bool:
        return (conv.kernel, conv.stride, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis, (I, J)."""
        height, width = self.conv.out
        return -(-height // self.transforms.m), -(-width // self.transforms.m)

    @property
    def delicate(self) -> bool:
        """F(4,3) errs 7 to 15 times as much as a direct convolution (docs/numerics.md, section 3)."""
        return self.transforms.m > 2

    @cached_property
    def live_GR(self) -> Tensor | None:
        """A border tile has v < m outputs along an axis; the points that A^T maps to the cropped ones
        alone are dead there."""
        down, across = (
            self._live(extent, tiles) for extent, tiles in zip(self.conv.out, self.grid, strict=True)
        )
        if down.all() and across.all():
            return None
        live_PPIJ = down[:, None, :, None] & across[None, :, None, :]
        return live_PPIJ.flatten(2).flatten(0, 1).repeat(1, self.conv.batch)

    def _live(self, extent: int, tiles: int) -> Tensor:
        """(points, tiles) bool of one axis: some output of the tile depends on the point."""
        m, a = self.transforms.m, torch.tensor(self.transforms.a)
        return torch.stack([(a[: min(m, extent - i * m)] != 0).any(0) for i in range(tiles)], 1)

    def lower_x(self, x: Tensor) -> Tensor:
        return self._points(self.conv.image(x), self._inputs)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        dx = pooled((self.conv.batch, self.conv.c, *self.conv.size), dx_GRK)
        from_points(dx_GRK, self._inputs, dx)
        return dx.reshape(self.conv.x_shape)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        y = pooled((self.conv.batch, self.conv.n, *self.conv.out), y_GRN)
        from_points(y_GRN, self._outputs, y)
        return y.reshape(self.conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return self._points(self.conv.out_image(dy), self._outputs)

    def lower_w(self, w: Tensor) -> Tensor:
        g_PA = _both_axes(self.transforms.g, w)
        return (g_PA @ self.conv.weight(w).reshape(-1, 9).T).reshape(-1, self.conv.n, self.conv.c)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        g_PA = _both_axes(self.transforms.g, dw_GNK)
        return (dw_GNK.reshape(len(g_PA), -1).T @ g_PA).reshape(self.conv.w_shape)

    @property
    def _inputs(self) -> Tiles:
        return of_inputs(self.transforms, self.grid, self.conv.before)

    @property
    def _outputs(self) -> Tiles:
        return of_outputs(self.transforms, self.grid)

    def _points(self, image: Tensor, tiles: Tiles) -> Tensor:
        out = pooled((self.shape.groups, self.shape.rows, image.shape[1]), image)
        to_points(image, tiles, out)
        return out


def _both_axes(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """M (x) M in the operand's type, rounded once from double precision."""
    one_axis = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one_axis, one_axis).to(like)
