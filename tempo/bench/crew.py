"""The workers that a suite measures with.

"2"          two worker processes on this machine's CPU, its cores divided between them
"2@cuda:0"   two worker processes that share that device
"cuda:0"     the device in this process (a GPU passed through to a confidential VM); "cpu" in tests
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import final

from tempo.errors import UsageError
from tempo.fleet import DeviceWorker, ProcessWorker, Worker

_TEXT = re.compile(r"(?:([1-9][0-9]?)(?:@(cpu|cuda(?::[0-9]+)?))?)|(cpu|cuda(?::[0-9]+)?)")

#: Bytes of operands and results that one may hold. Nothing is reserved.
_MEMORY = 16 << 30


@final
@dataclass(frozen=True, slots=True)
class Crew:
    """count workers on device, in processes of their own or (in_process) in this one."""

    text: str
    count: int
    device: str
    in_process: bool

    @classmethod
    def parse(cls, text: str) -> Crew:
        match = _TEXT.fullmatch(text.strip())
        if not match:
            raise UsageError(
                f"{text!r} names no workers to measure with: a number of processes (2), of processes on a "
                "device (2@cuda:0), or a device in this process (cuda:0, cpu)"
            )
        count, device, own = match.groups()
        return cls(text.strip(), int(count or 1), own or device or "cpu", own is not None)

    @classmethod
    def parse_all(cls, text: str) -> list[Crew]:
        """Separated by commas."""
        return [cls.parse(each) for each in text.split(",")]

    @property
    def shared(self) -> bool:
        """They compute on the cores that the master encodes on."""
        return self.device == "cpu"

    @property
    def threads(self) -> int:
        """Of each process."""
        return max(1, cores() // self.count)

    def start(self) -> list[Worker]:
        """Fresh workers. Processes load torch meanwhile; the first job waits for that."""
        if self.in_process:
            return [DeviceWorker(self.device, name=f"{self.device}-0", memory=_MEMORY)]
        started: list[Worker] = []
        try:
            for number in range(self.count):
                name = f"local-{number}"
                started.append(ProcessWorker(name, device=self.device, threads=self.threads, memory=_MEMORY))
        except BaseException:
            for worker in started:
                worker.close()
            raise
        return started

    def pids(self, workers: list[Worker]) -> list[int]:
        return [worker.pid for worker in workers if isinstance(worker, ProcessWorker)]

    def __str__(self) -> str:
        where = "in this process" if self.in_process else "process" if self.count == 1 else "processes"
        return f"{self.device} {where}" if self.in_process else f"{self.count} {where} on {self.device}"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
