"""Reads a sealed file at random, by record or by batch: only the segments that they lie in are opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
from tempo.trust.sealed.index import Index
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.plain import PlainStream
from tempo.trust.sealed.stream import SEGMENT, Segments

#: Default of `keep`: batches of neighbours.
KEEP: Final = 4 << 20
#: A row up to this is gathered with others in one step; larger ones one by one.
_SMALL: Final = SEGMENT // 2

#: Memory for so many bytes, the caller's own and writable; contents do not matter.
Allocate = Callable[[int], memoryview]


def fresh(length: int) -> memoryview:
    """From the system, each time anew."""
    return np.empty(length, np.uint8).data


def _whole(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Of records. Raises UsageError for what would be cut to a number (1.7), or is a mask."""
    found = np.array(numbers).reshape(-1)
    if len(found) and found.dtype.kind not in "iu":
        raise UsageError(
            f"numbers of records are whole and less than 2^63, not {found.dtype}: {found[0]!r}, ..."
        )
    return found.astype(np.int64, copy=False)


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
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        try:
            self._plain = self._opened(fd, key, keep)
            self.manifest = self._read_manifest()
            if self.manifest.records * OFFSET > self._index_end:
                raise TamperedError(f"{self._path}: its index does not fit it")
            self._records_end = self._index_end - self.manifest.records * OFFSET
            self._index = Index(self.read, self._records_end, self.manifest.records)
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

    @property
    def keep(self) -> int:
        """Bytes of opened segments that stay in memory, at most."""
        return self._plain.keep

    @property
    def records_length(self) -> int:
        """Plain bytes of all records together."""
        return self._records_end

    def record(self, number: int) -> memoryview:
        """Memory of the caller's own. Raises IndexError, TamperedError."""
        if not 0 <= number < self.manifest.records:
            raise IndexError(f"record {number} of {len(self)}")
        start, end = self._index.one(number)
        segment, skip = divmod(start, SEGMENT)
        last = skip + end - start
        if last <= SEGMENT and last - skip < SEGMENT:
            return memoryview(bytearray(self._plain.segment(segment)[skip:last]))
        return self.read(start, end - start)

    def records(self, numbers: Sequence[int]) -> list[memoryview]:
        """A batch, in the order asked for, a number that comes twice as two copies. Segments are opened in
        the file's order, each once; small records of one batch share one piece of memory, the caller's own.
        Raises IndexError, TamperedError: nothing is handed out then."""
        wanted = _whole(numbers)
        ordered = np.unique(wanted)
        starts, ends = self._bounds(ordered)
        small = ends - starts < SEGMENT
        memory = self._allocate(int((ends - starts)[small].sum()))
        found: dict[int, memoryview] = {}
        # A run: neighbours in the file, read at once.
        breaks = np.flatnonzero((starts[1:] != ends[:-1]) | ~small[1:] | ~small[:-1]) + 1
        at = 0
        for run in np.split(np.arange(len(ordered)), breaks) if len(ordered) else ():
            first, last = int(run[0]), int(run[-1])
            start, length = int(starts[first]), int(ends[last] - starts[first])
            if small[first]:
                part = memory[at : at + length]
                self._plain.read_into(start, part)
                at += length
            else:
                part = self.read(start, length)
            edges = (ends[run] - start).tolist()
            for number, begin, end in zip(ordered[run].tolist(), [0, *edges], edges, strict=False):
                found[number] = part[begin:end]
        out: list[memoryview] = []
        handed: set[int] = set()
        for number in wanted.tolist():
            out.append(memoryview(bytearray(found[number])) if number in handed else found[number])
            handed.add(number)
        return out

    def rows(self, numbers: Sequence[int], length: int) -> NDArray[np.uint8]:
        """A batch of records of one length, in bytes: [N, length], in the order asked for, memory of the
        caller's own. Segments are opened in the file's order. Raises IndexError, TamperedError: nothing is
        handed out then; UsageError where a record is not of this length."""
        count = len(numbers)
        if not count:
            return np.empty((0, length), np.uint8)
        start = self._neighbours(numbers, length)
        if start is None:
            wanted = _whole(numbers)
            starts, ends = self._bounds(wanted)
            if not (ends - starts == length).all():
                raise UsageError(f"{self._path}: its records are not all of {length} bytes")
            if 0 < length <= _SMALL:
                found = self._plain.gather(starts, length)
                if found is not None:
                    return found
        out = np.frombuffer(self._allocate(count * length), np.uint8).reshape(count, length)
        if start is None:
            for row in np.argsort(starts, kind="stable").tolist():
                self._plain.read_into(int(starts[row]), out[row].data)
        else:
            self._plain.read_into(start, out.reshape(-1).data)
        return out

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
        self._index.clear()

    def _neighbours(self, numbers: Sequence[int], length: int) -> int | None:
        """Where a batch begins that lies in the file as it is asked for; None for any other."""
        first, count = numbers[0], len(numbers)
        inside = first >= 0 and numbers[-1] == first + count - 1 < self.manifest.records
        if not inside or isinstance(first, bool) or list(numbers) != list(range(first, first + count)):
            return None
        return self._index.neighbours(first, count, length)

    def _bounds(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and ends. Raises IndexError, TamperedError."""
        # As an unsigned number, one below zero is beyond all records.
        if len(numbers) and int(numbers.view(np.uint64).max()) >= self.manifest.records:
            outside = (numbers < 0) | (numbers >= self.manifest.records)
            raise IndexError(f"record {numbers[outside][0]} of {len(self)}")
        return self._index.many(numbers)

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
