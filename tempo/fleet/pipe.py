"""The jobs under way on one connection.

The next job is sent while the worker computes one, so that link and worker do not wait for each other:
at most `depth` are open, and replies come in the order of the jobs. The deadline of a job runs from the
moment the worker could begin to answer it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import final

from tempo.errors import OperandMissing, WorkerLost
from tempo.fleet.holdings import Holdings
from tempo.fleet.pace import Pace
from tempo.fleet.settings import EventKind, FleetSettings, Watcher
from tempo.fleet.ticket import Ticket
from tempo.fleet.worker import JobRefused, OperandsEvicted, Worker
from tempo.ops import Unverified

#: While a job is open and another may be sent, between two looks for one.
_LOOK_S = 0.002


@final
class Open:
    """A job that was sent and not answered. since: when the worker could begin to answer it."""

    __slots__ = ("company", "seconds", "sent_at", "since", "ticket")

    def __init__(self, ticket: Ticket, seconds: float, *, company: bool) -> None:
        self.ticket = ticket
        self.seconds = seconds  # that it may take
        self.since = time.monotonic()
        self.sent_at = 0.0  # by time.perf_counter(), for timelines
        self.company = company  # another job was open when it was sent


@final
class Pipe:
    """For the thread of one worker alone."""

    def __init__(
        self,
        worker: Worker,
        settings: FleetSettings,
        holdings: Holdings,
        pace: Pace,
        tell: Callable[[EventKind, str], None],
        span: Watcher,
    ) -> None:
        self.open: deque[Open] = deque()
        #: To be sent again, once no job is open.
        self.again: deque[Ticket] = deque()
        self._worker = worker
        self._settings = settings
        self._holdings = holdings
        self._pace = pace
        self._tell = tell
        self._span = span
        self._free_at = 0.0  # when the worker was done with the job before, by time.perf_counter()
        self._depth = worker.depth

    @property
    def has_room(self) -> bool:
        """Another job may be sent beside those that are open."""
        return len(self.open) < self._depth and not self.again

    def reply_is_due(self) -> bool:
        """The oldest job is answered, or late, or the connection is gone: `receive` finds out."""
        first = self.open[0]
        try:
            return self._worker.ready(_LOOK_S) or time.monotonic() > first.since + first.seconds
        except WorkerLost:
            return True

    def send(self, ticket: Ticket) -> None:
        """Ships what the worker does not hold and is not being sent. Ends: whatever it said it has not is
        shipped at the next try, and the client lets no worker say so of what a job shipped itself."""
        job = ticket.job
        have = {o.id for o in job.operands if self._holdings.expects(o.id)} - ticket.ship
        ship = frozenset(operand.id for operand in job.operands if operand.id not in have)
        for operand in job.operands:
            if operand.id in ship and not operand.here:
                raise OperandMissing(f"worker {self._worker.name} does not hold operand {operand.id}")
        kept = {operand.id for operand in job.operands if operand.keep and operand.id in ship}
        shipped = sum(operand.nbytes for operand in job.operands if operand.id in ship)
        seconds = self._settings.job_seconds(job, shipped, job.result_nbytes)
        one = Open(ticket, seconds, company=bool(self.open))
        self._holdings.sending(one, kept)
        if not self.open:
            self._pace.start(job)
        if self._worker.depth > 1:
            started, began = time.monotonic(), time.perf_counter()
            try:
                self._worker.begin(job, ship, started + seconds)
            except BaseException:
                self._holdings.failed(one)
                if not self.open:
                    self._pace.stop(well=False)
                raise
            one.sent_at = time.perf_counter()
            self._span("send", f"{self._worker.name} link", began, one.sent_at, shipped)
            for other in self.open:  # while we wrote, we read no reply
                other.since += time.monotonic() - started
        else:
            ticket.ship = ship
        self.open.append(one)

    def receive(self) -> tuple[Ticket, Unverified | BaseException] | None:
        """The oldest open job and its outcome; None if it will be sent again."""
        one = self.open[0]
        ticket, deadline = one.ticket, one.since + one.seconds
        outcome: Unverified | BaseException
        try:
            if self._worker.depth > 1:
                outcome = self._take(one, deadline)
            else:
                ship, ticket.ship = ticket.ship, frozenset()
                began = time.perf_counter()
                outcome = self._worker.run(ticket.job, ship, deadline)
                self._span("worker", self._worker.name, began, time.perf_counter(), 0)
            self._holdings.arrived(one)
        except BaseException as error:  # handed to the caller, who waits for it
            self._holdings.failed(one)
            outcome = error
        self.open.popleft()
        self._pace.stop(well=isinstance(outcome, Unverified))
        if self.open:
            self.open[0].since = time.monotonic()
            self._pace.start(self.open[0].ticket.job)
        match outcome:
            case OperandsEvicted():
                self._tell(EventKind.EVICTED, f"it dropped {len(outcome.ids)} operands of a job")
                self._holdings.evicted(outcome.ids)
                ticket.ship |= frozenset(outcome.ids)
            case JobRefused(code="memory") if one.company and not ticket.alone:
                # It may fit by itself. A worker so short of memory gets one job at a time from here on.
                self._depth, ticket.alone = 1, True
            case _:
                return ticket, outcome
        self.again.append(ticket)
        return None

    def _take(self, one: Open, deadline: float) -> Unverified:
        self._worker.ready(max(0.0, deadline - time.monotonic()))
        began, free = time.perf_counter(), self._free_at
        self._span("worker", self._worker.name, max(one.sent_at, free), began, 0)
        self._free_at = began
        try:
            return self._worker.end(deadline)
        finally:
            received = one.ticket.job
            size = received.result_nbytes
            self._span("receive", f"{self._worker.name} link", began, time.perf_counter(), size)

    def lose(self) -> list[Ticket]:
        """The connection is gone: what was open on it."""
        lost = [one.ticket for one in self.open]
        self.open.clear()
        self._pace.stop(well=False)
        return lost

    def reset(self) -> None:
        """A new connection."""
        self._depth = self._worker.depth
