"""What goes into a run of the fleet, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tempo.errors import NoWorkersLeft, OperandMissing
from tempo.ops import AnyJob

T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[J]):
    """A job and its lane. Tasks of one lane in one run go to the same worker, in order.

    An operand that is not here must have been kept in an earlier run.
    """

    job: J
    lane: int


@dataclass(frozen=True, slots=True, eq=False)
class Done(Generic[T]):
    """What `accept` made of the reply of this worker."""

    value: T
    worker: str


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    error: OperandMissing | NoWorkersLeft
