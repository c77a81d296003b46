"""How others look at a session: counters as text and as figures, timelines, watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import final

from tempo.errors import UsageError
from tempo.fleet import Fleet
from tempo.report.metrics import exposition
from tempo.sharing import Owners
from tempo.stats import Stats
from tempo.trace import Trace, ready_to_save, recording
from tempo.watch.figures import Figures
from tempo.watch.settings import WatchSettings
from tempo.watch.steps import Steps
from tempo.watch.watch import Watch


@final
class View:
    """Of one session's counters and fleet. Thread-safe but for `trace`, of which there is one at a time."""

    def __init__(self, stats: Stats, fleet: Fleet | Owners) -> None:
        self._stats = stats
        self._fleet = fleet
        self._tracing = False
        self._watches: list[Watch] = []
        self._ending = ExitStack()

    def metrics(self) -> str:
        return exposition(self._stats.counts, self._stats.seconds, self._fleet.stats, self._fleet.width)

    def figures(self) -> Figures:
        return Figures.of(self._stats, self._fleet.stats, self._fleet.width)

    @contextmanager
    def trace(self, path: str | Path) -> Iterator[Trace]:
        """Raises UsageError before anything is recorded, OutsideError where it cannot be saved."""
        ready_to_save(path)
        if self._tracing:
            raise UsageError("a trace of this session is being recorded already: end it first")
        self._tracing = True
        trace = Trace()
        try:
            with recording(trace, self._stats.watch, self._fleet.watch):
                yield trace
        finally:
            self._tracing = False
            trace.save(path)

    def watch(self, settings: WatchSettings) -> Watch:
        watch = Watch(settings, self)
        self._ending.callback(watch.close)
        if not self._watches:
            self._ending.callback(Steps(self._stepped).close)
        self._watches.append(watch)
        return watch

    def _stepped(self) -> None:
        """A step counts once, however many watch; those before a checkpoint that was gone on from, too."""
        self._stats.add("steps")
        number, now = self._stats.count("steps"), self.figures()
        for watch in self._watches:
            watch.stepped(number, now)

    def close(self) -> None:
        """All watches end, the latest first."""
        self._ending.close()
