"""Time: an attack that takes too long is stopped and listed, never waited for and never forgotten."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, final

#: Once it is late, an attack is told again every so many seconds, should it have caught the first word.
_AGAIN_S: Final = 1.0
#: No attack gets less, however little is left.
_LEAST_S: Final = 5.0
#: An attack may take so many times its even share of what is left, since most take less.
_SHARE: Final = 3.0


class OutOfTime(BaseException):
    """Not an Exception, so that an attack's own handlers let it pass."""


@final
class Clock:
    """budget_s: of all attacks together, recordings included. each_s: of one attack on one recording.
    waiting: runs of others that the same time has to do for."""

    def __init__(self, budget_s: float, each_s: float, waiting: int = 0) -> None:
        self._end = time.monotonic() + budget_s
        self._each = each_s
        self._waiting = waiting

    @property
    def each_s(self) -> float:
        return self._each

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def share_s(self, runs_left: int) -> float:
        """What the next of so many runs may take; 0 where nothing is left."""
        left = self.left_s
        if left <= 0:
            return 0.0
        return min(self._each, left, max(_LEAST_S, _SHARE * left / max(1, runs_left + self._waiting)))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block once so many seconds have passed, as soon as Python runs again. Binds on
    the main thread alone, which is where the command line runs attacks; a timer that was running goes on
    afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, late)
    before, _ = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, before - (time.monotonic() - start)))
