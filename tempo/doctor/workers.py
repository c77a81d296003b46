"""Each worker, asked by real jobs through the production fleet; every reply is checked.

Axes: T rows, K in-features, N out-features. Operands are random numbers that hide nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, final

import torch

from tempo.doctor.certificates import Greeting, greet, mend
from tempo.doctor.finding import Finding, Status
from tempo.errors import OutsideError, ProtocolError
from tempo.fleet import (
    Done,
    Event,
    EventKind,
    Fleet,
    FleetSettings,
    RemoteWorker,
    Task,
    TlsFiles,
    Worker,
    workers_from,
)
from tempo.integrity import Verifier
from tempo.ops import Job, Op, Operand, Unverified
from tempo.secrecy.keys import SessionKey
from tempo.wire import TlsRefused, limits

_ROUND_TRIPS = 15
_TRANSFERS = 3
#: (rows, features) of the operand or result that is timed: 16 MB of float32.
_TRANSFER_TK = (4096, 1024)
#: (T, K, N), from 1 to 275 Gflop: the next one is taken while the worker is done too soon to tell.
_PRODUCTS = ((512, 2048, 512), (2048, 4096, 2048), (8192, 8192, 2048))
_ENOUGH_S = 0.1
_SETTINGS = FleetSettings(deadline_base_s=15.0, quarantine_s=3600.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one worker: seconds of an empty job and back, bytes per second, flop per second without transfer."""

    round_trip_s: float
    up_rate: float
    down_rate: float
    flops: float


@final
@dataclass(frozen=True, slots=True)
class WorkerFinding:
    """reached: it answered. figures: None where it did not do its jobs."""

    finding: Finding
    reached: bool
    figures: Figures | None = None
    #: Of its TLS; None where it is reached without, or not at all.
    greeting: Greeting | None = None

    def fields(self) -> dict[str, Any]:
        figures = self.figures
        return self.finding.fields() | {
            "reached": self.reached,
            "protocol_version": limits.VERSION if self.reached else None,
            "tls": self.greeting and self.greeting.version,
            "certificate_expires": self.greeting and self.greeting.expires.isoformat(),
            "clock_between": self.greeting
            and [self.greeting.since.isoformat(), self.greeting.until.isoformat()],
            "round_trip_ms": figures and 1e3 * figures.round_trip_s,
            "up_mb_per_s": figures and figures.up_rate / 1e6,
            "down_mb_per_s": figures and figures.down_rate / 1e6,
            "gflop_per_s": figures and figures.flops / 1e9,
        }


class _Fell(Exception):
    """A job was not done, or wrongly. The fleet's events say why."""


def examine_workers(spec: Sequence[str | Worker], tls: TlsFiles | None) -> list[WorkerFinding]:
    """One finding per worker. Raises UsageError for a spec that names none."""
    workers = workers_from(spec, tls=tls)
    try:
        with ThreadPoolExecutor(len(workers)) as pool:  # those that do not answer are waited for together
            errors = list(pool.map(_connect, workers))
        return [_examine(worker, error, tls) for worker, error in zip(workers, errors, strict=True)]
    finally:
        for worker in workers:
            worker.close()


def _connect(worker: Worker) -> OutsideError | None:
    try:
        worker.connect()
    except OutsideError as error:
        return error
    return None


def _examine(worker: Worker, error: OutsideError | None, tls: TlsFiles | None) -> WorkerFinding:
    name = f"worker {worker.name}"
    if error is not None:
        return _not_reached(name, error)
    events: list[Event] = []
    greeting = None
    try:
        if isinstance(worker, RemoteWorker) and tls is not None:
            greeting = greet(worker, tls)
    except OutsideError as gone:
        return _not_reached(name, gone)
    try:
        with Fleet([worker], _SETTINGS, events.append) as fleet:
            figures = _Bench(fleet).figures()
    except _Fell:
        return _fallen(name, events)
    found = (
        f"protocol {limits.VERSION}, round trip {1e3 * figures.round_trip_s:.2f} ms, "
        f"up {figures.up_rate / 1e6:,.0f} MB/s, down {figures.down_rate / 1e6:,.0f} MB/s, "
        f"{figures.flops / 1e9:,.0f} Gflop/s, every reply checked"
    )
    finding = Finding(name, Status.OK, f"{found}; {greeting}" if greeting else found)
    if greeting is not None and greeting.soon:
        renew = "its certificate ends soon: tempo worker issue DIR --name NAME --role worker --force"
        finding = Finding(name, Status.NOTE, finding.found, renew)
    return WorkerFinding(finding, reached=True, figures=figures, greeting=greeting)


