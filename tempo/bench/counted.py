"""A worker whose jobs' flops are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import final

from tempo.fleet import Worker
from tempo.ops import AnyJob, Unverified


@final
class Counted(Worker):
    def __init__(self, worker: Worker) -> None:
        self.name = worker.name
        #: Of all jobs so far: multiplications and additions of the products, as they were lowered.
        self.flops = 0
        #: As of the worker: else the session would have one job under way where it could have two.
        self.depth = worker.depth
        self._worker = worker
        self._begun: deque[AnyJob] = deque()

    def connect(self) -> None:
        self._begun.clear()
        self._worker.connect()

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        self._worker.begin(job, ship, deadline)
        self._begun.append(job)

    def ready(self, seconds: float) -> bool:
        return self._worker.ready(seconds)

    def end(self, deadline: float) -> Unverified:
        self.flops += self._begun.popleft().flops
        return self._worker.end(deadline)

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        self.flops += job.flops
        return self._worker.run(job, ship, deadline)

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._worker.release(ids, deadline)

    def close(self) -> None:
        self._worker.close()

    def drop(self) -> None:
        self._worker.drop()

    def retry_s(self, attempt: int) -> float | None:
        return self._worker.retry_s(attempt)

    @property
    def bytes_sent(self) -> int:
        return self._worker.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._worker.bytes_received
