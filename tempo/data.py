"""Sealed data as an ordinary PyTorch data set, opened inside the TEE alone.

dataset = tempo.data.SealedDataset("train.tempo", DataKey.load(path))
loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=2)
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from torch.utils.data import Dataset

from tempo.errors import UnsupportedError, UsageError
from tempo.memory import Pool
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.reader import KEEP, Expected, SealedFile

__all__ = ["SealedDataset"]

#: Bytes of idle blocks for records of 1 MiB and more.
_IDLE: Final = 256 << 20


@final
class Memory:
    """Where large records go: blocks that come back once their tensors are gone. A forked child has blocks of
    its own."""

    def __init__(self) -> None:
        self._pool = Pool(_IDLE)
        self._owner = os.getpid()

    def allocate(self, length: int) -> memoryview:
        """As `tempo.trust.sealed.reader.Allocate`."""
        if os.getpid() != self._owner:
            self._pool, self._owner = Pool(_IDLE), os.getpid()
        memory: memoryview = self._pool.empty((length,), torch.uint8).numpy().data
        return memory


@final
class SealedDataset(Dataset[Any]):
    """Items by kind of the file:

        arrays    tuple of tensors, a row of each array; the tensor itself where there is one array
        images    (image, class): uint8 CHW; `classes` are their names
        table     dict of column and value
        tensors   (name, tensor)
        files     (relative path, bytes)

    key: or a function that gets it. transform: applied to each item. expected: name and least sequence that
    are known beforehand. keep: bytes of opened segments that stay in memory, in each process; shuffled
    reading opens a segment for each record unless they are as many as the file has.

    A key is never pickled. So workers of a DataLoader are forked, or `key` is a function that can be pickled
    (one of a module): each spawned worker calls it, to read a key file or to ask the vault.
    Raises as `SealedFile`; an altered record raises TamperedError when it is read.
    """

    def __init__(
        self,
        path: str | Path,
        key: DataKey | OwnerKey | Callable[[], DataKey | OwnerKey],
        *,
        transform: Callable[[Any], Any] | None = None,
        expected: Expected | None = None,
        keep: int = KEEP,
    ) -> None:
        self._made_of = (Path(path), key, transform, expected, keep)
        found = key() if callable(key) else key
        self._file = SealedFile(Path(path), found, expected, keep=keep, allocate=Memory().allocate)
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

    def __reduce__(self) -> tuple[Any, ...]:
        """What it was made of, for a spawned worker. Raises TypeError for a key: give a function."""
        path, key, transform, expected, keep = self._made_of
        if not callable(key):
            raise TypeError(
                "a key never leaves its process in a pickle: fork the workers, or give SealedDataset a "
                "function of a module that gets the key, which each worker calls"
            )
        return _remade, (path, key, transform, expected, keep)

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


def _remade(
    path: Path,
    key: Callable[[], DataKey | OwnerKey],
    transform: Callable[[Any], Any] | None,
    expected: Expected | None,
    keep: int,
) -> SealedDataset:
    return SealedDataset(path, key, transform=transform, expected=expected, keep=keep)


def _array(record: memoryview, at: int, dtype: str, shape: tuple[int, ...]) -> tuple[Any, int]:
    """A tensor over the record's own memory, copied only where it would not be aligned; and its end."""
    if dtype == "bfloat16":
        bits, end = _array(record, at, "<i2", shape)
        return bits.view(torch.bfloat16), end
    kind = np.dtype(dtype)
    count = prod(shape)
    array = np.frombuffer(record, kind, count, at).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()
    return cast(Any, torch.from_numpy(array)), at + count * kind.itemsize
