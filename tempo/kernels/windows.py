"""Which windows of an image become rows.

Axes: B images, G groups, C channels of a group, H W pixels, I J windows, A E offsets in a window, R = B I J.

    rows[g, (b i j), (a e c)] = image[b, (g c), stride i + dilation a - top, stride j + dilation e - left]
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

from torch import Tensor

Pair = tuple[int, int]


@final
@dataclass(frozen=True, slots=True)
class Windows:
    """grid: (I, J). before: (top, left) pixels of zeros; what lies outside the image is zero."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    grid: Pair
    groups: int

    def check(self, image_BCHW: Tensor, rows_GRK: Tensor) -> None:
        """Raises ValueError where the rows are others."""
        batch, channels = image_BCHW.shape[:2]
        if (
            channels % self.groups
            or min(*self.stride, *self.dilation, *self.kernel) < 1
            or min(*self.before, *self.grid) < 0
        ):
            raise ValueError(f"no windows of {channels} channels: {self}")
        shape = (self.groups, batch * prod(self.grid), prod(self.kernel) * (channels // self.groups))
        if rows_GRK.shape != shape or rows_GRK.dtype != image_BCHW.dtype:
            raise ValueError(f"rows: {shape} {image_BCHW.dtype}, not {tuple(rows_GRK.shape)}")
