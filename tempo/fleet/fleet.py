"""The fleet: hands jobs to workers that nobody trusts, and brings back what passed its check.

    results = fleet.run(tasks, accept)      accept returns a value, or raises IntegrityError

What a worker may do, and what follows:

    it dies, is late, breaks the protocol   dropped; its jobs are redone elsewhere
    its reply fails the check               reply discarded, worker quarantined, job redone elsewhere
    it evicted an operand                   shipped again to the same worker
    it is slow                              an idle worker is given the same job, the first reply counts
    it refuses a job                        redone elsewhere; quarantined unless the job was too large
    only it held an operand                 Failed(OperandMissing): the caller seals anew
    nobody is left                          Failed(NoWorkersLeft): the caller computes, or raises
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, final

from tempo.errors import IntegrityError, NoWorkersLeft, OperandMissing, UsageError, WorkerError
from tempo.fleet.runner import Runner, Ticket
from tempo.fleet.settings import Event, EventKind, FleetSettings, Stats
from tempo.fleet.task import Done, Failed, Task
from tempo.fleet.worker import Worker
from tempo.ops import Job, Unverified

T = TypeVar("T")

#: Between two looks for an idle worker, once a job is late.
_HEDGE_S = 0.05
#: Between two looks at the tickets of a race.
_POLL_S = 0.002

#: Time that `close` leaves a job under way before it cuts the connection.
_CLOSE_S = 1.0


@final
class _Run:
    """One call of `run`: its lanes, and whether its caller still waits."""

    def __init__(self) -> None:
        self.lanes: dict[int, Runner] = {}
        self.abandoned = threading.Event()


@final
class Fleet:
    """Thread-safe. Owns its workers: `close` closes them.

    on_event is called in the threads that call `run` and `close`, with no lock held.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        settings: FleetSettings | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        names = [worker.name for worker in workers]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a fleet has one worker or more, with different names, not {names}")
        self._settings = settings or FleetSettings()
        self._on_event = on_event
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()  # guards _retries and replacing the two tuples of runners
        self._retries = 0
        self._owner = os.getpid()
        self._closed = False
        self._runners = tuple(Runner(worker, self._settings, self._events.append) for worker in workers)
        self._left: tuple[Runner, ...] = ()

    def run(self, tasks: Iterable[Task], accept: Callable[[Job, Unverified], T]) -> list[Done[T] | Failed]:
        """Run tasks, in the order given. `tasks` is pulled lazily and each task leaves at once, so the
        caller seals the next one while workers compute. `accept` is called in this thread."""
        if self._closed or os.getpid() != self._owner:
            raise UsageError("this fleet is closed, or belongs to another process: make a new one")
        run = _Run()
        try:
            waiting = deque((task, self._place(task, run, ())) for task in tasks)
            results: list[Done[T] | Failed] = []
            while waiting:
                task, placed = waiting.popleft()
                results.append(self._collect(task, placed, run, accept))
                del task, placed  # operands of a finished job are not kept
            return results
        except BaseException:
            # Interrupted, out of memory, or accept found a fault of ours. Threads end their frames.
            run.abandoned.set()
            raise
        finally:
            self._flush()

    def add(self, worker: Worker) -> None:
        """A worker joins, also while runs are under way. The fleet owns it from here on."""
        with self._lock:
            if self._closed or worker.name in {runner.name for runner in self._runners}:
                raise UsageError(f"this fleet is closed or has a worker named {worker.name} already")
            self._runners = (*self._runners, Runner(worker, self._settings, self._events.append))

    def remove(self, name: str) -> None:
        """A worker leaves: it finishes the jobs it was given, then it is closed. What it holds is sealed
        anew for others when it is needed."""
        with self._lock:
            leaving = [runner for runner in self._runners if runner.name == name]
            if not leaving:
                names = ", ".join(runner.name for runner in self._runners)
                raise UsageError(f"no worker is named {name!r}. There are: {names}")
            self._runners = tuple(runner for runner in self._runners if runner.name != name)
            self._left = (*self._left, *leaving)
        for runner in leaving:
            runner.stop()
            runner.join(None)  # each of its jobs has a deadline
            runner.worker.close()

    def release(self, ids: Iterable[int]) -> None:
        """No later job refers to these operands. Only enqueues, without a lock, so that finalizers may
        call it at any moment; workers are told before their next job."""
        released = tuple(ids)
        for runner in self._runners:
            runner.release(released)

    def holds(self, operand: int) -> bool:
        """Whether some worker is believed to hold this operand (it may have evicted it by now)."""
        return any(runner.holds(operand) for runner in self._runners)

    @property
    def width(self) -> int:
        """Number of workers usable now."""
        return len(self._usable())

    @property
    def speeds(self) -> list[float]:
        """Speeds of the workers usable now against the fastest, in the order that lanes go to them.

        In quarters, so that shards keep their shapes while timings waver. One without history counts
        as the fastest.
        """
        known = [runner.pace.speed for runner in self._usable()]
        fastest = max(known, default=0.0) or 1.0
        return [max(1, round(4 * (speed or fastest) / fastest)) / 4 for speed in known]

    @property
    def stats(self) -> Stats:
        runners = (*self._left, *self._runners)
        return Stats(
            retries=self._retries,
            bytes_sent=sum(runner.worker.bytes_sent for runner in runners),
            bytes_received=sum(runner.worker.bytes_received for runner in runners),
            jobs={runner.name: runner.jobs for runner in runners},
            busy_seconds={runner.name: runner.busy_seconds for runner in runners},
        )

    def close(self) -> None:
        """Give jobs under way a moment, then close every worker. May be called again."""
        self._closed = True
        until = time.monotonic() + _CLOSE_S
        for runner in self._runners:
            runner.stop()
        for runner in self._runners:
            runner.join(max(0.0, until - time.monotonic()))
            runner.worker.close()  # wakes a thread that still waits on its socket
        for runner in self._runners:
            runner.join(None)
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- placing ------------------------------------------------------------------------------

    def _usable(self) -> list[Runner]:
        """Those that may get a job; a worker that lags only where there is no other."""
        now = time.monotonic()
        usable = [runner for runner in self._runners if runner.usable(now)]
        return [runner for runner in usable if not runner.pace.lags] or usable

    def _place(self, task: Task, run: _Run, tried: Sequence[Runner]) -> Ticket | Failed:
        """Hand the task to a worker that has not tried it and holds what only workers hold."""
        usable = self._usable()
        fresh = [runner for runner in usable if runner not in tried]
        if not fresh:
            why = "every worker was tried" if usable else "no worker is usable"
            return Failed(NoWorkersLeft(f"{why}; {len(self._runners)} were given"))
        kept = [operand.id for operand in task.job.operands if operand.tensor is None]
        able = [runner for runner in fresh if all(runner.holds(operand) for operand in kept)]
        if not able:
            return Failed(OperandMissing("no usable worker holds the operands of a job: seal them anew"))
        home = run.lanes.get(task.lane)
        if home not in able:
            home = able[task.lane % len(able)]
            if not kept or task.lane not in run.lanes:
                run.lanes[task.lane] = home
        ticket = Ticket(task.job, home, run.abandoned)
        home.submit(ticket)
        return ticket

    def _collect(
        self, task: Task, placed: Ticket | Failed, run: _Run, accept: Callable[[Job, Unverified], T]
    ) -> Done[T] | Failed:
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
                        value = accept(task.job, outcome)
                        for slower in racing:
                            slower.dropped = True
                        return Done(value, runner.name)
                    except IntegrityError as error:
                        self._events.append(Event(EventKind.CHECK_FAILED, runner.name, str(error)))
                        runner.quarantine()
                        if any(operand.tensor is None for operand in task.job.operands):
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
            placed = self._place(task, run, tried)
            if isinstance(placed, Ticket):
                racing.append(placed)
                with self._lock:
                    self._retries += 1
                op = task.job.op.value
                self._events.append(Event(EventKind.RETRIED, placed.runner.name, f"redoes a {op}"))
            self._flush()
        if missing is not None and self.width:
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
            ready = all(o.tensor is not None or runner.holds(o.id) for o in late.job.operands)
            if ready and runner.idle and runner is not late.runner and runner not in tried:
                hedge = Ticket(late.job, runner, late.abandoned)
                runner.submit(hedge)
                detail = f"takes over from {late.runner.name}, which is late"
                self._events.append(Event(EventKind.HEDGED, runner.name, detail))
                return hedge
        return None

    def _flush(self) -> None:
        while self._events:
            try:
                event = self._events.popleft()
            except IndexError:
                return  # another thread took it
            if self._on_event is not None:
                self._on_event(event)
