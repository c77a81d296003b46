"""What `tempo seal` takes: a source is recognised by its path and read record by record.

folder of folders of images    images    file and class, the name of its folder
.npy, .npz                     arrays    one row of each array
.csv, .parquet                 table     one row (Parquet needs pyarrow)
.safetensors                   tensors   one tensor
any other file or folder       files     one file with its relative path
"""

from __future__ import annotations

import csv
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np
import torch
from torch import Tensor

from tempo.errors import DataError, UnsupportedError, UsageError
from tempo.trust.sealed.format import Field, Kind
from tempo.trust.sealed.writer import SealedWriter

IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_REAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_pack = msgspec.msgpack.encode

#: Bytes of rows that are put together at once: they are still in the core's cache when they are sealed.
_CHUNK: Final = 512 << 10
#: Bytes between two words about progress, which cost more than a small record.
_STEP: Final = 1 << 20

Progress = Callable[[int], None]


class Source(ABC):
    """Abstract. fields: as the manifest has them. records: pieces of each record, in order."""

    kind: Kind
    fields: tuple[Field, ...]
    count: int

    @abstractmethod
    def records(self) -> Iterator[tuple[bytes | memoryview, ...]]: ...

    def fill(self, out: SealedWriter, progress: Progress = lambda count: None) -> None:
        """All records, in order. progress: told how many there are, now and then and at the end."""
        since = 0
        for number, record in enumerate(self.records(), 1):
            out.add(*record)
            since += sum(map(len, record))
            if since >= _STEP:
                progress(number)
                since = 0
        progress(self.count)


@final
class Arrays(Source):
    """Arrays of one length, row by row."""

    kind: Kind = "arrays"

    def __init__(self, arrays: dict[str, Any]) -> None:
        lengths = {name: len(a) if a.ndim else -1 for name, a in arrays.items()}
        if not arrays or len(set(lengths.values())) > 1 or -1 in lengths.values():
            raise UsageError(f"arrays of one length are needed, a record is a row of each; found {lengths}")
        for name, a in arrays.items():
            if a.dtype.hasobject:
                raise UsageError(f"array {name!r} holds Python objects: numbers are needed")
        self._arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
        self.fields = tuple(
            Field(name, a.dtype.newbyteorder("<").str, tuple(a.shape[1:])) for name, a in self._arrays.items()
        )
        self.count = next(iter(lengths.values()))

    def records(self) -> Iterator[tuple[bytes | memoryview, ...]]:
        little = [
            a.astype(f.dtype, copy=False) for a, f in zip(self._arrays.values(), self.fields, strict=True)
        ]
        for i in range(self.count):
            yield tuple(a[i].tobytes() for a in little)

    def fill(self, out: SealedWriter, progress: Progress = lambda count: None) -> None:
        """The same bytes, many rows at once: a row of each array beside that of the next in one copy, and a
        single array as it lies."""
        sizes = [np.dtype(f.dtype).itemsize * prod(f.shape) for f in self.fields]
        ends = list(accumulate(sizes))
        most = max(1, _CHUNK // max(1, ends[-1]))
        rows = np.empty((min(most, self.count), ends[-1]), np.uint8)
        for first in range(0, self.count, most):
            last = min(first + most, self.count)
            columns = [
                np.ascontiguousarray(a[first:last].astype(f.dtype, copy=False)).reshape(last - first, -1)
                for a, f in zip(self._arrays.values(), self.fields, strict=True)
            ]
            if len(columns) == 1:
                out.add_rows(columns[0])
            else:
                for column, size, end in zip(columns, sizes, ends, strict=True):
                    rows[: last - first, end - size : end] = column.view(np.uint8)
                out.add_rows(rows[: last - first])
            progress(last)
        progress(self.count)


@final
class Table(Source):
    """Rows with named columns, numbers where a whole column reads as numbers."""

    kind: Kind = "table"

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.fields = tuple(Field(name) for name in columns)
        self.count = len(next(iter(columns.values()), []))

    def records(self) -> Iterator[tuple[bytes | memoryview, ...]]:
        for row in zip(*self._columns.values(), strict=True):
            yield (_pack(row),)


@final
class Files(Source):
    """Files by relative path; images with the number of their class."""

    def __init__(self, root: Path, paths: list[Path], classes: tuple[str, ...] | None = None) -> None:
        self.kind: Kind = "files" if classes is None else "images"
        self._root = root
        self._paths = paths
        self._classes = classes
        self.fields = tuple(Field(name) for name in classes or ())
        self.count = len(paths)

    def records(self) -> Iterator[tuple[bytes | memoryview, ...]]:
        for path in self._paths:
            name = path.relative_to(self._root).as_posix()
            label = None if self._classes is None else self._classes.index(path.parent.name)
            try:
                yield (_pack((name, label, path.read_bytes())),)
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror})") from error


