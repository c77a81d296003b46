"""What the controller of a chaos run and its master say to each other: orders in a file, JSON lines back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec

#: Between two lines of the master while it waits for its workers.
START_S: Final = 120.0


@final
@dataclass(frozen=True, slots=True)
class Orders:
    """seconds: how long to train. deadline_s: base of every job's deadline (FleetSettings)."""

    seed: int
    seconds: float
    endpoints: list[str]
    cert: str
    key: str
    ca: str
    log: str
    #: Folder of the audit log, which the master makes, and of its checkpoints.
    audit: str
    #: Steps between two checkpoints.
    every: int
    deadline_s: float
    dtypes: list[str]

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, path: Path) -> Orders:
        return msgspec.json.decode(path.read_bytes(), type=cls)


@final
class Step(msgspec.Struct, frozen=True, tag="step"):
    """One step of all trainings. at: seconds since the first began. losses: by dtype."""

    number: int
    at: float
    seconds: float
    losses: dict[str, float]
    rss: int
    threads: int
    descriptors: int


@final
class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Workers have answered; the clock of the schedule starts."""

    workers: int


@final
class End(msgspec.Struct, frozen=True, tag="end"):
    """figures: from the session's report and its counters."""

    steps: int
    figures: dict[str, int]
    events: dict[str, int]
    replaced: int
    #: Failures seen while training; those at which a model had advanced; those that the audit log holds, and
    #: those that it holds behind a checkpoint of their step.
    failures: int
    advanced: int
    entered: int
    ahead: int


Line = Ready | Step | End


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes) -> Line:
    line: Line = msgspec.json.decode(text, type=Line)
    return line
