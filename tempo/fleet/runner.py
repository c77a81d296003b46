"""One worker, the thread that speaks to it, and what the master knows of it.

Only this thread uses the connection, so no lock is held across a socket and an interrupt in the
caller cannot leave a frame half sent: the thread ends it and drops the reply.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import final

from tempo.errors import ProtocolError, WorkerError, WorkerLost
from tempo.fleet.holdings import Holdings
from tempo.fleet.loss import comes_back, told
from tempo.fleet.pace import Pace
from tempo.fleet.pipe import Pipe
from tempo.fleet.settings import Event, EventKind, FleetSettings, Standing, Watcher
from tempo.fleet.ticket import NotTried, Ticket
from tempo.fleet.worker import JobRefused, Worker
from tempo.ops import Unverified

_MOST_DOUBLINGS = 16
#: Seconds without a job after which releases are sent all the same.
_IDLE_S = 1.0


@final
class Runner:
    """Thread-safe. `report` is called from any thread and only enqueues."""

    def __init__(
        self, worker: Worker, settings: FleetSettings, report: Callable[[Event], None], span: Watcher
    ) -> None:
        self.worker = worker
        self.name = worker.name
        self.jobs = 0
        self.pace = Pace(settings)
        self._settings = settings
        self._report = report
        self.holdings = Holdings()
        self._lock = threading.Lock()  # guards the seven below
        self._gone = False  # for now, or for good
        self._attempt = 0  # to connect again
        self._met = False  # it was connected once: it is the one that the owner named
        self._retry_at: float | None = None  # None: gone for good, or not gone
        self._stopped = False
        self._quarantined_until = 0.0
        self._relapses = 0
        self._tickets: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        # The thread's own.
        self._pipe = Pipe(worker, settings, self.holdings, self.pace, self._tell, span)
        self._ending = False
        self._thread = threading.Thread(target=self._loop, name=f"tempo-{self.name}", daemon=True)
        self._thread.start()

    # ---- what the fleet asks ------------------------------------------------------------------

    @property
    def busy_seconds(self) -> float:
        return self.pace.busy_seconds

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
        return not self._gone and operand in self.holdings

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
            self.holdings.release(ids)

    def quarantine(self) -> None:
        """A reply was false: leave the worker alone for a while and count on nothing that it holds."""
        with self._lock:
            if self._gone:
                return
            seconds = self._settings.quarantine_s * 2 ** min(self._relapses, _MOST_DOUBLINGS)
            self._relapses += 1
            self._quarantined_until = time.monotonic() + seconds
        self.holdings.distrust()
        self._tell(EventKind.QUARANTINED, f"not used for {seconds:g} s; what it held counts as lost")

    @property
    def standing(self) -> Standing:
        with self._lock:
            return Standing(self._relapses, max(0.0, self._quarantined_until - time.monotonic()))

    def restore(self, standing: Standing) -> None:
        """Treat the worker as one that did that before."""
        with self._lock:
            self._relapses = max(self._relapses, standing.relapses)
            until = time.monotonic() + standing.quarantine_s if standing.quarantine_s else 0.0
            self._quarantined_until = max(self._quarantined_until, until)

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
        else:
            self._met = True
        while True:
            ticket = self._next()
            if ticket is not None:
                self._begin(ticket)
            elif self._pipe.open:
                self._end()
            else:
                return
            del ticket  # a thread that waits must not keep a tensor alive

    def _next(self) -> Ticket | None:
        """The next ticket to begin. None: the reply to an open one is due, or with none open the end."""
        pipe = self._pipe
        if not pipe.open:
            return pipe.again.popleft() if pipe.again else self._wait()
        while pipe.has_room and not self._ending:
            try:
                ticket = self._tickets.get_nowait()
                self._ending = ticket is None
                return ticket
            except queue.Empty:
                if pipe.reply_is_due():
                    break
        return None

    def _wait(self) -> Ticket | None:
        """The next ticket, with none open; None at the end. A lost worker is tried again while nobody waits
        for it: `submit` takes no ticket then, so whoever runs a job never waits for a connection."""
        while not self._ending:
            try:
                if self._retry_at is None:
                    ticket = self._tickets.get(timeout=_IDLE_S)
                else:
                    ticket = self._tickets.get(timeout=max(0.0, self._retry_at - time.monotonic()))
                self._ending = ticket is None
                return ticket
            except queue.Empty:
                if self._retry_at is None:
                    self._release_idle()
                else:
                    self._rejoin()
        return None

    def _release_idle(self) -> None:
        """Tell a worker that gets no jobs what it may drop, or the list would grow for ever."""
        if self._gone:
            self.holdings.forget_released()
            return
        try:
            self._send_releases()
        except WorkerError as error:
            self._mark_gone(error)
            self._leave_worker()

    def _rejoin(self) -> None:
        try:
            self.worker.connect()
        except BaseException as error:
            if not isinstance(error, ProtocolError) or comes_back(error, met=self._met):
                return self._still_away()
            self._retry_at = None
            for kind, detail in told(error, met=self._met):
                self._tell(kind, detail)
            self.worker.close()
        else:
            self._met = True
            with self._lock:
                self._gone = False
                self._retry_at = None
            self._pipe.reset()
            self.holdings.forget_released()
            self._tell(EventKind.REJOINED, "on probation; what it held counts as lost")

    def _still_away(self) -> None:
        """It was told once, when the worker was lost."""
        self._attempt += 1
        pause = self.worker.retry_s(self._attempt)
        self._retry_at = None if pause is None else time.monotonic() + pause
        self._leave_worker()

    def _leave_worker(self) -> None:
        if self._retry_at is None:
            self.worker.close()
        else:
            self.worker.drop()

    def _begin(self, ticket: Ticket) -> None:
        try:
            if ticket.abandoned.is_set() or ticket.dropped:
                raise NotTried("nobody waits for this job any more")
            if self._gone or self._quarantined_until > time.monotonic():
                raise NotTried(f"worker {self.name} went out of use before it had this job")
            self._send_releases()
            self._pipe.send(ticket)
        except BaseException as error:  # handed to the caller, who waits for it
            if isinstance(error, JobRefused):
                self._refused(error)
            self._close(ticket, error)

    def _end(self) -> None:
        if (answered := self._pipe.receive()) is None:
            return  # to be sent again
        ticket, outcome = answered
        self._count()
        if isinstance(outcome, JobRefused):
            self._refused(outcome)
        self._close(ticket, outcome)

    def _close(self, ticket: Ticket, outcome: Unverified | BaseException) -> None:
        """Hand the outcome to whoever waits. A connection that broke takes all open jobs with it."""
        broken = isinstance(outcome, WorkerLost | ProtocolError) and not self._gone
        if isinstance(outcome, WorkerLost | ProtocolError):
            self._mark_gone(outcome)
        self._hand_over(ticket, outcome)
        if broken:
            for other in self._pipe.lose():
                self._hand_over(other, NotTried(f"worker {self.name} was lost with this job open"))
            self._leave_worker()

    def _refused(self, error: JobRefused) -> None:
        self._tell(EventKind.REFUSED, str(error))
        if error.code not in ("memory", "unsupported"):
            self.quarantine()  # a device that fails, or a pretext

    def _hand_over(self, ticket: Ticket, outcome: Unverified | BaseException) -> None:
        ticket.outcome = None if ticket.abandoned.is_set() or ticket.dropped else outcome
        ticket.done.set()

    def _count(self) -> None:
        self.jobs += 1
        self._attempt = 0  # it was connected: the next loss begins with the shortest pause

    def _send_releases(self) -> None:
        if ids := self.holdings.take_released():
            self.worker.release(ids, time.monotonic() + self._settings.deadline_base_s)

    def _mark_gone(self, error: BaseException) -> None:
        with self._lock:
            if self._gone:
                return
            self._gone = True
            self.holdings.lose()
            pause = self.worker.retry_s(self._attempt) if comes_back(error, met=self._met) else None
            self._retry_at = None if pause is None else time.monotonic() + pause
        for kind, detail in told(error, met=self._met):
            self._tell(kind, detail)

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._report(Event(kind, self.name, detail))
