"""What a user writes for `workers=`, as workers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from tempo.errors import UsageError
from tempo.fleet.device import DeviceWorker
from tempo.fleet.process import DEFAULT_MEMORY, DEFAULT_START_S, ProcessWorker
from tempo.fleet.worker import Worker

WorkerSpec = str | Worker | Sequence[str | Worker]

_LOCAL = re.compile(r"local:([1-9][0-9]{0,2})")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")
_REMOTE = re.compile(r"[^:\s]+:[0-9]+")
_ALLOWED = 'allowed are "local:N" (N worker processes), "cpu", "cuda:0", Worker objects, or a list of these'


def workers_from(
    spec: WorkerSpec,
    *,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    start_s: float = DEFAULT_START_S,
) -> list[Worker]:
    """The workers that `spec` names, spawned. threads: per local process, default cores // N."""
    workers: list[Worker] = []
    try:
        for one in spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]:
            workers += _workers(one, len(workers), threads, memory, start_s)
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    if not workers:
        raise UsageError(f"no workers: {_ALLOWED}")
    return workers


def _workers(
    spec: str | Worker, first: int, threads: int | None, memory: int, start_s: float
) -> list[Worker]:
    if isinstance(spec, Worker):
        return [spec]
    if not isinstance(spec, str):
        raise UsageError(f"a worker cannot be made from a {type(spec).__name__}: {_ALLOWED}")
    local = _LOCAL.fullmatch(spec)
    if local:
        number = int(local[1])
        each = threads or max(1, len(os.sched_getaffinity(0)) // number)
        return [
            ProcessWorker(f"local-{first + i}", threads=each, memory=memory, start_s=start_s)
            for i in range(number)
        ]
    if _DEVICE.fullmatch(spec):
        return [DeviceWorker(spec, name=f"{spec}-{first}", memory=memory)]
    if _REMOTE.fullmatch(spec):
        raise UsageError(f"{spec!r}: remote workers are not in this version; {_ALLOWED}")
    raise UsageError(f"{spec!r} names no worker: {_ALLOWED}")
