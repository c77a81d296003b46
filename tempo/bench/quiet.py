"""The master's own work, measured as if its workers sat elsewhere.

Local workers compute on the master's cores. While they do, a pass of the master takes twice its time, and
no figure says what it would take beside a GPU. So the worker processes are stopped (SIGSTOP) and go on only
while the master waits. They compute every reply, and every reply is checked. A signal costs the master up to
a millisecond, since a worker that goes on takes its core, and one that is to stop keeps it until its next
interrupt: that is waited for and counted, to be taken off. So is waking the team of the passes' threads,
which a master that is never kept waiting finds awake: up to a millisecond on a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import torch

from tempo.kernels import norms
from tempo.stats import Stats

#: The part of a session's time in which the master only waits.
WAIT: Final = "wait"
#: A stopped process that still runs after this has threads that cannot be stopped (in a system call).
_SETTLE_S: Final = 0.05
#: Shape of a matrix that the passes read with all their threads.
_WAKER: Final = (1024, 512)


def waited(seconds: dict[str, float]) -> float:
    """Seconds in which the master did nothing but wait for workers, from a report's seconds by part."""
    return seconds.get(WAIT, 0.0)


@final
class Hush:
    """Lets these processes run only while the master waits and does nothing meanwhile. Thread-safe."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = tuple(pids)
        self._lock = threading.Lock()
        self._working = self._waiting = 0
        self._still = False
        self._waker = torch.ones(_WAKER)
        #: Seconds of signals around waits. Those within one count as waiting.
        self.seconds = 0.0

    def __call__(self, part: str, begins: bool) -> None:
        start = time.perf_counter()
        with self._lock:
            if part == WAIT:
                self._waiting += 1 if begins else -1
            else:
                self._working += 1 if begins else -1
            self._hold(self._working > 0 or self._waiting == 0)
            if part == WAIT:
                self.seconds += time.perf_counter() - start

    def _hold(self, still: bool) -> None:
        if still != self._still:
            self._still = still
            self._send(signal.SIGSTOP if still else signal.SIGCONT)
            if still:
                self._settle()
                norms(self._waker)

    def _settle(self) -> None:
        """Until every thread of theirs has stopped: the first pass after a wait would share its cores with
        them, and the second thread of its team come late."""
        deadline = time.perf_counter() + _SETTLE_S
        while any(_runs(pid) for pid in self._pids) and time.perf_counter() < deadline:
            time.sleep(0)

    def hold(self) -> None:
        """Nothing is waited for yet."""
        with self._lock:
            self._hold(True)

    def release(self) -> None:
        """They go on, whatever happened."""
        self._send(signal.SIGCONT)

    def _send(self, what: signal.Signals) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)


def _runs(pid: int) -> bool:
    """Whether a thread of this process is not stopped (proc(5): its state, behind the name in brackets)."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            stat = Path(f"/proc/{pid}/task/{thread}/stat").read_bytes()
            if stat.rpartition(b")")[2].split(maxsplit=1)[0] not in b"TtZX":
                return True
    return False


@contextmanager
def quiet(stats: Stats, pids: Sequence[int]) -> Iterator[Hush]:
    """Inside, workers are still but while the master waits. With no pids nothing is done."""
    hush = Hush(pids)
    if not pids:
        yield hush
        return
    stats.watch(hush)
    try:
        hush.hold()
        yield hush
    finally:
        stats.watch(None)
        hush.release()
