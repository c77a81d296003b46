"""The native lowering passes: the structs of cpp/images.h. images.py checked sizes and types before."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_void_p
from typing import Any, Final

import torch
from torch import Tensor

from tempo.kernels.plainness import plain_memory
from tempo.kernels.tiles import F2, F4, Matrix, Tiles, of_inputs, of_outputs
from tempo.kernels.windows import Windows

_TYPES: Final = {torch.float32: 0, torch.float64: 1}
#: As in cpp/filtering.h.
_MATRICES: Final[frozenset[Matrix]] = frozenset(
    tiles.matrix for f in (F2, F4) for tiles in (of_inputs(f, (1, 1), (0, 0)), of_outputs(f, (1, 1)))
)


class _Image(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        *((name, c_int64) for name in ("batch", "channels", "height", "width")),
        *((name, c_int64) for name in ("to_image", "to_channel", "to_row", "to_pixel")),
        ("type", c_int32),
    )


class _Tiles(ctypes.Structure):
    _fields_ = (
        ("image", _Image),
        ("points", c_void_p),
        *((name, c_int64) for name in ("down", "across", "top", "left")),
        ("m", c_int32),
        ("side", c_int32),
    )


class _Windows(ctypes.Structure):
    _fields_ = (
        ("image", _Image),
        ("rows", c_void_p),
        *((name, c_int64) for name in ("groups", "down", "across", "top", "left")),
        *((name, c_int64 * 2) for name in ("kernel", "stride", "dilation")),
    )


_TilesPass = ctypes.CFUNCTYPE(c_int, POINTER(_Tiles), c_int)
_WindowsPass = ctypes.CFUNCTYPE(c_int, POINTER(_Windows), c_int)
_RowsPass = ctypes.CFUNCTYPE(c_int, POINTER(_Image), c_void_p, c_int64, c_int)


class ImagePasses(ctypes.Structure):
    """Held by the table of passes of one instruction set."""

    _fields_ = (
        ("to_points", _TilesPass),
        ("from_points", _TilesPass),
        ("to_windows", _WindowsPass),
        ("from_windows", _WindowsPass),
        ("to_rows", _RowsPass),
        ("from_rows", _RowsPass),
    )


def fits(*tensors: Tensor) -> bool:
    """Whether the passes can take these: plain memory of a type they compute in."""
    return all(t.dtype in _TYPES and plain_memory(t) for t in tensors)


def knows(tiles: Tiles) -> bool:
    return tiles.matrix in _MATRICES


def tiles_pass(
    run: Callable[..., int], image: Tensor, points_PRC: Tensor, tiles: Tiles, threads: int
) -> None:
    struct = _Tiles(_image(image), points_PRC.data_ptr(), *tiles.grid, *tiles.before, tiles.m, tiles.side)
    _done(run(byref(struct), threads))


def windows_pass(
    run: Callable[..., int], image: Tensor, rows_GRK: Tensor, windows: Windows, threads: int
) -> None:
    pairs = ((c_int64 * 2)(*pair) for pair in (windows.kernel, windows.stride, windows.dilation))
    struct = _Windows(
        _image(image), rows_GRK.data_ptr(), windows.groups, *windows.grid, *windows.before, *pairs
    )
    _done(run(byref(struct), threads))


def rows_pass(run: Callable[..., int], image: Tensor, rows_GRC: Tensor, threads: int) -> None:
    _done(run(byref(_image(image)), rows_GRC.data_ptr(), len(rows_GRC), threads))


def _image(t: Tensor) -> Any:
    to_image, to_channel, to_row, to_pixel = t.stride()
    # The stride of an axis of one is arbitrary: take the one that makes runs long.
    if t.shape[3] == 1:
        to_pixel = 1
    if t.shape[2] == 1:
        to_row = t.shape[3] * to_pixel
    strides = (to_image, to_channel, to_row, to_pixel)
    return _Image(t.data_ptr(), *t.shape, *strides, _TYPES[t.dtype])


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("a lowering pass found no memory to work in")
