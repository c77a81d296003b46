"""Reads a sealed file at random, record by record: only the segments that a record lies in are opened."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import numpy as np

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
from tempo.trust.sealed.stream import SEGMENT, TAG, Segments

#: Opened segments that are kept, 4 MiB: batches of neighbours, and the index.
_KEPT: Final = 64


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

    One thread at a time; a forked DataLoader worker may use its copy, since reading moves no file position.
    Raises UsageError for the wrong key, TamperedError for what was altered, cut, or taken back, DataError
    where it cannot be read.
    """

    def __init__(self, path: Path, key: DataKey | OwnerKey, expected: Expected | None = None) -> None:
        self._path = path
        self._sealed = bytearray(SEGMENT + TAG)
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        try:
            self._fd: int | None = os.open(path, os.O_RDONLY)
        except OSError as error:
            self._fd = None
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        try:
            self._open(key, expected or Expected())
        except BaseException:
            self.close()
            raise

    def _open(self, key: DataKey | OwnerKey, expected: Expected) -> None:
        head = self._pread(HEAD, 0)
        try:
            length = header_length(head)
        except UsageError as error:
            raise UsageError(f"{self._path}: {error}") from error
        body = self._pread(length, HEAD)
        header = unpack_header(body)
        if header.key != key.name:
            raise UsageError(f"{self._path} is sealed under the key {header.key}; this is the key {key.name}")
        if header.wrapped is not None and isinstance(key, OwnerKey):
            inner = key.unwrap(header.wrapped)
        elif header.wrapped is None and isinstance(key, DataKey):
            inner = key
        else:
            raise TamperedError(f"the header of {self._path} is damaged")
        self._segments = Segments(inner, header.salt, head + body)
        self._start = HEAD + length
        size = os.fstat(self._fileno()).st_size - self._start
        self._count = -(-size // (SEGMENT + TAG))
        if self._count < 1 or size - (self._count - 1) * (SEGMENT + TAG) < TAG:
            raise TamperedError(f"{self._path} was cut: it ends within a segment")
        self._length = size - self._count * TAG
        self.manifest = self._read_manifest()
        if self.manifest.records * OFFSET > self._index_end:
            raise TamperedError(f"{self._path}: its index does not fit it")
        self._index = self._index_end - self.manifest.records * OFFSET
        self._expect(expected)

    def _read_manifest(self) -> Manifest:
        if self._length < END:
            raise TamperedError(f"{self._path} was cut: it has no manifest")
        tail = self.read(self._length - END, END)
        if int.from_bytes(tail[4:], "big") != VERSION:
            raise TamperedError(f"{self._path}: its end is not of its version")
        length = int.from_bytes(tail[:4], "big")
        self._index_end = self._length - END - length
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
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        first = max(0, number - 1)
        raw = bytes(self.read(self._index + first * OFFSET, (number - first + 1) * OFFSET))
        end = int.from_bytes(raw[-OFFSET:], "big")
        start = int.from_bytes(raw[:OFFSET], "big") if number else 0
        if not start <= end <= self._index:
            raise TamperedError(f"{self._path}: the index of record {number} does not fit the file")
        return self.read(start, end - start)

    def read(self, start: int, length: int) -> memoryview:
        """Plain bytes of the stream. Segments that are wanted whole are opened where they are wanted.
        Raises TamperedError."""
        out = np.empty(max(length, 0), np.uint8).data.cast("B")
        at = 0
        while at < length:
            number, skip = divmod(start + at, SEGMENT)
            count = min(length - at, SEGMENT - skip)
            if count == SEGMENT and number not in self._kept:
                self._open_segment(number, out[at : at + count])
            else:
                out[at : at + count] = self._segment(number)[skip : skip + count]
            at += count
        return out

    def verify(self) -> None:
        """Read everything once. Raises TamperedError."""
        scratch = memoryview(bytearray(SEGMENT))
        for number in range(self._count):
            self._open_segment(number, scratch)

    def close(self) -> None:
        """May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segment(self, number: int) -> memoryview:
        kept = self._kept.get(number)
        if kept is not None:
            self._kept.move_to_end(number)
            return kept
        oldest = (
            self._kept.popitem(last=False)[1] if len(self._kept) >= _KEPT else memoryview(bytearray(SEGMENT))
        )
        self._open_segment(number, oldest)
        self._kept[number] = oldest
        return oldest

    def _open_segment(self, number: int, out: memoryview) -> None:
        """Into the beginning of `out`."""
        last = number == self._count - 1
        length = (self._length - (self._count - 1) * SEGMENT) if last else SEGMENT
        sealed = memoryview(self._sealed)[: length + TAG]
        try:
            found = os.preadv(self._fileno(), [sealed], self._start + number * (SEGMENT + TAG))
        except OSError as error:
            raise DataError(f"{self._path} cannot be read ({error.strerror})") from error
        if found != len(sealed):
            raise TamperedError(f"{self._path}: segment {number} was cut")
        try:
            self._segments.open_into(number, sealed, out[:length], last=last)
        except TamperedError as error:
            raise TamperedError(f"{self._path}: {error}") from error

    def _pread(self, length: int, at: int) -> bytes:
        try:
            return os.pread(self._fileno(), length, at)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read ({error.strerror})") from error

    def _fileno(self) -> int:
        if self._fd is None:
            raise UsageError(f"{self._path} is closed: open it again")
        return self._fd
