"""Reads a sealed file at random, record by record: only the segments that a record lies in are opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import numpy as np
from numpy.typing import NDArray

from tempo.errors import DataError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.sealed.format import (
    END,
    HEAD,
    MAX_MANIFEST,
    OFFSET,
    VERSION,
    Manifest,
    header_length,
    unpack_header,
    unpack_manifest,
)
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.plain import PlainStream
from tempo.trust.sealed.stream import SEGMENT, Segments

#: Default of `keep`: batches of neighbours.
KEEP: Final = 4 << 20
#: Entries of the index that are decoded at once, 64 KiB of them, and how many such blocks stay (16 MiB).
_BLOCK: Final = 8192
_BLOCKS: Final = 256

#: Memory for so many bytes, the caller's own and writable; contents do not matter.
Allocate = Callable[[int], memoryview]


def fresh(length: int) -> memoryview:
    """From the system, each time anew."""
    return np.empty(length, np.uint8).data


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """What the reader knows of the file beforehand. name: it was sealed under. at_least: its sequence; a
    smaller one is an older file in its place."""

    name: str | None = None
    at_least: int = 0


@final
class SealedFile(Hidden):
    """Opened; the end of the file is verified, the rest when it is read. `verify` reads all of it.

    keep: bytes of opened segments that stay in memory; with as many as the file has, each is opened once.
    allocate: memory for records. One thread at a time; a forked DataLoader worker may use its copy, since
    reading moves no file position.
    Raises UsageError for the wrong key, TamperedError for what was altered, cut, or taken back, DataError
    where it cannot be read.
    """

    def __init__(
        self,
        path: Path,
        key: DataKey | OwnerKey,
        expected: Expected | None = None,
        *,
        keep: int = KEEP,
        allocate: Allocate = fresh,
    ) -> None:
        if keep < 0:
            raise UsageError(f"bytes that are kept are none or more, not {keep}")
        self._path = path
        self._allocate = allocate
        self._ends: dict[int, NDArray[np.int64]] = {}
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        try:
            self._plain = self._opened(fd, key, keep)
            self.manifest = self._read_manifest()
            if self.manifest.records * OFFSET > self._index_end:
                raise TamperedError(f"{self._path}: its index does not fit it")
            self._index = self._index_end - self.manifest.records * OFFSET
            self._expect(expected or Expected())
        except BaseException:
            os.close(fd)
            raise

    def _opened(self, fd: int, key: DataKey | OwnerKey, keep: int) -> PlainStream:
        head = self._pread(fd, HEAD, 0)
        try:
            length = header_length(head)
        except UsageError as error:
            raise UsageError(f"{self._path}: {error}") from error
        body = self._pread(fd, length, HEAD)
        header = unpack_header(body)
        if header.key != key.name:
            raise UsageError(f"{self._path} is sealed under the key {header.key}; this is the key {key.name}")
        if header.wrapped is not None and isinstance(key, OwnerKey):
            inner = key.unwrap(header.wrapped)
        elif header.wrapped is None and isinstance(key, DataKey):
            inner = key
        else:
            raise TamperedError(f"the header of {self._path} is damaged")
        segments = Segments(inner, header.salt, head + body)
        start = HEAD + length
        return PlainStream(self._path, fd, segments, start, os.fstat(fd).st_size - start, keep)

    def _read_manifest(self) -> Manifest:
        if self._plain.length < END:
            raise TamperedError(f"{self._path} was cut: it has no manifest")
        tail = self.read(self._plain.length - END, END)
        if int.from_bytes(tail[4:], "big") != VERSION:
            raise TamperedError(f"{self._path}: its end is not of its version")
        length = int.from_bytes(tail[:4], "big")
        self._index_end = self._plain.length - END - length
        if length > MAX_MANIFEST or self._index_end < 0:
            raise TamperedError(f"{self._path}: its manifest does not fit it")
        return unpack_manifest(self.read(self._index_end, length))

    def _expect(self, expected: Expected) -> None:
        found = self.manifest
        if expected.name is not None and found.name != expected.name:
            raise TamperedError(
                f"{self._path} holds {found.name!r}, expected {expected.name!r}: it was exchanged"
            )
        if found.sequence < expected.at_least:
            raise TamperedError(
                f"{self._path} is version {found.sequence} of {found.name!r}, version {expected.at_least} is "
                f"known to exist: it was taken back to an older state"
            )

    def __len__(self) -> int:
        return self.manifest.records

    def record(self, number: int) -> memoryview:
        """Memory of the caller's own. Raises IndexError, TamperedError."""
        if not 0 <= number < self.manifest.records:
            raise IndexError(f"record {number} of {len(self)}")
        block, at = divmod(number, _BLOCK)
        ends = self._ends.get(block)
        if ends is None:
            ends = self._read_ends(block)
        start, end = int(ends[at]), int(ends[at + 1])
        if not 0 <= start <= end <= self._index:
            raise TamperedError(f"{self._path}: the index of record {number} does not fit the file")
        segment, skip = divmod(start, SEGMENT)
        if end - start <= SEGMENT - skip and end - start < SEGMENT:
            return memoryview(bytearray(self._plain.segment(segment)[skip : skip + end - start]))
        return self.read(start, end - start)

    def read(self, start: int, length: int) -> memoryview:
        """Plain bytes of the stream, in memory of the caller's own. Raises TamperedError."""
        out = self._allocate(length)
        self._plain.read_into(start, out)
        return out

    def verify(self) -> None:
        """Read everything once. Raises TamperedError."""
        self._plain.verify()

    def close(self) -> None:
        """May be called again."""
        self._plain.close()
        self._ends.clear()

    def _read_ends(self, block: int) -> NDArray[np.int64]:
        """Where the records of a block end, the end of the one before first: entries _BLOCK * block - 1 and
        those that follow."""
        first = block * _BLOCK
        last = min(first + _BLOCK, self.manifest.records)
        before = min(first, 1)
        raw = self.read(self._index + (first - before) * OFFSET, (last - first + before) * OFFSET)
        # An end beyond 2^63 turns negative, which no record may have.
        found = np.frombuffer(raw, ">u8").astype(np.uint64).view(np.int64)
        ends = found if before else np.concatenate([np.zeros(1, np.int64), found])
        if len(self._ends) >= _BLOCKS:
            self._ends.pop(next(iter(self._ends)))
        self._ends[block] = ends
        return ends

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pread(self, fd: int, length: int, at: int) -> bytes:
        try:
            return os.pread(fd, length, at)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read ({error.strerror})") from error
