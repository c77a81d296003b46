"""The lowering passes: images to points, windows or rows, and the adjoint of each.

Axes: B images, C channels, H W pixels, P points, G groups, R rows. Images have any strides; the other
side is contiguous. Results are written into `out`, so that callers can keep it. Native passes where there
are (float32 and float64), plain PyTorch otherwise. No result depends on the number of threads.

Sizes that do not fit raise ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tempo.kernels import native_images, plain_images
from tempo.kernels.native_images import ImagePasses
from tempo.kernels.passes import native_passes, pool, threads_of
from tempo.kernels.tiles import Tiles
from tempo.kernels.windows import Windows


def pooled(shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory for a result: it comes back when the last reference to it dies. A fresh allocation would cost
    several times the pass that fills it."""
    return pool().empty(shape, like.dtype) if like.device.type == "cpu" else like.new_empty(tuple(shape))


def to_points(image_BCHW: Tensor, tiles: Tiles, out_PRC: Tensor) -> None:
    """The points M d M^T of every tile d."""
    tiles.check(image_BCHW, _contiguous(out_PRC))
    native = _native(image_BCHW, out_PRC)
    if native is None or not native_images.knows(tiles):
        plain_images.to_points(image_BCHW, tiles, out_PRC)
    elif out_PRC.numel():
        native_images.tiles_pass(native.to_points, image_BCHW, out_PRC, tiles, threads_of(out_PRC))


def from_points(points_PRC: Tensor, tiles: Tiles, out_BCHW: Tensor) -> None:
    """The adjoint: M^T X M of every tile's points X, added up where tiles overlap."""
    points_PRC = points_PRC.contiguous()
    tiles.check(out_BCHW, points_PRC)
    native = _native(points_PRC, out_BCHW)
    if native is None or not native_images.knows(tiles):
        plain_images.from_points(points_PRC, tiles, out_BCHW)
    elif out_BCHW.numel():
        native_images.tiles_pass(native.from_points, out_BCHW, points_PRC, tiles, threads_of(points_PRC))


def to_windows(image_BCHW: Tensor, windows: Windows, out_GRK: Tensor) -> None:
    """Every window as a row, zeros where it leaves the image."""
    windows.check(image_BCHW, _contiguous(out_GRK))
    native = _native(image_BCHW, out_GRK)
    if native is None:
        plain_images.to_windows(image_BCHW, windows, out_GRK)
    elif out_GRK.numel():
        native_images.windows_pass(native.to_windows, image_BCHW, out_GRK, windows, threads_of(out_GRK))


def from_windows(rows_GRK: Tensor, windows: Windows, out_BCHW: Tensor) -> None:
    """The adjoint: a pixel is the sum over the windows that it stands in."""
    rows_GRK = rows_GRK.contiguous()
    windows.check(out_BCHW, rows_GRK)
    native = _native(rows_GRK, out_BCHW)
    if native is None:
        plain_images.from_windows(rows_GRK, windows, out_BCHW)
    elif out_BCHW.numel():
        native_images.windows_pass(native.from_windows, out_BCHW, rows_GRK, windows, threads_of(rows_GRK))


def to_rows(image_BCHW: Tensor, out_GRC: Tensor) -> None:
    """out[g, (b h w), c] = image[b, (g c), h, w]."""
    _check_rows(image_BCHW, _contiguous(out_GRC))
    native = _native(image_BCHW, out_GRC)
    if native is None:
        plain_images.to_rows(image_BCHW, out_GRC)
    elif out_GRC.numel():
        native_images.rows_pass(native.to_rows, image_BCHW, out_GRC, threads_of(out_GRC))


def from_rows(rows_GRC: Tensor, out_BCHW: Tensor) -> None:
    """The way back, which is also the adjoint."""
    rows_GRC = rows_GRC.contiguous()
    _check_rows(out_BCHW, rows_GRC)
    native = _native(rows_GRC, out_BCHW)
    if native is None:
        plain_images.from_rows(rows_GRC, out_BCHW)
    elif out_BCHW.numel():
        native_images.rows_pass(native.from_rows, out_BCHW, rows_GRC, threads_of(rows_GRC))


def _check_rows(image_BCHW: Tensor, rows_GRC: Tensor) -> None:
    batch, channels, height, width = image_BCHW.shape
    groups = max(1, len(rows_GRC))
    shape = (groups, batch * height * width, channels // groups)
    if channels % groups or rows_GRC.shape != shape or rows_GRC.dtype != image_BCHW.dtype:
        raise ValueError(f"rows of {tuple(image_BCHW.shape)}: {shape}, not {tuple(rows_GRC.shape)}")


def _contiguous(out: Tensor) -> Tensor:
    if not out.is_contiguous():
        raise ValueError(f"a result is written to contiguous memory, not to strides {out.stride()}")
    return out


def _native(*tensors: Tensor) -> ImagePasses | None:
    native = native_passes()
    return native.images if native is not None and native_images.fits(*tensors) else None
