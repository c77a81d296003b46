"""One worker, the thread that speaks to it, and what the master knows of it.

Only this thread uses the connection, so no lock is held across a socket and an interrupt in the
caller cannot leave a frame half sent: the thread ends it and drops the reply.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import final

from tempo.errors import OperandMissing, ProtocolError, WorkerError, WorkerLost
from tempo.fleet.pace import Pace
from tempo.fleet.settings import Event, EventKind, FleetSettings
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.ops import Job, Unverified
from tempo.wire import DeadlinePassed

_MOST_DOUBLINGS = 16
#: Seconds without a job after which releases are sent all the same.
_IDLE_S = 1.0


class NotTried(WorkerError):
    """The worker went out of use, or its run was given up, before it saw the job."""


@final
class Ticket:
    """One try of one job. The caller waits on `done`, then reads `outcome`."""

    __slots__ = ("abandoned", "done", "dropped", "job", "outcome", "runner")

    def __init__(self, job: Job, runner: Runner, abandoned: threading.Event) -> None:
        self.job = job
        self.runner = runner
        self.abandoned = abandoned  # shared by the tickets of one run
        self.done = threading.Event()
        self.dropped = False  # another worker was faster
        self.outcome: Unverified | BaseException | None = None


@final
class Runner:
    """Thread-safe. `report` is called from any thread and only enqueues."""

    def __init__(self, worker: Worker, settings: FleetSettings, report: Callable[[Event], None]) -> None:
        self.worker = worker
        self.name = worker.name
        self.jobs = 0
        self.busy_seconds = 0.0
        self.pace = Pace(settings)
        self._settings = settings
        self._report = report
        self._lock = threading.Lock()  # guards the eight below
        self._held: set[int] = set()  # operands that later jobs may refer to
        self._stored: set[int] = set()  # operands that the worker may have in memory
        self._gone = False  # for now, or for good
        self._attempt = 0  # to connect again
        self._retry_at: float | None = None  # None: gone for good, or not gone
        self._stopped = False
        self._quarantined_until = 0.0
        self._relapses = 0
        # Filled by finalizers, which may run while any lock is held: appending takes none.
        self._released: deque[tuple[int, ...]] = deque()
        self._tickets: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=f"tempo-{self.name}", daemon=True)
        self._thread.start()

    # ---- what the fleet asks ------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        return self._gone

    def usable(self, now: float) -> bool:
        with self._lock:
            if self._gone or now < self._quarantined_until:
                return False
            returned, self._quarantined_until = self._quarantined_until > 0, 0.0
        if returned:
            self._tell(EventKind.PROBATION, "its quarantine is over; its replies are checked like all")
        return True

    def holds(self, operand: int) -> bool:
        with self._lock:
            return not self._gone and operand in self._held

    @property
    def idle(self) -> bool:
        return not self.pace.busy and self._tickets.empty()

    def submit(self, ticket: Ticket) -> None:
        with self._lock:
            if not self._stopped and not self._gone:
                self._tickets.put(ticket)
                return
        ticket.outcome = NotTried(f"worker {self.name} is lost, or the fleet is closed")
        ticket.done.set()

    def release(self, ids: tuple[int, ...]) -> None:
        """Takes no lock: finalizers call this."""
        if not self._gone:
            self._released.append(ids)

    def quarantine(self) -> None:
        """A reply was false: leave the worker alone for a while and count on nothing that it holds."""
        with self._lock:
            if self._gone:
                return
            seconds = self._settings.quarantine_s * 2 ** min(self._relapses, _MOST_DOUBLINGS)
            self._relapses += 1
            self._quarantined_until = time.monotonic() + seconds
            self._held.clear()
            self._released.append(tuple(self._stored))
        self._tell(EventKind.QUARANTINED, f"not used for {seconds:g} s; what it held counts as lost")

    def stop(self) -> None:
        """Take no more tickets, and end the thread once its queue is done."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._tickets.put(None)

    def join(self, seconds: float | None) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # ---- the thread ---------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            self.worker.connect()
        except BaseException as error:
            self._mark_gone(error)
            self._leave_worker()
        while (ticket := self._next()) is not None:
            try:
                ticket.outcome = self._try(ticket)
            except BaseException as error:  # handed to the caller, who waits for it
                ticket.outcome = error
            broken = ticket.outcome if isinstance(ticket.outcome, WorkerLost | ProtocolError) else None
            if broken is not None:
                self._mark_gone(broken)
            if ticket.abandoned.is_set() or ticket.dropped:
                ticket.outcome = None
            ticket.done.set()
            del ticket  # a thread that waits must not keep a tensor alive
            if broken is not None:
                self._leave_worker()

    def _next(self) -> Ticket | None:
        """The next ticket; None at the end. A lost worker is tried again while nobody waits for it:
        `submit` takes no ticket then, so whoever runs a job never waits for a connection."""
        while True:
            try:
                if self._retry_at is None:
                    return self._tickets.get(timeout=_IDLE_S)
                return self._tickets.get(timeout=max(0.0, self._retry_at - time.monotonic()))
            except queue.Empty:
                if self._retry_at is None:
                    self._release_idle()
                else:
                    self._rejoin()

    def _release_idle(self) -> None:
        """Tell a worker that gets no jobs what it may drop, or the list would grow for ever."""
        if self._gone:
            self._released.clear()
            return
        try:
            self._send_releases()
        except WorkerError as error:
            self._mark_gone(error)
            self._leave_worker()

    def _rejoin(self) -> None:
        try:
            self.worker.connect()
        except ProtocolError as error:
            self._retry_at = None
            self._tell(EventKind.PROTOCOL, str(error))
            self._tell(EventKind.QUARANTINED, "closed for good")
            self.worker.close()
        except BaseException:  # still away: told once, when it was lost
            self._attempt += 1
            pause = self.worker.retry_s(self._attempt)
            self._retry_at = None if pause is None else time.monotonic() + pause
            self._leave_worker()
        else:
            with self._lock:
                self._gone = False
                self._retry_at = None
                self._released.clear()
            self._tell(EventKind.REJOINED, "on probation; what it held counts as lost")

    def _leave_worker(self) -> None:
        if self._retry_at is None:
            self.worker.close()
        else:
            self.worker.drop()

    def _try(self, ticket: Ticket) -> Unverified:
        if ticket.abandoned.is_set() or ticket.dropped:
            raise NotTried("nobody waits for this job any more")
        if self._gone or self._quarantined_until > time.monotonic():
            raise NotTried(f"worker {self.name} went out of use before it had this job")
        self._send_releases()
        started = time.monotonic()
        try:
            with self.pace.job(ticket.job):
                return self._run(ticket.job)
        except JobRefused as error:
            self._tell(EventKind.REFUSED, str(error))
            if error.code not in ("memory", "unsupported"):
                self.quarantine()  # a device that fails, or a pretext
            raise
        finally:
            self.jobs += 1
            self._attempt = 0  # it was connected: the next loss begins with the shortest pause
            self.busy_seconds += time.monotonic() - started

    def _run(self, job: Job) -> Unverified:
        """Ships what the worker does not hold. Ends: each eviction makes the next try ship more, and
        the client lets no worker claim an eviction of what was just shipped."""
        while True:
            with self._lock:
                ship = frozenset(operand.id for operand in job.operands if operand.id not in self._held)
            for operand in job.operands:
                if operand.id in ship and operand.tensor is None:
                    raise OperandMissing(f"worker {self.name} does not hold operand {operand.id}")
            try:
                reply = self.worker.run(job, ship, self._deadline(job, ship))
            except OperandsEvicted as evicted:
                self._tell(EventKind.EVICTED, f"it dropped {len(evicted.ids)} operands of a job")
                with self._lock:
                    self._held.difference_update(evicted.ids)
                    self._stored.difference_update(evicted.ids)
                continue
            kept = {operand.id for operand in job.operands if operand.keep and operand.id in ship}
            with self._lock:
                self._held |= kept
                self._stored |= kept
            return reply

    def _deadline(self, job: Job, ship: frozenset[int]) -> float:
        shipped = sum(operand.nbytes for operand in job.operands if operand.id in ship)
        return time.monotonic() + self._settings.job_seconds(job, shipped, job.result_nbytes)

    def _send_releases(self) -> None:
        ids: list[int] = []
        with self._lock:
            while self._released:
                ids += (one for one in self._released.popleft() if one in self._stored)
            self._held.difference_update(ids)
            self._stored.difference_update(ids)
        if ids:
            self.worker.release(ids, time.monotonic() + self._settings.deadline_base_s)

    def _mark_gone(self, error: BaseException) -> None:
        with self._lock:
            if self._gone:
                return
            self._gone = True
            self._held.clear()
            self._stored.clear()
            pause = self.worker.retry_s(self._attempt) if isinstance(error, WorkerLost) else None
            self._retry_at = None if pause is None else time.monotonic() + pause
        match error:
            case DeadlinePassed():
                self._tell(EventKind.DEADLINE, "it missed its deadline and is dropped")
            case ProtocolError():
                self._tell(EventKind.PROTOCOL, str(error))
                self._tell(EventKind.QUARANTINED, "closed for good")
            case WorkerError():
                self._tell(EventKind.LOST, str(error))
            case _:
                self._tell(EventKind.LOST, f"it could not be reached ({type(error).__name__})")

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._report(Event(kind, self.name, detail))
