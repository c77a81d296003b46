"""3x3 convolutions with stride 1 by Winograd's minimal filtering, F(m, 3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4.

Axes: B batch, C = K in-channels, N out-channels, I J tiles of m x m output pixels, A E pixels of a
tile, P = (m + 2)^2 points, which are the groups; R = B I J rows. With g a kernel, d a tile of
m + 2 x m + 2 pixels of the padded input, which overlaps its neighbours by 2, and Y a tile's points:

    X = B^T d B    W = G g G^T    Y[p] = X[p] W[p]^T    y = A^T Y A

A transform along both axes is one matrix on flattened tiles: with M (x) M the Kronecker product,
vec(M d M^T) = (M (x) M) vec(d). That is more arithmetic than one axis after the other (36 against 12
multiplications an element) and faster, since it reads and writes each element once.
Precision: docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.shapes import ConvShape

Matrix = tuple[tuple[float, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class Transforms:
    """F(m, 3) as three matrices: b is B^T (m+2, m+2), g is G (m+2, 3), a is A^T (m, m+2)."""

    m: int
    b: Matrix
    g: Matrix
    a: Matrix


#: Points 0, 1, -1 and infinity.
F2 = Transforms(
    m=2,
    b=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    g=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    a=((1, 1, 1, 0), (0, 1, -1, -1)),
)

#: Points 0, 1, -1, 2, -2 and infinity.
F4 = Transforms(
    m=4,
    b=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    g=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    a=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)

#: Elements of tiles worked on at a time: they stay in the second-level cache between two passes.
CHUNK = 1 << 18


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
        return self._to_points(_both_axes(self.transforms.b, x), self.conv.image(x), self.conv.before)

    def raise_dx(self, dx_GRK: Tensor) -> Tensor:
        dx = dx_GRK.new_empty(self.conv.batch, self.conv.c, *self.conv.size)
        self._from_points(_both_axes(self.transforms.b, dx).T, dx_GRK, dx, self.conv.before)
        return dx.reshape(self.conv.x_shape)

    def raise_y(self, y_GRN: Tensor) -> Tensor:
        y = y_GRN.new_empty(self.conv.batch, self.conv.n, *self.conv.out)
        self._from_points(_both_axes(self.transforms.a, y), y_GRN, y, (0, 0))
        return y.reshape(self.conv.y_shape)

    def lower_dy(self, dy: Tensor) -> Tensor:
        return self._to_points(_both_axes(self.transforms.a, dy).T, self.conv.out_image(dy), (0, 0))

    def lower_w(self, w: Tensor) -> Tensor:
        g_PA = _both_axes(self.transforms.g, w)
        return (g_PA @ self.conv.weight(w).reshape(-1, 9).T).reshape(-1, self.conv.n, self.conv.c)

    def raise_dw(self, dw_GNK: Tensor) -> Tensor:
        g_PA = _both_axes(self.transforms.g, dw_GNK)
        return (dw_GNK.reshape(len(g_PA), -1).T @ g_PA).reshape(self.conv.w_shape)

    def _to_points(self, matrix_PA: Tensor, image: Tensor, before: tuple[int, int]) -> Tensor:
        """matrix @ tiles: image (B, channels, H, W), shifted by `before`, to (P, R, channels)."""
        (points, pixels), channels = matrix_PA.shape, image.shape[1]
        out = image.new_empty(points, self.shape.rows * channels)
        blocks = self._blocks(image, channels)
        tiles = image.new_empty(pixels * len(blocks) * self.grid[0] * self.grid[1] * channels)
        for images, columns in self._chunks(len(blocks), channels):
            some = image[images]
            blocks_here = blocks[: len(some)]
            _window(blocks_here, before, some).copy_(some)
            tiles_AR = tiles[: pixels * (columns.stop - columns.start)].view(pixels, -1)
            for tile_part, block_part in self._parts(tiles_AR, blocks_here):
                tile_part.copy_(block_part)
            torch.mm(matrix_PA, tiles_AR, out=out[:, columns])
        return out.view(points, self.shape.rows, channels)

    def _from_points(
        self, matrix_AP: Tensor, points_PRC: Tensor, image: Tensor, before: tuple[int, int]
    ) -> None:
        """The adjoint of `_to_points`, into image: tiles that overlap add up, the rest is cropped."""
        points = points_PRC.reshape(matrix_AP.shape[1], -1)
        blocks = self._blocks(image, image.shape[1])
        for images, columns in self._chunks(len(blocks), image.shape[1]):
            some = image[images]
            blocks_here = blocks[: len(some)].zero_()
            for tile_part, block_part in self._parts(matrix_AP @ points[:, columns], blocks_here):
                block_part.add_(tile_part)
            some.copy_(_window(blocks_here, before, some))

    def _chunks(self, step: int, channels: int) -> Iterator[tuple[slice, slice]]:
        """Images `step` at a time, and where their tiles stand among all columns (b, i, j, c)."""
        per_image = self.grid[0] * self.grid[1] * channels
        for first in range(0, self.conv.batch, step):
            last = min(first + step, self.conv.batch)
            yield slice(first, last), slice(first * per_image, last * per_image)

    def _blocks(self, like: Tensor, channels: int) -> Tensor:
        """Zeros for the images of one chunk, cut into blocks of m x m: (B, I+1, m, J+1, m, channels).

        A window of m + 2 pixels is a block and the first two lines of the next (2 <= m)."""
        m, (down, across) = self.transforms.m, self.grid
        images = CHUNK // ((m + 2) ** 2 * down * across * channels)
        images = max(1, min(images, self.conv.batch))
        return like.new_zeros(images, down + 1, m, across + 1, m, channels)

    def _parts(self, tiles_AR: Tensor, blocks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of all tiles beside the pieces of the blocks they cover: (A, E, B, I, J, channels)."""
        m, (down, across) = self.transforms.m, self.grid
        side = m if len(tiles_AR) == m * m else m + 2
        tiles = tiles_AR.view(side, side, len(blocks), down, across, -1)
        blocks_AEBIJC = blocks.permute(2, 4, 0, 1, 3, 5)
        for a, i in ((0, 0), (m, 1)):
            for e, j in ((0, 0), (m, 1)):
                part = tiles[a : a + m, e : e + m]
                height, width = part.shape[:2]
                if height and width:
                    yield part, blocks_AEBIJC[:height, :width, :, i : i + down, j : j + across]


def _both_axes(matrix: Matrix, like: Tensor) -> Tensor:
    """M (x) M in the operand's type, rounded once from double precision."""
    one_axis = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one_axis, one_axis).to(like)


def _window(blocks: Tensor, before: tuple[int, int], like: Tensor) -> Tensor:
    """Where an image (B, channels, H, W) lies in blocks: a view of the same shape."""
    images, down, m, across, _, channels = blocks.shape
    pixels = blocks.view(images, down * m, across * m, channels)
    (top, left), (height, width) = before, like.shape[2:]
    return pixels[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
