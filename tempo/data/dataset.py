"""A sealed file as an ordinary PyTorch data set: by item, and by batch, where segments are opened once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from tempo.data.decode import columns, decoder, items, length
from tempo.errors import UsageError
from tempo.memory import Pool
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.reader import KEEP, Expected, SealedFile
from tempo.trust.sealed.stream import SEGMENT

#: Bytes of idle blocks for records of 1 MiB and more.
_IDLE: Final = 256 << 20
_LARGE: Final = 1 << 20


@final
class Memory:
    """Where large records go: blocks that come back once their tensors are gone. A forked child has blocks of
    its own."""

    def __init__(self) -> None:
        self._pool = Pool(_IDLE)
        self._owner = os.getpid()

    def allocate(self, length: int) -> memoryview:
        """As `tempo.trust.sealed.reader.Allocate`."""
        if length < _LARGE:
            return np.empty(length, np.uint8).data
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
    For small records: SealedSampler, and lists of numbers (`__getitem__`).
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
        self._decode = decoder(manifest)
        size = length(manifest.fields) if manifest.kind == "arrays" else SEGMENT
        # Larger records lie each on its own: who holds one does not hold its batch.
        self._length = size if size < SEGMENT else None

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

    def __getitem__(self, index: int | list[int]) -> Any:
        """An item; or, of a list of numbers, a batch as DataLoader makes it of their items. Of arrays that is
        the fastest way: one tensor [N, ...] of each array, and no item is made. Raises IndexError."""
        if isinstance(index, list):
            if self._length is None or self._transform is not None:
                return default_collate(self.__getitems__(index))
            found = self._columns(index, self._length)
            return found[0] if len(found) == 1 else found
        number = index + len(self) if index < 0 else index
        item = self._decode(number, self._file.record(number))
        return item if self._transform is None else self._transform(item)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch, as DataLoader asks for it: each segment is opened once, in the file's order, all before
        the first item is made. Items of arrays share the batch's memory; none shares a byte with another."""
        if self._length is not None:
            found = items(self._columns(indices, self._length))
        else:
            numbers = self._numbers(indices)
            records = self._file.records(numbers)
            found = [self._decode(*each) for each in zip(numbers, records, strict=True)]
        return found if self._transform is None else [self._transform(item) for item in found]

    def _columns(self, indices: Sequence[int], length: int) -> list[torch.Tensor]:
        rows = self._file.rows(self._numbers(indices), length)
        return columns(rows, self._file.manifest.fields)

    def _numbers(self, indices: Sequence[int]) -> Sequence[int]:
        """Counted from the beginning."""
        if len(indices) and min(indices) < 0:
            count = len(self)
            return [index + count if index < 0 else index for index in indices]
        return indices

    @property
    def keep(self) -> int:
        """Bytes of opened segments that stay in memory, in each process."""
        return self._file.keep

    @property
    def record_bytes(self) -> float:
        """Of a record, on average."""
        return self._file.records_length / max(1, len(self))

    def close(self) -> None:
        self._file.close()


def _remade(
    path: Path,
    key: Callable[[], DataKey | OwnerKey],
    transform: Callable[[Any], Any] | None,
    expected: Expected | None,
    keep: int,
) -> SealedDataset:
    return SealedDataset(path, key, transform=transform, expected=expected, keep=keep)
