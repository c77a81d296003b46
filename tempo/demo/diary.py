"""Who is told what happens in the demo, and the notes that are taken after each step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Protocol, final

from tempo.fleet import EventKind

if TYPE_CHECKING:
    from tempo.report import Report


class Watcher(Protocol):
    """Told what happens. All of it is for people."""

    def say(self, text: str) -> None: ...
    def begin(self, phase: str, steps: int) -> None: ...
    def step(self, step: int, loss: float) -> None: ...
    def end(self) -> None: ...


@final
class Diary:
    """Reads the session's report after each step: what was encoded, what happened."""

    def __init__(self, report: Callable[[], Report], watcher: Watcher) -> None:
        self._report = report
        self._watcher = watcher
        self._seen = 0
        self._encoded = [(0, 0)]
        self.lie_steps: list[int] = []

    def after(self, step: int) -> None:
        report = self._report()
        self._encoded.append((report.encodings, report.encodings_without_key_shift))
        for event in report.events[self._seen :]:
            if event.kind is EventKind.CHECK_FAILED and step not in self.lie_steps:
                self.lie_steps.append(step)
            if event.kind is not EventKind.RETRIED:
                self._watcher.say(f"step {step}: {event.worker}: {event.kind.value}: {event.detail}")
        self._seen = len(report.events)

    def per_step(self, which: int) -> float:
        """The median: a step with a retry encodes again."""
        counts = [pair[which] for pair in self._encoded]
        return float(median([after - before for before, after in pairwise(counts)]))
