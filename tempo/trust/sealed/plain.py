"""The plain stream of a sealed file, by offset: segments are read, opened and kept here.

    sealed bytes -> one buffer of BATCH segments, used again and again -> opened where they are wanted

The file is copied before it is opened and never mapped: a mapped page may be the host's (virtiofs DAX), and
AES-GCM may load a byte once for its tag and once to open it. What changes in between would be handed out
unauthenticated.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final, final

from tempo.errors import DataError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.sealed.stream import SEGMENT, TAG, Segments

#: Segments of one read, 256 KiB: few calls, and they are still in the core's cache when they are opened.
BATCH: Final = 4
_WHOLE: Final = SEGMENT + TAG


@final
class PlainStream(Hidden):
    """fd: of the file, whose sealed bytes are `size` from `start`. keep: bytes of opened segments that stay,
    those used last; one segment at least. Raises TamperedError where the size is none of a sealed file."""

    def __init__(self, path: Path, fd: int, segments: Segments, start: int, size: int, keep: int) -> None:
        self._path = path
        self._fd: int | None = fd
        self._segments = segments
        self._start = start
        self._count = -(-size // _WHOLE)
        if self._count < 1 or size - (self._count - 1) * _WHOLE < TAG:
            raise TamperedError(f"{path} was cut: it ends within a segment")
        self._most = max(1, keep // SEGMENT)
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._sealed = memoryview(bytearray(BATCH * _WHOLE))
        #: Plain bytes of the whole stream.
        self.length = size - self._count * TAG

    def read_into(self, start: int, out: memoryview) -> None:
        """Plain bytes from `start`, as many as `out` has; they are in the stream. Segments that are wanted
        whole are opened where they are wanted. Raises TamperedError, and `out` then holds nothing of use."""
        at, length = 0, len(out)
        while at < length:
            number, skip = divmod(start + at, SEGMENT)
            if skip or length - at < SEGMENT or number in self._kept:
                count = min(length - at, SEGMENT - skip)
                out[at : at + count] = self.segment(number)[skip : skip + count]
            else:
                batch = self._run(number, (length - at) // SEGMENT)
                count = batch * SEGMENT
                self._open(number, batch, out[at : at + count])
            at += count

    def segment(self, number: int) -> memoryview:
        """One opened segment, which is kept and belongs to this object. Raises TamperedError."""
        kept = self._kept.get(number)
        if kept is not None:
            self._kept.move_to_end(number)
            return kept
        full = len(self._kept) >= self._most
        memory = self._kept.popitem(last=False)[1] if full else memoryview(bytearray(SEGMENT))
        self._open(number, 1, memory)
        self._kept[number] = memory
        return memory

    def verify(self) -> None:
        """Open everything once. Raises TamperedError."""
        scratch = memoryview(bytearray(BATCH * SEGMENT))
        for number in range(0, self._count, BATCH):
            self._open(number, min(BATCH, self._count - number), scratch)

    def close(self) -> None:
        """May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._kept.clear()

    def _run(self, number: int, most: int) -> int:
        """How many segments from `number` can be read at once: none of them is kept already."""
        most = min(most, BATCH)
        return next((i for i in range(1, most) if number + i in self._kept), most)

    def _open(self, first: int, count: int, out: memoryview) -> None:
        """Segments `first` to `first + count - 1`, to the beginning of `out`."""
        final = first + count == self._count
        length = (self.length - first * SEGMENT) if final else count * SEGMENT
        sealed = self._sealed[: length + count * TAG]
        try:
            found = os.preadv(self._fileno(), [sealed], self._start + first * _WHOLE)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read ({error.strerror})") from error
        if found != len(sealed):
            raise TamperedError(f"{self._path}: segment {first + found // _WHOLE} was cut")
        try:
            for i in range(count):
                last = final and i == count - 1
                part = sealed[i * _WHOLE : (i + 1) * _WHOLE]
                plain = out[i * SEGMENT : min((i + 1) * SEGMENT, length)]
                self._segments.open_into(first + i, part, plain, last=last)
        except TamperedError as error:
            raise TamperedError(f"{self._path}: {error}") from error

    def _fileno(self) -> int:
        if self._fd is None:
            raise UsageError(f"{self._path} is closed: open it again")
        return self._fd
