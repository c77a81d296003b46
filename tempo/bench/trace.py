"""The timeline of one measured step (tempo/trace.py), for `tempo bench --trace`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from tempo.errors import UsageError
from tempo.fleet import Fleet
from tempo.sharing import Owners
from tempo.stats import Stats
from tempo.trace import Trace, ready_to_save, recording


@final
class Tracer:
    """Records the first step that is offered, and saves it when all is measured. Raises UsageError for a path
    that no timeline goes to."""

    def __init__(self, path: Path) -> None:
        self.path = ready_to_save(path)
        self.trace: Trace | None = None

    @property
    def done(self) -> bool:
        return self.trace is not None

    @contextmanager
    def step(self, title: str, stats: Stats, fleet: Fleet | Owners) -> Iterator[None]:
        """Inside, a step runs. One in which nothing was sent is not kept."""
        trace = Trace()
        trace.title = title
        with recording(trace, stats.watch, fleet.watch):
            yield
        if trace.spans:
            self.trace = trace

    def write(self) -> None:
        """Raises UsageError where no step was traced, OutsideError where the file cannot be written."""
        if self.trace is None:
            raise UsageError(
                "--trace: no step was traced, since no protected step was measured (see skipped): give a "
                "larger --budget, or --fast for small shapes"
            )
        self.trace.save(self.path)
