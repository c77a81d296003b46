"""Shuffled reading at speed: blocks in random order, and a random order within a window of them.

    records        0 1 2 3 | 4 5 6 7 | 8 9 10 11 | ...     blocks of neighbours, about BLOCK bytes
    blocks         shuffled, all of them
    window         so many blocks as the data set keeps opened: their records shuffled together

So each segment is opened about once in an epoch, where an order over all records opens one for each record.
Every record comes once. Two records are in one window by chance of their blocks; neighbours in the file are
always in one. A window as large as the file is a shuffle of everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import torch
from torch import Tensor
from torch.utils.data import Sampler

from tempo.data.dataset import SealedDataset
from tempo.errors import UsageError
from tempo.trust.sealed.stream import SEGMENT

#: Segments of a block: a block begins and ends within a segment, which its neighbour opens again.
BLOCK: Final = 8


@final
class _Windows:
    """Record numbers of each window, shuffled. seed and epoch make the order."""

    def __init__(self, data: SealedDataset, window: int | None, generator: torch.Generator | None) -> None:
        window = data.keep if window is None else window
        if window < 0:
            raise UsageError(f"a window has no bytes or more, not {window}")
        self.count = len(data)
        self._block = max(1, int(BLOCK * SEGMENT / max(data.record_bytes, 1)))
        self._together = max(1, window // ((BLOCK + 1) * SEGMENT))
        self._seed = int(torch.randint(2**62, (), generator=generator))
        self.epoch = 0

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        self.epoch += 1
        blocks = torch.randperm(-(-self.count // self._block), generator=generator)
        within = torch.arange(self._block)
        for window in blocks.split(self._together):
            numbers = (window[:, None] * self._block + within).reshape(-1)
            numbers = numbers[numbers < self.count]
            yield numbers[torch.randperm(len(numbers), generator=generator)]


@final
class SealedSampler(Sampler[int]):
    """DataLoader(data, batch_size=64, sampler=SealedSampler(data))

    Every record once, shuffled by window. window: bytes of records that are shuffled together; as many as the
    data set keeps if nothing is said, and more are opened more than once. generator: gives the seed, once.
    Each pass is another order; `set_epoch` says which comes next.

    For a loader with several workers SealedBatchSampler reads less.
    """

    def __init__(
        self, data: SealedDataset, *, window: int | None = None, generator: torch.Generator | None = None
    ) -> None:
        self._windows = _Windows(data, window, generator)

    def __iter__(self) -> Iterator[int]:
        for numbers in self._windows:
            yield from numbers.tolist()

    def __len__(self) -> int:
        return self._windows.count

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this one: the same seed and epoch make the same order."""
        self._windows.epoch = epoch


@final
class SealedBatchSampler(Sampler[list[int]]):
    """DataLoader(data, num_workers=2, batch_sampler=SealedBatchSampler(data, 64, workers=2))

    As SealedSampler, in batches: every record once. workers: of the loader, whose batches go to one after the
    other. Each worker has windows of its own, so that no two of them open the same segments.
    """

    def __init__(
        self,
        data: SealedDataset,
        batch_size: int,
        *,
        workers: int = 0,
        drop_last: bool = False,
        window: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise UsageError(f"a batch of 1 or more and no workers or more, not {batch_size} and {workers}")
        self._windows = _Windows(data, window, generator)
        self._size = batch_size
        self._streams = max(1, workers)
        self._drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        windows = iter(self._windows)
        waiting: list[list[int]] = [[] for _ in range(self._streams)]
        while True:
            for numbers in waiting:
                while len(numbers) < self._size:
                    more = next(windows, None)
                    if more is None:
                        yield from self._rest(waiting)
                        return
                    numbers += more.tolist()
                batch = numbers[: self._size]
                del numbers[: self._size]
                yield batch

    def _rest(self, waiting: list[list[int]]) -> Iterator[list[int]]:
        """What is left of all streams when there is no further window."""
        left = [number for numbers in waiting for number in numbers]
        for at in range(0, len(left), self._size):
            batch = left[at : at + self._size]
            if len(batch) == self._size or not self._drop_last:
                yield batch

    def __len__(self) -> int:
        if self._drop_last:
            return self._windows.count // self._size
        return -(-self._windows.count // self._size)

    def set_epoch(self, epoch: int) -> None:
        """As `SealedSampler.set_epoch`."""
        self._windows.epoch = epoch
