"""A torch device of this process: a GPU passed through to a confidential VM, or the CPU in tests.

Same semantics as a worker behind a socket, down to the bounded store; its replies are checked alike,
since the device may be a stranger's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import final

import torch
from torch import Tensor

from tempo.errors import UsageError, WorkerLost
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.ops import AnyJob, Operand, RingOperand, Unverified
from tempo.wire import Compute, Ring, request_message
from tempo.worker import Executor, TooLarge, Unsupported
from tempo.worker.executor import Gone
from tempo.worker.transfers import Download

DEFAULT_MEMORY = 4 << 30
#: Between two looks at a device that computes.
_LOOK_S = 2e-4


@final
class DeviceWorker(Worker):
    """Deadlines do not bind here: a kernel that runs in this process cannot be abandoned."""

    def __init__(self, device: str | torch.device, *, name: str = "", memory: int = DEFAULT_MEMORY) -> None:
        self.name = name or str(device)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"torch has no device {str(device)!r} here: name cpu or cuda:N") from error
        executor = Executor(device, memory)
        self._executor: Executor | None = executor
        self.depth = 2 if executor.device.type == "cuda" else 1  # copies beside products
        self._open: deque[tuple[Compute | Ring, Download] | JobRefused | OperandsEvicted] = deque()
        self._numbers = count(1)
        self._sent = 0
        self._received = 0

    @property
    def bytes_sent(self) -> int:
        return self._sent

    @property
    def bytes_received(self) -> int:
        return self._received

    def connect(self) -> None:
        self._opened()

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        self.begin(job, ship, deadline)
        return self.end(deadline)

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        """On a GPU only queues copies and product. What goes wrong with the job is raised by `end`."""
        executor = self._opened()
        request = request_message(job, next(self._numbers), ship)
        try:
            missing = executor.admit(request)
        except TooLarge:
            return self._open.append(JobRefused(self.name, "memory"))
        except Unsupported:
            return self._open.append(JobRefused(self.name, "unsupported"))
        if missing:
            return self._open.append(OperandsEvicted(self.name, missing))
        operands = {operand.id: operand for operand in job.operands if operand.here}
        shipped = {part.id: _here(operands[part.id]) for part in request.sent}
        try:
            self._open.append((request, executor.start(request, shipped)))
        except Gone as gone:
            executor.done(request)
            self._open.append(OperandsEvicted(self.name, gone.ids))
        except (RuntimeError, MemoryError) as error:
            self._open.append(self._failed(executor, request, error))

    def ready(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            first = self._open[0]
            if isinstance(first, Exception) or first[1].ready():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_S)

    def end(self, deadline: float) -> Unverified:
        executor, first = self._opened(), self._open.popleft()
        if isinstance(first, Exception):
            raise first
        request, download = first
        try:
            result = download.wait()
        except (RuntimeError, MemoryError) as error:
            raise self._failed(executor, request, error) from error
        executor.done(request)
        self._sent += request.payload
        self._received += result.nbytes
        return Unverified(result)

    def _failed(self, executor: Executor, request: Compute | Ring, error: Exception) -> JobRefused:
        executor.discard(request)
        executor.done(request)
        full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        refused = JobRefused(self.name, "memory" if full else "failed")
        refused.__cause__ = error
        return refused

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._opened().release(ids)

    def close(self) -> None:
        self._executor = None

    def _opened(self) -> Executor:
        if self._executor is None:
            raise WorkerLost(f"worker {self.name} is closed")
        return self._executor

    def __repr__(self) -> str:
        return f"DeviceWorker({self.name!r})"


def _here(operand: Operand | RingOperand) -> Tensor:
    """What a worker has in memory of an operand that was shipped."""
    if isinstance(operand, RingOperand):
        return operand.expanded()
    assert operand.tensor is not None, "an operand to be shipped is here"
    tensor = operand.tensor.detach()
    # What is kept is copied even within the CPU: the master reuses its buffers.
    return tensor.clone() if operand.keep else tensor
