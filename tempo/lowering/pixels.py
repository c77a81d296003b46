"""Images as rows, a pixel each, and back.

Axes: B images, G groups, C channels of a group, H W pixels, R = B H W rows.
"""

from __future__ import annotations

from torch import Tensor

from tempo.kernels import from_rows, pooled, to_rows


def rows_of(image_BCHW: Tensor, groups: int) -> Tensor:
    """(G, R, C): a view where the channels lie together already."""
    batch, channels, height, width = image_BCHW.shape
    shape = (groups, batch * height * width, channels // groups)
    pixels = image_BCHW.permute(0, 2, 3, 1)
    if groups == 1 and pixels.is_contiguous():
        return pixels.view(shape)
    out = pooled(shape, image_BCHW)
    to_rows(image_BCHW, out)
    return out


def image_of(rows_GRC: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """(B, G C, H, W), contiguous, as a convolution's output is: user code calls view() on it."""
    groups, _, channels = rows_GRC.shape
    out = pooled((batch, groups * channels, *size), rows_GRC)
    from_rows(rows_GRC, out)
    return out
