"""Suite `seal`: sealed data against AES-GCM alone, plain files and a memcpy, in turns in one run.

    seal, open      AES-256-GCM of `tempo.trust.sealed`'s segments, from memory to memory
        streamed    each segment once: the volume goes through memory, as that of a file must. The baseline
        cached      one segment again and again: it never leaves the core's cache, and no file can be read so
    read, write     plain files through the page cache; written to the page cache, and to the disk (fsync)
    sealed          the same bytes through SealedWriter and SealedFile, by size of a record
    loader          a DataLoader over SealedDataset: see seal_loader.py

Rates and shares are of the fastest run of each, since other tenants only ever add time:
share = plain bytes per second / those of the baseline.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from tempo.bench.result import SEAL_FIELDS, Result
from tempo.bench.seal_alone import Case, aes_alone, plain_file
from tempo.bench.seal_loader import loaders
from tempo.bench.timing import Repeats, Spread, Work, interleaved
from tempo.data.dataset import Memory
from tempo.errors import DataError
from tempo.trust.sealed import DataKey, SealedFile, SealedWriter
from tempo.trust.sealed.format import Field
from tempo.trust.sealed.sources import Arrays

Say = Callable[[str], None]

_SEED: Final = 20261123
_REPEATS: Final = Repeats(least=3, most=5, seconds=60.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """volume: plain bytes of every figure; more than the caches. records: sizes in bytes. shuffled: records
    read in random order, at most. workers: of the loaders."""

    volume: int = 256 << 20
    records: tuple[int, ...] = (3 << 10, 64 << 10, 1 << 20, 16 << 20)
    shuffled: int = 4096
    workers: tuple[int, ...] = (0, 2)
    repeats: Repeats = _REPEATS


FAST: Final = Settings(volume=32 << 20, records=(3 << 10, 1 << 20), shuffled=512, repeats=Repeats(1, 1, 0.0))


def run(settings: Settings, say: Say = print) -> Result:
    """Files are in the system's folder for temporary ones (TMPDIR), and are removed. Raises DataError where
    they cannot be written."""
    result = Result("seal", SEAL_FIELDS)
    result.note(
        "GB is 1e9 plain bytes; AES-GCM streamed is the baseline, since a file's bytes cross memory once"
    )
    result.note(
        "cpu_seconds: of this process, fastest run; without its loader's workers, and without waiting"
    )
    result.note("seconds are medians; rates and shares are of the fastest run of each work")
    result.note(
        "written: in the page cache. durable: on the disk, by fsync; as every sealed file is in the end"
    )
    result.note("shuffled records open a segment of 64 KiB each, unless it is kept: `keep` of SealedDataset")
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tempo-bench-seal-")))
            cases = dict(_cases(settings, folder, stack, say))
        except OSError as error:
            raise DataError(f"the bench's files cannot be written ({error.strerror})") from error
        say(f"seal: {len(cases)} works in turns, {settings.volume >> 20} MiB each")
        cpu: dict[str, list[float]] = {name: [] for name in cases}
        works = {name: _counted(case.work, cpu[name]) for name, case in cases.items()}
        before = {name: case.prepare for name, case in cases.items() if case.prepare is not None}
        taken = interleaved(works, settings.repeats, prepare=before)
    for case, spread in zip(cases.values(), taken.values(), strict=True):
        _add(result, settings, case, spread, cases, taken)
    for row, (name, case) in zip(result.rows, cases.items(), strict=True):
        row["cpu_seconds"] = max(min(cpu[name]), 1e-9)  # the clock has steps
        if case.aes is not None:
            base = cases[f"{case.aes} streamed"]
            alone = min(cpu[f"{case.aes} streamed"]) / (base.volume or settings.volume)
            row["cpu_share_of_aes_gcm"] = alone * row["bytes"] / row["cpu_seconds"]
    return result


def _counted(work: Work, seconds: list[float]) -> Work:
    """Notes the processor's seconds of each run, of this process: what other tenants take is not in them."""

    def run() -> None:
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)

    return run


