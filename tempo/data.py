"""Sealed data as an ordinary PyTorch data set, opened inside the TEE alone.

dataset = tempo.data.SealedDataset("train.tempo", DataKey.load(path))
loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=2)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, final

import msgspec
import numpy as np
import torch
from torch.utils.data import Dataset

from tempo.errors import UnsupportedError, UsageError
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.reader import Expected, SealedFile

__all__ = ["SealedDataset"]


@final
class SealedDataset(Dataset[Any]):
    """Items by kind of the file:

        arrays    tuple of tensors, a row of each array; the tensor itself where there is one array
        images    (image, class): uint8 CHW; `classes` are their names
        table     dict of column and value
        tensors   (name, tensor)
        files     (relative path, bytes)

    transform: applied to each item. expected: name and least sequence that are known beforehand.
    Workers of a DataLoader must be forked (the default on Linux up to Python 3.13): a key is never pickled.
    Raises as `SealedFile`; an altered record raises TamperedError when it is read.
    """

    def __init__(
        self,
        path: str | Path,
        key: DataKey | OwnerKey,
        *,
        transform: Callable[[Any], Any] | None = None,
        expected: Expected | None = None,
    ) -> None:
        self._file = SealedFile(Path(path), key, expected)
        self._transform = transform
        manifest = self._file.manifest
        if manifest.kind == "state":
            self._file.close()
            raise UsageError(f"{path} is a checkpoint: Session.resume reads it")
        self.classes = tuple(f.name for f in manifest.fields) if manifest.kind == "images" else ()
        self._decode: Callable[[int, memoryview], Any] = {
            "arrays": self._arrays,
            "images": self._image,
            "table": self._row,
            "tensors": self._named_tensor,
            "files": self._plain_file,
        }[manifest.kind]

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, index: int) -> Any:
        number = index + len(self) if index < 0 else index
        item = self._decode(number, self._file.record(number))
        return item if self._transform is None else self._transform(item)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch, neighbours first, so that each segment is opened once."""
        items = {i: self[i] for i in sorted(set(indices))}
        return [items[i] for i in indices]

    def close(self) -> None:
        self._file.close()

    def _arrays(self, number: int, record: memoryview) -> Any:
        out, at = [], 0
        for field in self._file.manifest.fields:
            array, at = _array(record, at, field.dtype, field.shape)
            out.append(array)
        return out[0] if len(out) == 1 else tuple(out)

    def _named_tensor(self, number: int, record: memoryview) -> Any:
        field = self._file.manifest.fields[number]
        return field.name, _array(record, 0, field.dtype, field.shape)[0]

    def _row(self, number: int, record: memoryview) -> Any:
        row = msgspec.msgpack.decode(record, type=list[Any])
        return dict(zip((f.name for f in self._file.manifest.fields), row, strict=True))

    def _plain_file(self, number: int, record: memoryview) -> Any:
        name, _, data = msgspec.msgpack.decode(record, type=tuple[str, int | None, bytes])
        return name, data

    def _image(self, number: int, record: memoryview) -> Any:
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


def _array(record: memoryview, at: int, dtype: str, shape: tuple[int, ...]) -> tuple[Any, int]:
    if dtype == "bfloat16":
        bits, end = _array(record, at, "<i2", shape)
        return bits.view(torch.bfloat16), end
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    array = np.frombuffer(record, kind, count, at).reshape(shape).copy()
    return cast(Any, torch.from_numpy(array)), at + count * kind.itemsize