@final
class Tensors(Source):
    """Named tensors of a safetensors file, bytes as they are there."""

    kind: Kind = "tensors"

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        if sys.byteorder != "little":
            raise UnsupportedError("tensors are sealed as little-endian", "seal them on another machine")
        self._tensors = tensors
        self.fields = tuple(Field(n, tensor_dtype(t), tuple(t.shape)) for n, t in tensors.items())
        self.count = len(tensors)

    def records(self) -> Iterator[tuple[bytes | memoryview, ...]]:
        for t in self._tensors.values():
            yield (t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),)


def tensor_dtype(t: Tensor) -> str:
    """NumPy's name of the dtype, or bfloat16, which it has none for."""
    return "bfloat16" if t.dtype == torch.bfloat16 else str(torch.empty(0, dtype=t.dtype).numpy().dtype.str)


def source(path: Path) -> Source:
    """Raises DataError for what cannot be read, UsageError for what is not understood."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    try:
        match path.suffix.lower():
            case ".npy":
                return Arrays({path.stem: np.load(path, mmap_mode="r", allow_pickle=False)})
            case ".npz":
                with np.load(path, allow_pickle=False) as found:
                    return Arrays({name: found[name] for name in found.files})
            case ".csv":
                return _csv(path)
            case ".parquet":
                return _parquet(path)
            case ".safetensors":
                return _safetensors(path)
            case _:
                return Files(path.parent, [path])
    except (OSError, ValueError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, UsageError):
            raise
        raise DataError(f"{path} cannot be read as {path.suffix.lower()} ({error})") from error


def _folder(root: Path) -> Source:
    paths = sorted(p for p in root.rglob("*") if p.is_file())
    if not paths:
        raise DataError(f"{root} holds no file")
    if all(p.suffix.lower() in IMAGES and p.parent.parent == root for p in paths):
        return Files(root, paths, tuple(sorted({p.parent.name for p in paths})))
    return Files(root, paths)


def _csv(path: Path) -> Source:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        names = next(rows, [])
        if not names or len(set(names)) < len(names):
            raise UsageError(f"{path}: the first line names the columns, each once")
        columns: list[list[Any]] = [[] for _ in names]
        for number, row in enumerate(rows, 2):
            if len(row) != len(names):
                raise UsageError(f"{path}, line {number}: {len(row)} cells, there are {len(names)} columns")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    return Table({name: _numbers(column) for name, column in zip(names, columns, strict=True)})


def _numbers(column: list[str]) -> list[Any]:
    """Numbers where nothing of the text is lost but its form: 007 is no number, and neither is nan."""
    if all(_INTEGER.fullmatch(cell) for cell in column):
        return [int(cell) for cell in column]
    if all(_REAL.fullmatch(cell) for cell in column):
        return [float(cell) for cell in column]
    return list(column)


def _parquet(path: Path) -> Source:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found]
    except ImportError:
        raise UnsupportedError(
            "Parquet needs the package pyarrow", "install pyarrow, or save the table as CSV"
        ) from None
    table = parquet.read_table(path)
    return Table({name: table.column(name).to_pylist() for name in table.column_names})


def _safetensors(path: Path) -> Source:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UnsupportedError("this needs the package safetensors", "install safetensors") from None
    return Tensors(load_file(path))


__all__ = ["IMAGES", "Arrays", "Files", "Source", "Table", "Tensors", "source"]
