"""The lowering passes in plain PyTorch: what the native ones are defined by, and what serves without them.

Axes as in tiles.py and windows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from tempo.kernels.tiles import Tiles
from tempo.kernels.windows import Windows

#: Elements of tiles worked on at a time: they stay in the second-level cache between two passes.
CHUNK = 1 << 18


def to_points(image: Tensor, tiles: Tiles, out_PRC: Tensor) -> None:
    """As one matrix on flattened tiles: vec(M d M^T) = (M (x) M) vec(d), (x) the Kronecker product. That is
    more arithmetic than one axis after the other and, in PyTorch, faster: each element is read once."""
    matrix_PA = _both_axes(tiles, image)
    channels = image.shape[1]
    out = out_PRC.view(len(matrix_PA), -1)
    blocks = _blocks(image, tiles)
    per_chunk = len(blocks) * tiles.grid[0] * tiles.grid[1] * channels
    scratch = image.new_empty(matrix_PA.shape[1] * per_chunk)
    for images, columns in _chunks(image, tiles, len(blocks)):
        some = image[images]
        blocks_here = blocks[: len(some)]
        _window(blocks_here, tiles, some).copy_(some)
        pixels = matrix_PA.shape[1]
        tiles_AR = scratch[: pixels * (columns.stop - columns.start)].view(pixels, -1)
        for tile_part, block_part in _parts(tiles_AR, blocks_here, tiles):
            tile_part.copy_(block_part)
        torch.mm(matrix_PA, tiles_AR, out=out[:, columns])


def from_points(points_PRC: Tensor, tiles: Tiles, out: Tensor) -> None:
    """The adjoint of `to_points`: tiles that overlap add up, the rest is cropped."""
    matrix_AP = _both_axes(tiles, out).T
    points = points_PRC.reshape(len(points_PRC), -1)
    blocks = _blocks(out, tiles)
    for images, columns in _chunks(out, tiles, len(blocks)):
        some = out[images]
        blocks_here = blocks[: len(some)].zero_()
        for tile_part, block_part in _parts(matrix_AP @ points[:, columns], blocks_here, tiles):
            block_part.add_(tile_part)
        some.copy_(_window(blocks_here, tiles, some))


def to_windows(image: Tensor, windows: Windows, out_GRK: Tensor) -> None:
    image_BHWGC = _padded(image, windows)
    _inside(image_BHWGC, windows, image).copy_(image)
    (b, h, w, g, c), (down, right), (d_h, d_w) = image_BHWGC.stride(), windows.stride, windows.dilation
    # All windows as one view; the only copy is the one that lays them out.
    size = _split(windows, image)
    x_GBIJAEC = image_BHWGC.as_strided(size, (g, b, down * h, right * w, d_h * h, d_w * w, c))
    out_GRK.view(size).copy_(x_GBIJAEC)


def from_windows(rows_GRK: Tensor, windows: Windows, out: Tensor) -> None:
    image_BHWGC = _padded(out, windows)
    rows_GBIJAEC = rows_GRK.reshape(_split(windows, out))
    # Windows overlap: a pixel collects what every window it stands in sends back.
    for a, e in product(range(windows.kernel[0]), range(windows.kernel[1])):
        _seen(image_BHWGC, windows, a, e).add_(rows_GBIJAEC[:, :, :, :, a, e])
    out.copy_(_inside(image_BHWGC, windows, out))


def to_rows(image: Tensor, out_GRC: Tensor) -> None:
    _as_image(out_GRC, image).copy_(image.unflatten(1, (len(out_GRC), -1)))


def from_rows(rows_GRC: Tensor, out: Tensor) -> None:
    out.copy_(_as_image(rows_GRC, out).flatten(1, 2))


def _as_image(rows_GRC: Tensor, image: Tensor) -> Tensor:
    """(B, G, C, H, W), a view."""
    batch, _, *size = image.shape
    return rows_GRC.view(len(rows_GRC), batch, *size, rows_GRC.shape[2]).permute(1, 0, 4, 2, 3)


def _both_axes(tiles: Tiles, like: Tensor) -> Tensor:
    """M (x) M in the operand's type, rounded once from double precision."""
    one_axis = torch.tensor(tiles.matrix, dtype=torch.float64)
    return torch.kron(one_axis, one_axis).to(like)


