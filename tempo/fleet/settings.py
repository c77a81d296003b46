"""Settings, events and figures of a fleet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from tempo.errors import UsageError
from tempo.ops import AnyJob


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The time that a job may take, from the first byte sent to the last byte received:

    deadline = deadline_base_s + bytes sent and received / min_rate + flops / min_flops
    """

    #: Seconds. Covers scheduling on a busy machine and the first use of a device.
    deadline_base_s: float = 30.0
    #: Bytes per second that the slowest acceptable link carries.
    min_rate: float = 10e6
    #: Flop per second that the slowest acceptable worker reaches.
    min_flops: float = 1e9
    #: A job that takes this many times as long as its worker's recent ones is handed to an idle worker
    #: too, as the same bytes; the first reply that passes its check counts.
    hedge_factor: float = 4.0
    #: Seconds within which no job counts as late.
    hedge_least_s: float = 2.0
    #: Seconds that a worker is left alone after a failed check; doubles each time.
    quarantine_s: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{each.name} is a positive number, not {value!r}")

    def job_seconds(self, job: AnyJob, shipped: int, received: int) -> float:
        return self.deadline_base_s + (shipped + received) / self.min_rate + job.flops / self.min_flops


class EventKind(Enum):
    LOST = "lost"  # gone: closed, killed, never started, not reached
    REJOINED = "rejoined"  # back after a loss, with nothing of what it held
    DEADLINE = "deadline"  # too late, and dropped for it
    PROTOCOL = "protocol"  # broke the protocol, and closed for good
    CHECK_FAILED = "check_failed"  # a reply failed its check
    REFUSED = "refused"  # said it cannot do a job
    QUARANTINED = "quarantined"
    PROBATION = "probation"  # back from quarantine
    EVICTED = "evicted"  # dropped operands that were shipped again, or are lost
    HEDGED = "hedged"  # took too long, so that another worker was given the same job
    RETRIED = "retried"  # a job is redone, on the worker that the event names


@dataclass(frozen=True, slots=True)
class Event:
    """Something a user or an audit log wants to know. detail: plain words of ours, never a peer's."""

    kind: EventKind
    worker: str
    detail: str


#: Told of a span of a job: part ("send", "worker", "receive"), lane, start and end in seconds of
#: time.perf_counter(), bytes. Called in the threads of the workers.
Watcher = Callable[[str, str, float, float, int], None]


@dataclass(frozen=True, slots=True)
class Stats:
    """Since the fleet began. Per worker, by name."""

    retries: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    jobs: Mapping[str, int] = field(default_factory=dict)
    busy_seconds: Mapping[str, float] = field(default_factory=dict)
