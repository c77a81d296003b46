"""Which tiles of an image a Winograd pass maps to points, and by which matrix.

Axes: B images, C channels, H W pixels, I J tiles, A E pixels of a tile, P points along one axis, R = B I J
rows. Along both axes a tile d becomes the points M d M^T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

Matrix = tuple[tuple[float, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class Transforms:
    """F(m, 3) as three matrices: b is B^T (m+2, m+2), g is G (m+2, 3), a is A^T (m, m+2).

    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4.
    """

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


@final
@dataclass(frozen=True, slots=True)
class Tiles:
    """matrix: M (P, A). m: pixels from tile to tile. grid: (I, J). before: (top, left) pixels of zeros
    between the first tile's corner and the image's."""

    matrix: Matrix
    m: int
    grid: tuple[int, int]
    before: tuple[int, int]

    @property
    def points(self) -> int:
        return len(self.matrix)

    @property
    def side(self) -> int:
        return len(self.matrix[0])

    def check(self, image_BCHW: Tensor, points_PRC: Tensor) -> None:
        """Raises ValueError where the image is not covered, or the points are others."""
        batch, channels, *size = image_BCHW.shape
        covered = [(count - 1) * self.m + self.side for count in self.grid]
        if min(self.grid) < 0 or any(
            at < 0 or at + s > c for at, s, c in zip(self.before, size, covered, strict=True)
        ):
            raise ValueError(f"tiles over {covered} pixels, {self.before} before, do not cover {size}")
        shape = (self.points**2, batch * self.grid[0] * self.grid[1], channels)
        if points_PRC.shape != shape or points_PRC.dtype != image_BCHW.dtype:
            raise ValueError(f"points: {shape} {image_BCHW.dtype}, not {tuple(points_PRC.shape)}")


def of_inputs(f: Transforms, grid: tuple[int, int], before: tuple[int, int]) -> Tiles:
    """Tiles of m + 2 pixels, which overlap by 2, by B^T."""
    return Tiles(f.b, f.m, grid, before)


def of_outputs(f: Transforms, grid: tuple[int, int]) -> Tiles:
    """Tiles of m pixels side by side, by A: gradients of outputs; its adjoint makes outputs."""
    return Tiles(tuple(zip(*f.a, strict=True)), f.m, grid, (0, 0))
