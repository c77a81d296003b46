"""A watch: hears of each step and tells those that show or write it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol, final

from tempo.errors import TempoError
from tempo.report.log import log_line
from tempo.trace import Trace
from tempo.watch.figures import Figures
from tempo.watch.settings import WatchSettings


class Seen(Protocol):
    """What a watch sees of a session: no operand, no parameter, no key."""

    def metrics(self) -> str: ...

    def figures(self) -> Figures: ...

    def trace(self, path: str | Path) -> AbstractContextManager[Trace]: ...


class Teller(ABC):
    """Abstract: shows or writes what a step did."""

    @abstractmethod
    def step(self, number: int, now: Figures) -> None:
        """Step `number` is done. Raises TempoError or OSError where it cannot be told."""

    @abstractmethod
    def close(self) -> None: ...


@final
class Watch:
    """Until closed. A teller that fails is taken out and the log says so: training goes on."""

    def __init__(self, settings: WatchSettings, seen: Seen) -> None:
        from tempo.watch.tellers import serve, tellers

        with ExitStack() as undo:  # what was begun ends where something else cannot be
            self._tellers: list[Teller] = tellers(settings, seen, undo)
            served = serve(settings, seen, undo)
            self._ending = undo.pop_all()
        #: Where Prometheus is answered, None where nobody is.
        self.address: str | None = None if served is None else served.address

    def stepped(self, number: int, now: Figures) -> None:
        """Step `number` is done, and so the session stands."""
        for teller in list(self._tellers):
            try:
                teller.step(number, now)
            except (TempoError, OSError) as error:
                self._tellers.remove(teller)
                say_ended(type(teller).__name__, error)

    def close(self) -> None:
        """May be called again."""
        self._ending.close()


def say_ended(name: str, error: Exception) -> None:
    """In the log: what shows or writes no more, and why."""
    what = name.lower()
    fields = {"what": what, "detail": str(error)}
    log_line(logging.WARNING, "watch_ended", f"{what} tells no more: {error}", fields)
