"""The master's own work, measured as if its workers sat elsewhere.

Local workers compute on the master's cores. While they do, a pass of the master takes twice its time, and
no figure says what it would take beside a GPU. So the worker processes are stopped (SIGSTOP) whenever the
master is at work and go on when it waits. They compute every reply, and every reply is checked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, final

from tempo.stats import Stats

#: The part of a session's time in which the master only waits.
WAIT: Final = "wait"


def waited(seconds: dict[str, float]) -> float:
    """Seconds in which the master did nothing but wait for workers, from a report's seconds by part."""
    return seconds.get(WAIT, 0.0)


@final
class Hush:
    """Stops these processes while any part of the master's work is under way. Thread-safe."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._lock = threading.Lock()
        self._active = 0

    def __call__(self, part: str, begins: bool) -> None:
        if part == WAIT:
            return
        with self._lock:
            before = self._active
            self._active += 1 if begins else -1
            if (before == 0) != (self._active == 0):
                self._send(signal.SIGSTOP if self._active else signal.SIGCONT)

    def release(self) -> None:
        """They go on, whatever happened."""
        self._send(signal.SIGCONT)

    def _send(self, what: signal.Signals) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)


@contextmanager
def quiet(stats: Stats, pids: Sequence[int]) -> Iterator[None]:
    """Inside, workers are still while the master works. With no pids nothing is done."""
    if not pids:
        yield
        return
    hush = Hush(pids)
    stats.watch(hush)
    try:
        yield
    finally:
        stats.watch(None)
        hush.release()
