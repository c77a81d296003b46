"""Records to items, by kind of the file. `one` of a record; `rows` of a batch of records of one length.

rows: bytes [N, R], a record of R bytes along the second axis
    -> a column of bytes for each field -> an array [N, ...] of its dtype -> N tensors, views of it
"""

from __future__ import annotations

import io
from collections.abc import Callable
from math import prod
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from tempo.errors import UnsupportedError, UsageError
from tempo.trust.sealed.format import Field, Manifest

#: An item of a record and its number.
Decode = Callable[[int, memoryview], Any]


def decoder(manifest: Manifest) -> Decode:
    """For a kind that holds items: not `state`."""
    fields = manifest.fields
    match manifest.kind:
        case "arrays":
            return _arrays(fields)
        case "tensors":
            return lambda number, record: _named(record, fields[number])
        case "table":
            names = tuple(field.name for field in fields)
            return lambda _, record: dict(zip(names, _row(record), strict=True))
        case "images":
            return lambda _, record: _image(record)
        case _:
            return lambda _, record: _plain_file(record)


def length(fields: tuple[Field, ...]) -> int:
    """Bytes of a record of these arrays."""
    return sum(map(_size, fields))


def columns(rows: NDArray[np.uint8], fields: tuple[Field, ...]) -> list[torch.Tensor]:
    """Of kind `arrays`: a tensor [N, ...] of each array, out of rows [N, R]; they may share memory."""
    at, found = 0, []
    for field in fields:
        end = at + _size(field)
        found.append(_column(rows[:, at:end], field))
        at = end
    return found


def items(batch: list[torch.Tensor]) -> list[Any]:
    """The items of a batch, views of it."""
    rows = [column.unbind(0) for column in batch]
    return list(rows[0]) if len(rows) == 1 else list(zip(*rows, strict=True))


def _size(field: Field) -> int:
    return _dtype(field).itemsize * prod(field.shape)


def _dtype(field: Field) -> np.dtype[Any]:
    return np.dtype("<i2" if field.dtype == "bfloat16" else field.dtype)


def _column(column: NDArray[np.uint8], field: Field) -> torch.Tensor:
    """[N, ...]: over the same memory, copied only where a tensor cannot lie there: at an address or a stride
    that is no multiple of its item."""
    array = column.view(_dtype(field))
    if not array.flags.aligned or array.strides[0] % max(1, array.itemsize):
        array = array.copy(order="C")
    array = array.reshape(len(array), *field.shape)
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if field.dtype == "bfloat16" else found


def _arrays(fields: tuple[Field, ...]) -> Decode:
    places, at = [], 0
    for field in fields:
        places.append((field.shape, _dtype(field), at, field.dtype == "bfloat16"))
        at += _size(field)

    def decode(_: int, record: memoryview) -> Any:
        if len(record) != at:
            raise UsageError(f"a record of {len(record)} bytes; its arrays have {at}")
        found = tuple([_array(record, *place) for place in places])
        return found[0] if len(found) == 1 else found

    return decode


def _array(
    record: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], at: int, bfloat16: bool
) -> torch.Tensor:
    """A tensor over the record's own memory, copied only where it would not be aligned."""
    array: NDArray[Any] = np.ndarray(shape, dtype, record, at)
    if not array.flags.aligned:
        array = array.copy()
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if bfloat16 else found


def _named(record: memoryview, field: Field) -> tuple[str, torch.Tensor]:
    return field.name, _array(record, field.shape, _dtype(field), 0, field.dtype == "bfloat16")


def _row(record: memoryview) -> list[Any]:
    return msgspec.msgpack.decode(record, type=list[Any])


def _plain_file(record: memoryview) -> tuple[str, bytes]:
    name, _, data = msgspec.msgpack.decode(record, type=tuple[str, int | None, bytes])
    return name, data


def _image(record: memoryview) -> tuple[torch.Tensor, int | None]:
    name, label, data = msgspec.msgpack.decode(record, type=tuple[str, int | None, bytes])
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UnsupportedError("images need the package pillow", "install pillow") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name} is no image that can be read ({type(error).__name__})") from error
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1).contiguous(), label
