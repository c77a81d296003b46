"""What a session counts: encodings, checks, seconds by part. Thread-safe, no secret in it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

#: Told the name of a part when it begins (True) and ends (False), in the thread that does it.
Watcher = Callable[[str, bool], None]


@final
class Stats:
    """Counters by name and seconds by part of the master's work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._earlier: tuple[Mapping[str, int], Mapping[str, float]] = {}, {}
        self._watcher: Watcher | None = None

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def watch(self, watcher: Watcher | None) -> None:
        """From now on tell `watcher` of every part, for timelines and benchmarks; None: nobody."""
        self._watcher = watcher

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Seconds spent inside, less those of parts timed within it."""
        inner = self._local.__dict__.setdefault("inner", [])
        depth = len(inner)
        watcher = self._watcher  # the same one hears of the end
        start = time.perf_counter()
        try:
            inner.append(0.0)  # inside: an interrupt must not leave it for the part around us to pop
            if watcher is not None:
                watcher(part, True)
            start = time.perf_counter()
            yield
        finally:
            took = time.perf_counter() - start
            own = took - sum(inner[depth:])
            del inner[depth:]
            if inner:
                inner[-1] += took
            with self._lock:
                self._seconds[part] += own
            if watcher is not None:
                watcher(part, False)

    def count(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    @property
    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def go_on_from(self, counts: Mapping[str, int], seconds: Mapping[str, float]) -> None:
        """Add what an earlier run of the same work counted, in the place of what was added so before."""
        with self._lock:
            for kept, before, now in zip(
                (self._counts, self._seconds), self._earlier, (counts, seconds), strict=True
            ):
                kept.subtract(before)
                kept.update(now)
            self._earlier = dict(counts), dict(seconds)

    @property
    def seconds(self) -> dict[str, float]:
        with self._lock:
            return dict(self._seconds)
