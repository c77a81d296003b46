"""The plain stream of a sealed file, by offset: segments are read, opened and kept here.

    sealed bytes -> one buffer of BATCH segments, used again and again -> opened where they are wanted

The file is copied before it is opened and never mapped: a mapped page may be the host's (virtiofs DAX), and
AES-GCM may load a byte once for its tag and once to open it. What changes in between would be handed out
unauthenticated.

Opened segments that stay lie in one piece of memory, and many small pieces are taken out of it in one step:

    place of each segment -> offset of each piece in that memory -> gathered
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.errors import DataError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.sealed.ring import NOWHERE, Ring
from tempo.trust.sealed.stream import MAX_SEGMENTS, SEGMENT, TAG, Segments

#: Segments of one read, 256 KiB: few calls, and they are still in the core's cache when they are opened.
BATCH: Final = 4
_WHOLE: Final = SEGMENT + TAG


@final
class PlainStream(Hidden):
    """fd: of the file, whose sealed bytes are `size` from `start`. keep: bytes of opened segments that stay,
    those opened last; one segment at least. Raises TamperedError where the size is none of a sealed file,
    UsageError where there is no memory for what is kept."""

    def __init__(self, path: Path, fd: int, segments: Segments, start: int, size: int, keep: int) -> None:
        self._path = path
        self._fd: int | None = fd
        self._segments = segments
        self._start = start
        self._count = -(-size // _WHOLE)
        if self._count < 1 or size - (self._count - 1) * _WHOLE < TAG:
            raise TamperedError(f"{path} was cut: it ends within a segment")
        if self._count > MAX_SEGMENTS:  # a length costs nothing: files have holes
            raise TamperedError(f"{path} has {size} bytes, more than any sealed file: it was made longer")
        try:  # Pages of both are taken when they are first written.
            self._kept = Ring(self._count, keep // SEGMENT)
            self._memory = np.empty(self._kept.places * SEGMENT, np.uint8)
        except MemoryError:
            raise UsageError(
                f"{path}: there is no memory for {min(keep, self._count * SEGMENT)} bytes of opened segments "
                f"and a table of {self._count}: keep fewer, or the file was made longer"
            ) from None
        self._opened = self._memory.data
        self._sealed = memoryview(bytearray(BATCH * _WHOLE))
        #: Plain bytes of the whole stream.
        self.length = size - self._count * TAG

    def read_into(self, start: int, out: memoryview) -> None:
        """Plain bytes from `start`, as many as `out` has; they are in the stream. Segments that are wanted
        whole are opened where they are wanted. Raises TamperedError, and `out` then holds nothing of use."""
        at, length = 0, len(out)
        while at < length:
            number, skip = divmod(start + at, SEGMENT)
            if skip or length - at < SEGMENT or self._kept.find(number) != NOWHERE:
                count = min(length - at, SEGMENT - skip)
                out[at : at + count] = self.segment(number)[skip : skip + count]
            else:
                batch = self._run(number, (length - at) // SEGMENT)
                count = batch * SEGMENT
                self._open(number, [out[at + i * SEGMENT : at + (i + 1) * SEGMENT] for i in range(batch)])
            at += count

    def gather(self, starts: NDArray[np.int64], length: int) -> NDArray[np.uint8] | None:
        """Plain bytes [N, length] from each of N starts, memory of the caller's own; 0 < length <= SEGMENT.
        None where not all their segments fit among those that stay. Each segment is opened once, in the
        file's order. Raises TamperedError."""
        first = starts // SEGMENT
        last = (starts + (length - 1)) // SEGMENT
        begins, ends = self._kept.find_all(first), self._kept.find_all(last)
        if begins.min() == NOWHERE or ends.min() == NOWHERE:
            if not self._fetch(np.unique(np.concatenate([first, last]))):
                return None
            begins, ends = self._kept.find_all(first), self._kept.find_all(last)
        offsets = begins.astype(np.int64) * SEGMENT
        offsets += starts % SEGMENT
        # Segments that are neighbours in the file mostly are in memory, too.
        apart = np.flatnonzero(ends - begins != last - first)
        offsets[apart] = 0
        # Every offset of the memory as a row of its own, without a copy: one item of `length` bytes.
        rows = np.ndarray(
            (len(self._memory) - length + 1,), np.dtype((np.void, length)), self._opened, 0, (1,)
        )
        found: NDArray[np.uint8] = rows[offsets].view(np.uint8).reshape(len(starts), length)
        for row in apart.tolist():
            self.read_into(int(starts[row]), found[row].data)
        return found

    def segment(self, number: int) -> memoryview:
        """One opened segment, which is kept and belongs to this object. Raises TamperedError."""
        place = self._kept.find(number)
        if place == NOWHERE:
            place = self._kept.free()
            self._open(number, [self._at(place)])
            self._kept.hold(number, place)
        return self._at(place)

    def verify(self) -> None:
        """Open everything once. Raises TamperedError."""
        scratch = memoryview(bytearray(BATCH * SEGMENT))
        outs = [scratch[i * SEGMENT : (i + 1) * SEGMENT] for i in range(BATCH)]
        for number in range(0, self._count, BATCH):
            self._open(number, outs[: self._count - number])

    @property
    def keep(self) -> int:
        """Bytes of opened segments that stay, at most."""
        return self._kept.places * SEGMENT

    def close(self) -> None:
        """May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._kept.clear()

    def _at(self, place: int) -> memoryview:
        return self._opened[place * SEGMENT : (place + 1) * SEGMENT]

    def _fetch(self, numbers: NDArray[np.int64]) -> bool:
        """All of these segments are kept then; False where they are too many. numbers: ascending."""
        if len(numbers) > self._kept.places:
            return False
        found = self._kept.find_all(numbers)
        pinned = set(found.tolist())
        missing: list[int] = numbers[found == NOWHERE].tolist()
        room = self._kept.places - len(numbers)
        at = 0
        while at < len(missing):
            first, end = missing[at], at + 1
            # Read at once what lies close, with what lies between: of a shuffled block it is wanted next.
            while end < len(missing) and missing[end] < first + BATCH:
                between = range(missing[end - 1] + 1, missing[end])
                if len(between) > room or any(self._kept.find(number) != NOWHERE for number in between):
                    break
                room -= len(between)
                end += 1
            places: list[int] = []
            for _ in range(first, missing[end - 1] + 1):
                places.append(self._kept.free(pinned))
                pinned.add(places[-1])
            self._open(first, [self._at(place) for place in places])
            for number, place in enumerate(places, first):
                self._kept.hold(number, place)
            at = end
        return True

    def _run(self, number: int, most: int) -> int:
        """How many segments from `number` can be read at once: none of them is kept already."""
        most = min(most, BATCH)
        return next((i for i in range(1, most) if self._kept.find(number + i) != NOWHERE), most)

    def _open(self, first: int, outs: Sequence[memoryview]) -> None:
        """Segments from `first` on, each to the beginning of its `out`; BATCH of them at most."""
        count = len(outs)
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
            for i, out in enumerate(outs):
                last = final and i == count - 1
                part = sealed[i * _WHOLE : (i + 1) * _WHOLE]
                self._segments.open_into(first + i, part, out[: len(part) - TAG], last=last)
        except TamperedError as error:
            raise TamperedError(f"{self._path}: {error}") from error

    def _fileno(self) -> int:
        if self._fd is None:
            raise UsageError(f"{self._path} is closed: open it again")
        return self._fd
