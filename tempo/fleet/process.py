"""A worker process on this machine: spawned, spoken to over a Unix socket pair, gone when we are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import final

from tempo.errors import WorkerLost
from tempo.fleet.client import Client
from tempo.fleet.worker import Worker
from tempo.ops import AnyJob, Unverified
from tempo.worker import Lie

DEFAULT_MEMORY = 4 << 30
DEFAULT_START_S = 120.0
_TERMINATE_S = 1.0

#: What a worker inherits from the master's environment. Everything else (tokens, passwords, settings
#: of Tempo) is none of its business.
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)


@final
class ProcessWorker(Worker):
    """Construction spawns and returns at once, so that several start in parallel; `connect` waits.

    memory: bytes of operands and results that it may hold. start_s: time to load torch and say hello.
    record: a folder for all that the worker sees (`tempo.worker.recording` reads it).
    unsafe_lie: answer some jobs wrongly, for tests and demonstrations.
    """

    depth = 2

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        threads: int = 1,
        memory: int = DEFAULT_MEMORY,
        start_s: float = DEFAULT_START_S,
        record: Path | None = None,
        unsafe_lie: Lie | None = None,
    ) -> None:
        self.name = name
        self._owner = os.getpid()
        self._connected = False
        self._deadline = time.monotonic() + start_s
        command = [sys.executable, "-m", "tempo.worker", "--device", device]
        command += ["--threads", str(threads), "--memory", str(memory)]
        if record is not None:
            command += ["--record", str(record)]
        if unsafe_lie is not None:
            command += ["--unsafe-lie", str(unsafe_lie)]
        ours, theirs = socket.socketpair()
        self._client = Client(ours, name)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*command, "--fd", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # the master's standard output is for machines to read
                    env=_environment(threads),
                    process_group=0,  # Ctrl-C in a terminal is for the master alone
                )
        except OSError as error:
            self._client.abandon()
            raise WorkerLost(f"worker {name} could not be started ({type(error).__name__})") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def bytes_sent(self) -> int:
        return self._client.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._client.bytes_received

    def connect(self) -> None:
        if not self._connected:
            self._client.handshake(self._deadline)
            self._connected = True

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        self.connect()
        return self._client.run(job, ship, deadline)

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        self.connect()
        self._client.begin(job, ship, deadline)

    def ready(self, seconds: float) -> bool:
        return self._client.ready(seconds)

    def end(self, deadline: float) -> Unverified:
        return self._client.end(deadline)

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._client.release(ids, deadline)

    def close(self) -> None:
        if os.getpid() != self._owner:
            return self._client.abandon()  # a forked child must not end its parent's worker
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # stopped or deaf: SIGTERM does not reach it
            self._process.wait()

    def __repr__(self) -> str:
        return f"ProcessWorker({self.name!r}, pid={self.pid})"


def _environment(threads: int) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **inherited,
        # The same Tempo as the master's, wherever that was found, and the packages that it was given.
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")))
        ),
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin between jobs would take the cores that the master encodes on.
        "OMP_WAIT_POLICY": "PASSIVE",
        # A fresh large tensor costs ten copies of it: huge pages, and keep freed memory.
        "THP_MEM_ALLOC_ENABLE": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
