"""One run over a fleet: which worker gets a task, and what follows from its answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, final

from tempo.errors import IntegrityError, NoWorkersLeft, OperandMissing, WorkerError
from tempo.fleet.runner import Runner
from tempo.fleet.settings import Event, EventKind
from tempo.fleet.task import Done, Failed, Task
from tempo.fleet.ticket import Ticket
from tempo.ops import AnyJob, Unverified

T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)

#: Between two looks for an idle worker, once a job is late.
_HEDGE_S = 0.05
#: Between two looks at the tickets of a race.
_POLL_S = 0.002


@final
class Dispatch(Generic[J, T]):
    """Used by the thread of its caller alone.

    usable: the runners that may get a job now. accept: makes a value of a reply or raises IntegrityError.
    retried: called for each job that is redone. flush: hands events on, with no lock held.
    """

    def __init__(
        self,
        accept: Callable[[J, Unverified], T],
        *,
        usable: Callable[[], list[Runner]],
        given: int,
        events: deque[Event],
        retried: Callable[[], None],
        flush: Callable[[], None],
    ) -> None:
        self._accept = accept
        self._usable = usable
        self._given = given
        self._events = events
        self._retried = retried
        self._flush = flush
        self._lanes: dict[int, Runner] = {}
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """The caller waits no more. Threads end the frames they are at and drop the replies."""
        self._abandoned.set()

    def place(self, task: Task[J], tried: Sequence[Runner] = ()) -> Ticket | Failed:
        """Hand the task to a worker that has not tried it and holds what only workers hold."""
        usable = self._usable()
        fresh = [runner for runner in usable if runner not in tried]
        if not fresh:
            why = "every worker was tried" if usable else "no worker is usable"
            return Failed(NoWorkersLeft(f"{why}; {self._given} were given"))
        kept = [operand.id for operand in task.job.operands if not operand.here]
        able = [runner for runner in fresh if all(runner.holds(operand) for operand in kept)]
        if not able:
            return Failed(OperandMissing("no usable worker holds the operands of a job: seal them anew"))
        home = self._lanes.get(task.lane)
        if home not in able:
            home = able[task.lane % len(able)]
            if not kept or task.lane not in self._lanes:
                self._lanes[task.lane] = home
        ticket = Ticket(task.job, home, self._abandoned)
        home.submit(ticket)
        return ticket

    def collect(self, task: Task[J], placed: Ticket | Failed) -> Done[T] | Failed:
        """The outcome of a task that was placed: redone elsewhere until one reply passes its check."""
        tried: list[Runner] = []
        missing: OperandMissing | None = None
        racing = [placed] if isinstance(placed, Ticket) else []
        while racing:
            ticket = self._first(racing, tried)
            racing.remove(ticket)
            self._flush()
            runner, outcome, ticket.outcome = ticket.runner, ticket.outcome, None
            match outcome:
                case Unverified():
                    try:
                        value = self._accept(task.job, outcome)
                        for slower in racing:
                            slower.dropped = True
                        return Done(value, runner.name)
                    except IntegrityError as error:
                        self._events.append(Event(EventKind.CHECK_FAILED, runner.name, str(error)))
                        runner.quarantine()
                        if any(not operand.here for operand in task.job.operands):
                            # The check of such a job was made ahead, for one reply: no other will do.
                            for other in racing:
                                other.dropped = True
                            self._flush()
                            return Failed(OperandMissing("a reply was false, and its operands are not here"))
                case OperandMissing():
                    missing = outcome
                case WorkerError():
                    pass  # the runner has drawn the consequences and reported them
                case BaseException():
                    raise outcome
                case None:
                    raise AssertionError("a ticket of a run that goes on has an outcome")
            tried.append(runner)
            if racing:
                continue
            placed = self.place(task, tried)
            if isinstance(placed, Ticket):
                racing.append(placed)
                self._retried()
                op = task.job.op.value
                self._events.append(Event(EventKind.RETRIED, placed.runner.name, f"redoes a {op}"))
            self._flush()
        if missing is not None and self._usable():
            return Failed(missing)
        assert isinstance(placed, Failed), "a ticket of a run that goes on was raced"
        return placed

    def _first(self, racing: list[Ticket], tried: Sequence[Runner]) -> Ticket:
        """The first ticket that is done. One that is late is joined by its like on an idle worker."""
        first = racing[0]
        late = first.runner.pace.patience(first.job)
        while len(racing) == 1 and not first.done.wait(late):
            late = _HEDGE_S  # nobody was idle: look again
            if (hedge := self._hedge(first, tried)) is not None:
                racing.append(hedge)
        while True:
            for ticket in racing:
                if ticket.done.wait(_POLL_S if len(racing) > 1 else None):
                    return ticket

    def _hedge(self, late: Ticket, tried: Sequence[Runner]) -> Ticket | None:
        for runner in self._usable():
            ready = all(o.here or runner.holds(o.id) for o in late.job.operands)
            if ready and runner.idle and runner is not late.runner and runner not in tried:
                hedge = Ticket(late.job, runner, late.abandoned)
                runner.submit(hedge)
                detail = f"takes over from {late.runner.name}, which is late"
                self._events.append(Event(EventKind.HEDGED, runner.name, detail))
                return hedge
        return None
