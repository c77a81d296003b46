"""Where the records of a sealed file lie: its index, read and decoded in blocks, those read last are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.errors import TamperedError
from tempo.trust.sealed.format import OFFSET
from tempo.trust.sealed.ring import NOWHERE, Ring

#: Entries that are decoded at once, 64 KiB of them, and how many such blocks stay (16 MiB).
_BLOCK: Final = 8192
_BLOCKS: Final = 256

Read = Callable[[int, int], memoryview]


@final
class Index:
    """read: plain bytes by start and length. start: of the index in the plain stream, which is where the
    records end. records: how many. Not more than records may be asked for."""

    def __init__(self, read: Read, start: int, records: int) -> None:
        self._read = read
        self._start = start
        self._records = records
        self._kept = Ring(-(-records // _BLOCK), _BLOCKS)
        # Of each block: the end of the record before it, then the ends of its own.
        self._ends = np.empty((self._kept.places, _BLOCK + 1), np.int64)
        self._quick = self._ends.data
        # Of each block: the bytes of its records where they all have as many.
        self._even = [NOWHERE] * self._kept.places

    def one(self, number: int) -> tuple[int, int]:
        """Start and end of a record. Raises TamperedError."""
        block, at = divmod(number, _BLOCK)
        place = self._kept.find(block)
        if place == NOWHERE:
            place = self._load(block)
        return self._quick[place, at], self._quick[place, at + 1]

    def neighbours(self, first: int, count: int, length: int) -> int | None:
        """Where `count` neighbours begin; None where it takes a closer look to know that each has `length`
        bytes. Raises TamperedError."""
        block, at = divmod(first, _BLOCK)
        if at + count > _BLOCK:
            return None
        place = self._kept.find(block)
        if place == NOWHERE:
            place = self._load(block)
        return self._quick[place, at] if self._even[place] == length else None

    def many(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and ends. Raises TamperedError."""
        blocks, at = numbers // _BLOCK, numbers % _BLOCK
        places = self._kept.find_all(blocks)
        if len(numbers) and places.min() == NOWHERE:
            wanted = np.unique(blocks)
            if len(wanted) > self._kept.places:
                half = len(numbers) // 2
                parts = zip(self.many(numbers[:half]), self.many(numbers[half:]), strict=True)
                starts, ends = (np.concatenate(part) for part in parts)
                return starts, ends
            found = self._kept.find_all(wanted)
            pinned = set(found.tolist())
            for block in wanted[found == NOWHERE].tolist():
                pinned.add(self._load(block, pinned))
            places = self._kept.find_all(blocks)
        flat = self._ends.reshape(-1)
        at += places * (_BLOCK + 1)
        return flat[at], flat[at + 1]

    def clear(self) -> None:
        self._kept.clear()

    def _load(self, block: int, pinned: Collection[int] = ()) -> int:
        """Its place. Every record of it lies among the records. Raises TamperedError."""
        first = block * _BLOCK
        last = min(first + _BLOCK, self._records)
        before = min(first, 1)
        raw = self._read(self._start + (first - before) * OFFSET, (last - first + before) * OFFSET)
        place = self._kept.free(pinned)
        row = self._ends[place, : last - first + 1]
        row[0] = 0
        # An end beyond 2^63 turns negative, which no record may have.
        row[1 - before :] = np.frombuffer(raw, ">u8").astype(np.uint64).view(np.int64)
        wrong = np.flatnonzero((row[1:] < row[:-1]) | (row[1:] > self._start) | (row[:-1] < 0))
        if len(wrong):
            raise TamperedError(f"the index of record {first + int(wrong[0])} does not fit the file")
        lengths = row[1:] - row[:-1]
        self._even[place] = int(lengths[0]) if (lengths == lengths[0]).all() else NOWHERE
        self._kept.hold(block, place)
        return place