def _not_reached(name: str, error: OutsideError) -> WorkerFinding:
    if isinstance(error, TlsRefused):
        what = mend(error)
    elif isinstance(error, ProtocolError):
        what = "install the same Tempo on both sides, and look whether it is a worker that listens there"
    else:
        what = "start it (tempo worker --listen ...), and look at its address, firewall and certificates"
    return WorkerFinding(Finding(name, Status.PROBLEM, f"not reached: {error}", what), reached=False)


def _fallen(name: str, events: list[Event]) -> WorkerFinding:
    by_kind = {event.kind: event.detail for event in reversed(events)}
    if EventKind.CHECK_FAILED in by_kind:
        found = f"gave a wrong result: {by_kind[EventKind.CHECK_FAILED]}"
        finding = Finding(name, Status.PROBLEM, found, "do not use it: its device is faulty or it lies")
        return WorkerFinding(finding, reached=True)
    if EventKind.REFUSED in by_kind:
        found = f"refused a job: {by_kind[EventKind.REFUSED]}"
        finding = Finding(name, Status.PROBLEM, found, "give it more memory (tempo worker --memory)")
        return WorkerFinding(finding, reached=True)
    lost = (EventKind.DEADLINE, EventKind.PROTOCOL, EventKind.LOST)
    found = next((by_kind[kind] for kind in lost if kind in by_kind), "it did not do its jobs")
    finding = Finding(name, Status.PROBLEM, f"lost under way: {found}", "look at its log and start it again")
    return WorkerFinding(finding, reached=False)


@final
class _Bench:
    """Jobs for a fleet of one."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._verifier = Verifier(SessionKey(), 2)
        self._ids = count(1)

    def figures(self) -> Figures:
        self._seconds(self._job(64, 64, 64))  # first use of the device
        trip = statistics.median(self._seconds(self._job(1, 1, 1)) for _ in range(_ROUND_TRIPS))
        t, k = _TRANSFER_TK
        nbytes = t * k * torch.float32.itemsize
        # Large operand, small result, and the other way round. The best of a few: the first has cold pages.
        up = min(self._seconds(self._job(t, k, 1)) for _ in range(_TRANSFERS))
        down = min(self._seconds(self._job(t, 1, k)) for _ in range(_TRANSFERS))
        down_rate = nbytes / max(down - trip, 1e-6)
        return Figures(trip, nbytes / max(up - trip, 1e-6), down_rate, self._flops(trip, down_rate))

    def _flops(self, trip: float, down_rate: float) -> float:
        """With operands that the worker holds already, less what the reply takes to come back."""
        best = 0.0
        for shape in _PRODUCTS:
            job = self._job(*shape, keep=True)
            self._seconds(job)  # ships and keeps the operands
            took = min(self._seconds(job) for _ in range(2))
            self._fleet.release(operand.id for operand in job.operands)
            reply = shape[0] * shape[2] * torch.float32.itemsize / down_rate
            # A reply that overlaps nothing takes most of a short job: then half is as much as is believed.
            seconds = max(took - trip - reply, took / 2)
            best = max(best, job.flops / seconds)
            if seconds >= _ENOUGH_S:
                break
        return best

    def _seconds(self, job: Job) -> float:
        """From the first byte sent to the last one received; making and making good the check not counted."""
        checks = self._verifier.begin()
        checks.expect(job)
        arrived: list[float] = []

        def accept(job: Job, reply: Unverified) -> None:
            arrived.append(time.perf_counter())
            checks.accept(job, reply)

        start = time.perf_counter()
        (outcome,) = self._fleet.run([Task(job, 0)], accept)
        if not isinstance(outcome, Done):
            raise _Fell
        return arrived[-1] - start

    def _job(self, t: int, k: int, n: int, *, keep: bool = False) -> Job:
        x_TK, w_GNK = torch.randn(t, k), torch.randn(1, n, k)
        x, w = (Operand(next(self._ids), tuple(a.shape), a.dtype, a, keep) for a in (x_TK, w_GNK))
        return Job(Op.PRODUCT, x, w, (t,))
