"""What goes into a run of the fleet, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tempo.errors import NoWorkersLeft, OperandMissing
from tempo.ops import Job

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A job and its lane. Tasks of one lane in one run go to the same worker, in order.

    An operand without a tensor must have been kept in an earlier run.
    """

    job: Job
    lane: int


@dataclass(frozen=True, slots=True, eq=False)
class Done(Generic[T]):
    """What `accept` made of the reply of this worker."""

    value: T
    worker: str


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    error: OperandMissing | NoWorkersLeft
