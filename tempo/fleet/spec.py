"""What a user writes for `workers=`, as workers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from tempo.errors import UsageError
from tempo.fleet.device import DeviceWorker
from tempo.fleet.process import DEFAULT_MEMORY, DEFAULT_START_S, ProcessWorker
from tempo.fleet.remote import RemoteWorker
from tempo.fleet.worker import Worker
from tempo.wire import TlsFiles

WorkerSpec = str | Worker | Sequence[str | Worker]

_LOCAL = re.compile(r"local:([1-9][0-9]{0,2})")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")
_REMOTE = re.compile(r"\S+:[0-9]+|unix:\S+")
_ALLOWED = (
    'allowed are "local:N" (N worker processes), "cpu", "cuda:0", "host:7443", "unix:/path", '
    '"vsock:CID:7443", Worker objects, or a list of these'
)


def workers_from(
    spec: WorkerSpec,
    *,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    start_s: float = DEFAULT_START_S,
    tls: TlsFiles | None = None,
    first: int = 0,
) -> list[Worker]:
    """The workers that `spec` names, local ones spawned. threads: per local process, default cores // N.

    tls: for remote ones, which need it. One that is named twice gets two connections.
    first: number in the name of the first.
    """
    workers: list[Worker] = []
    try:
        for one in spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]:
            workers += _workers(one, first + len(workers), threads, memory, start_s, tls)
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    if not workers:
        raise UsageError(f"no workers: {_ALLOWED}")
    return workers


def _workers(
    spec: str | Worker, first: int, threads: int | None, memory: int, start_s: float, tls: TlsFiles | None
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
    if _REMOTE.fullmatch(spec) and not spec.startswith("local:"):
        return [RemoteWorker(spec, name=f"{spec}-{first}", tls=tls)]
    raise UsageError(f"{spec!r} names no worker: {_ALLOWED}")