def _chunks(image: Tensor, tiles: Tiles, step: int) -> Iterator[tuple[slice, slice]]:
    """Images `step` at a time, and where their tiles stand among all columns (b, i, j, c)."""
    batch, channels = image.shape[:2]
    per_image = tiles.grid[0] * tiles.grid[1] * channels
    for first in range(0, batch, step):
        last = min(first + step, batch)
        yield slice(first, last), slice(first * per_image, last * per_image)


def _blocks(image: Tensor, tiles: Tiles) -> Tensor:
    """Zeros for the images of one chunk, cut into blocks of m x m: (B, I+1, m, J+1, m, channels).

    A window of m + 2 pixels is a block and the first two lines of the next (2 <= m)."""
    m, (down, across), (batch, channels) = tiles.m, tiles.grid, image.shape[:2]
    images = max(1, min(CHUNK // (tiles.points**2 * down * across * channels), batch))
    return image.new_zeros(images, down + 1, m, across + 1, m, channels)


def _parts(tiles_AR: Tensor, blocks: Tensor, tiles: Tiles) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of all tiles beside the pieces of the blocks they cover: (A, E, B, I, J, channels)."""
    m, side, (down, across) = tiles.m, tiles.side, tiles.grid
    tiles_AEBIJC = tiles_AR.view(side, side, len(blocks), down, across, -1)
    blocks_AEBIJC = blocks.permute(2, 4, 0, 1, 3, 5)
    for a, i in ((0, 0), (m, 1)):
        for e, j in ((0, 0), (m, 1)):
            part = tiles_AEBIJC[a : a + m, e : e + m]
            height, width = part.shape[:2]
            if height and width:
                yield part, blocks_AEBIJC[:height, :width, :, i : i + down, j : j + across]


def _window(blocks: Tensor, tiles: Tiles, like: Tensor) -> Tensor:
    """Where an image (B, channels, H, W) lies in blocks: a view of the same shape."""
    images, down, m, across, _, channels = blocks.shape
    pixels = blocks.view(images, down * m, across * m, channels)
    (top, left), (height, width) = tiles.before, like.shape[2:]
    return pixels[:, top : top + height, left : left + width].permute(0, 3, 1, 2)


def _split(windows: Windows, image: Tensor) -> tuple[int, ...]:
    """(G, B, I, J, A, E, C)."""
    batch, channels = image.shape[:2]
    return (windows.groups, batch, *windows.grid, *windows.kernel, channels // windows.groups)


def _padded(image: Tensor, windows: Windows) -> Tensor:
    """Zeros, as large as image and windows, channels last: (B, H, W, G, C)."""
    batch, channels, *size = image.shape
    seen = (
        d * (kernel - 1) + s * (count - 1) + 1
        for d, kernel, s, count in zip(
            windows.dilation, windows.kernel, windows.stride, windows.grid, strict=True
        )
    )
    height, width = (max(lo + s, n) for lo, s, n in zip(windows.before, size, seen, strict=True))
    return image.new_zeros(batch, height, width, windows.groups, channels // windows.groups)


def _inside(image_BHWGC: Tensor, windows: Windows, like: Tensor) -> Tensor:
    """The image without its padding, as (B, C, H, W)."""
    (top, left), (height, width) = windows.before, like.shape[2:]
    return image_BHWGC[:, top : top + height, left : left + width].flatten(3).permute(0, 3, 1, 2)


def _seen(image_BHWGC: Tensor, windows: Windows, a: int, e: int) -> Tensor:
    """The pixel at offset (a, e) of every window, as (G, B, I, J, C)."""
    rows, columns = (
        slice(d * offset, d * offset + s * (count - 1) + 1, s)
        for d, offset, s, count in zip(windows.dilation, (a, e), windows.stride, windows.grid, strict=True)
    )
    return image_BHWGC[:, rows, columns].permute(3, 0, 1, 2, 4)
