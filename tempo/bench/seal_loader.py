"""What training meets: SealedDataset one by one and in batches, and DataLoaders over it.

one by one       data[i]
batches          data.__getitems__(numbers), 64 items each
loader, items    DataLoader(data, 64): 64 items are made, and put together again
loader, lists    DataLoader(data, batch_size=None, sampler=...): data[numbers], and no item is made
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from tempo.bench.seal_alone import Case
from tempo.bench.timing import Work
from tempo.data import SealedBatchSampler, SealedDataset
from tempo.trust.sealed import DataKey
from tempo.trust.sealed.reader import KEEP
from tempo.trust.sealed.stream import SEGMENT

_SEED: Final = 20261123
_BATCH: Final = 64
_LARGE: Final = 256


def loaders(
    workers: tuple[int, ...], stack: ExitStack, key: DataKey, path: Path, volume: int
) -> Iterator[tuple[str, Case]]:
    """volume: bytes that hold all of the file's records."""

    def opened(keep: int = KEEP) -> SealedDataset:
        data = SealedDataset(path, key, keep=keep)
        stack.callback(data.close)
        return data

    data = opened()
    count = len(data)
    of: dict[str, Any] = {"record": int(data.record_bytes), "volume": round(count * data.record_bytes)}
    of["aes"] = "open"
    ranges = [range(at, min(at + _BATCH, count)) for at in range(0, count, _BATCH)]
    yield "one by one", Case(_each(data, range(count)), "data set", "in order, one by one", **of)
    yield (
        "batches",
        Case(lambda: [data.__getitems__(b) for b in ranges], "data set", "in order, batches", **of),
    )
    for number in workers:
        op = f"loader, {number} workers"
        shared: dict[str, Any] = {
            "num_workers": number,
            "multiprocessing_context": "fork" if number else None,
        }

        def case(how: str, op: str = op, **given: Any) -> tuple[str, Case]:
            return f"{op}, {how}", Case(_loading(DataLoader(**given)), op, how, **of)

        order = BatchSampler(SequentialSampler(data), _BATCH, drop_last=False)
        yield case("in order, items", dataset=data, batch_size=_BATCH, **shared)
        yield case("in order, lists", dataset=data, batch_size=None, sampler=order, **shared)
        for size in (_BATCH, _LARGE):
            blocks = SealedBatchSampler(data, size, workers=number, generator=_seeded())
            named = "shuffled blocks" if size == _BATCH else f"shuffled blocks, batches of {size}"
            yield case(f"{named}, items", dataset=data, batch_sampler=blocks, **shared)
            yield case(f"{named}, lists", dataset=data, batch_size=None, sampler=blocks, **shared)
        for how, keep in (("shuffled", KEEP), ("shuffled, all kept", volume + SEGMENT)):
            loaded = opened(keep)
            yield case(how, dataset=loaded, batch_size=_BATCH, shuffle=True, generator=_seeded(), **shared)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def _each(data: SealedDataset, numbers: Iterable[int]) -> Work:
    def work() -> None:
        for number in numbers:
            data[number]

    return work


def _loading(loader: Any) -> Work:
    def work() -> None:
        for _ in loader:
            pass

    return work
