"""A timeline of one step, recorded from the end of the step before it to its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import final

from tempo.errors import TempoError
from tempo.trace import Trace, ready_to_save
from tempo.watch.figures import Figures
from tempo.watch.watch import Teller, say_ended


@final
class OneStep(Teller):
    """Step `which` counts from 1, where this begins. Raises UsageError for a path of no timeline."""

    def __init__(
        self,
        path: str | Path,
        which: int,
        trace: Callable[[str | Path], AbstractContextManager[Trace]],
    ) -> None:
        self._path = ready_to_save(path)
        self._which = which
        self._trace = trace
        self._done = 0
        self._recording = ExitStack()
        self._begin()

    def step(self, number: int, now: Figures) -> None:
        self._done += 1
        if self._done <= self._which:
            self._recording.close()
            self._begin()

    def close(self) -> None:
        """What was recorded of a step that never ended is saved all the same."""
        try:
            self._recording.close()
        except (TempoError, OSError) as error:  # the session is ending: what it did matters more
            say_ended(type(self).__name__, error)

    def _begin(self) -> None:
        if self._done == self._which - 1:
            trace = self._recording.enter_context(self._trace(self._path))
            trace.title = f"step {self._which}"
