"""An event that an interrupt cannot jam.

threading.Event waits under a lock that it takes in Python code: an interrupt between taking it and entering
the block leaves it taken, and whoever sets the event then waits for ever. Here one lock is all there is. An
interrupted waiter can only have taken it after it was set, when nobody has to set it any more.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import final


@final
class Latch:
    """Set once; one waiter."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()  # free: it is set

    def set(self) -> None:
        """May be called again."""
        with suppress(RuntimeError):  # it was set before
            self._lock.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it was set within that time; None waits for ever."""
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            return False
        self.set()
        return True
