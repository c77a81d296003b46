"""A torch device of this process: a GPU passed through to a confidential VM, or the CPU in tests.

Same semantics as a worker behind a socket, down to the bounded store; its replies are checked alike,
since the device may be a stranger's.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import final

import torch

from tempo.errors import UsageError, WorkerLost
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.ops import Job, Unverified
from tempo.wire import compute_message
from tempo.worker import Executor, TooLarge, Unsupported

DEFAULT_MEMORY = 4 << 30


@final
class DeviceWorker(Worker):
    """Deadlines do not bind here: a kernel that runs in this process cannot be abandoned."""

    def __init__(self, device: str | torch.device, *, name: str = "", memory: int = DEFAULT_MEMORY) -> None:
        self.name = name or str(device)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"torch has no device {str(device)!r} here: name cpu or cuda:N") from error
        self._executor: Executor | None = Executor(device, memory)
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
        self._open()

    def run(self, job: Job, ship: frozenset[int], deadline: float) -> Unverified:
        executor = self._open()
        request = compute_message(job, next(self._numbers), ship)
        try:
            missing = executor.admit(request)
        except TooLarge:
            raise JobRefused(self.name, "memory") from None
        except Unsupported:
            raise JobRefused(self.name, "unsupported") from None
        if missing:
            raise OperandsEvicted(self.name, missing)
        tensors = {o.id: o.tensor.detach() for o in job.operands if o.tensor is not None}
        # What is kept is copied even within the CPU: the master reuses its buffers.
        shipped = {p.id: tensors[p.id].clone() if p.keep else tensors[p.id] for p in request.sent}
        try:
            result = executor.run(request, shipped)
        except (RuntimeError, MemoryError) as error:
            executor.discard(request)
            full = isinstance(error, torch.OutOfMemoryError | MemoryError)
            raise JobRefused(self.name, "memory" if full else "failed") from error
        finally:
            executor.done(request)
        self._sent += request.payload
        self._received += result.nbytes
        return Unverified(result)

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._open().release(ids)

    def close(self) -> None:
        self._executor = None

    def _open(self) -> Executor:
        if self._executor is None:
            raise WorkerLost(f"worker {self.name} is closed")
        return self._executor

    def __repr__(self) -> str:
        return f"DeviceWorker({self.name!r})"