def _add(
    result: Result,
    settings: Settings,
    case: Case,
    spread: Spread,
    cases: dict[str, Case],
    taken: dict[str, Spread],
) -> None:
    volume = case.volume or settings.volume
    rate = volume / spread.low

    def share(name: str | None) -> float | None:
        return None if name is None else rate * taken[name].low / (cases[name].volume or settings.volume)

    result.add(
        op=case.op,
        how=case.how,
        record_bytes=case.record,
        bytes=volume,
        seconds=spread.median,
        gb_per_second=rate / 1e9,
        share_of_aes_gcm=share(case.aes and f"{case.aes} streamed"),
        share_of_cached_aes_gcm=share(case.aes and f"{case.aes} cached"),
        share_of_plain=share(case.plain),
        records_per_second=None if case.record is None else volume / case.record / spread.low,
        seconds_min=spread.low,
        seconds_max=spread.high,
        repeats=spread.count,
    )


def _cases(settings: Settings, folder: Path, stack: ExitStack, say: Say) -> Iterator[tuple[str, Case]]:
    plain = np.random.default_rng(_SEED).integers(0, 256, settings.volume, np.uint8)
    touched = np.zeros_like(plain)
    yield "memcpy", Case(lambda: np.copyto(touched, plain), "memcpy", "")
    yield from aes_alone(plain.data, touched.data)
    yield from plain_file(folder, plain.data)
    key = DataKey.generate()
    for size in settings.records:
        say(f"seal: a file with records of {size} bytes")
        yield from _sealed(settings, folder, stack, key, plain, size)


def _sealed(
    settings: Settings, folder: Path, stack: ExitStack, key: DataKey, array: Any, size: int
) -> Iterator[tuple[str, Case]]:
    count = settings.volume // size
    rows = array[: count * size].reshape(count, size)
    kept, path = folder / f"{size}.tempo", folder / "new.tempo"
    writers: list[SealedWriter] = []
    source = Arrays({"x": rows})

    def start(where: Path) -> SealedWriter:
        return SealedWriter(where, key, kind="arrays", name="bench", fields=(Field("x", "|u1", (size,)),))

    def fill(out: SealedWriter) -> None:
        for row in rows:
            out.add(row.data)

    def prepare() -> None:
        while writers:
            writers.pop().discard()
        path.unlink(missing_ok=True)

    def write() -> None:
        writers.append(start(path))
        fill(writers[-1])

    def bulk() -> None:
        writers.append(start(path))
        source.fill(writers[-1])

    def durable() -> None:
        with start(path) as out:
            fill(out)

    with start(kept) as out:
        fill(out)
    file = stack.enter_context(SealedFile(kept, key, allocate=Memory().allocate))
    order = random.Random(_SEED).sample(range(count), min(count, settings.shuffled))  # noqa: S311 (an order)

    def read(numbers: Any) -> None:
        for number in numbers:
            file.record(number)

    volume, sealed = count * size, f"{size} "
    of: dict[str, Any] = {"record": size, "volume": volume}
    yield (
        sealed + "write",
        Case(write, "sealed write", "written", aes="seal", plain="write", prepare=prepare, **of),
    )
    if size == settings.records[0]:
        yield (
            sealed + "rows",
            Case(bulk, "sealed write", "rows at once", aes="seal", plain="write", prepare=prepare, **of),
        )
    yield (
        sealed + "durable",
        Case(durable, "sealed write", "durable", aes="seal", plain="durable", prepare=prepare, **of),
    )
    yield sealed + "verify", Case(file.verify, "sealed read", "verify", aes="open", plain="read", **of)
    yield (
        sealed + "read",
        Case(lambda: read(range(count)), "sealed read", "in order", aes="open", plain="read", **of),
    )
    of["volume"] = len(order) * size
    yield (
        sealed + "shuffled",
        Case(lambda: read(order), "sealed read", "shuffled", aes="open", plain="read", **of),
    )
    of["volume"] = volume
    if size == settings.records[0]:
        yield from loaders(settings.workers, stack, key, kept, settings.volume)
