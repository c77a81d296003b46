"""The demo's workers: real processes, one of which lies, behind a count of the answers that each gave."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import final

from torch import nn

from tempo.fleet import ProcessWorker, Worker
from tempo.ops import AnyJob, Unverified
from tempo.worker import Lie


@final
class Witnessed(Worker):
    """A worker process, and how many jobs it answered: tells how many lies it had occasion for."""

    def __init__(self, name: str, threads: int, lie: Lie | None = None) -> None:
        self.name = name
        self.answered = 0
        self._lie = lie
        self._process = ProcessWorker(name, threads=threads, unsafe_lie=lie)

    @property
    def lies_told(self) -> int:
        if self._lie is None:
            return 0
        return min(max(0, self.answered - self._lie.first), self._lie.count)

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        os.kill(self._process.pid, signal.SIGKILL)

    def connect(self) -> None:
        self._process.connect()

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        reply = self._process.run(job, ship, deadline)
        self.answered += 1
        return reply

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._process.release(ids, deadline)

    def close(self) -> None:
        self._process.close()

    @property
    def bytes_sent(self) -> int:
        return self._process.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._process.bytes_received


@final
class Killer:
    """A forward hook: kills `victim` when the forward pass of step `at` is done, before its backward."""

    def __init__(self, victim: Witnessed, at: int) -> None:
        self._victim = victim
        self._at = at
        self.step = 0
        self.done = False

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        if module.training and self.step == self._at and not self.done:
            self.done = True
            self._victim.kill()
