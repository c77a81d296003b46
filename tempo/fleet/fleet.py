"""The fleet: hands jobs to workers that nobody trusts, and brings back what passed its check.

    results = fleet.run(tasks, accept)      accept returns a value, or raises IntegrityError

What a worker may do, and what follows:

    it dies, is late, breaks the protocol   dropped; its jobs are redone elsewhere
    its reply fails the check               reply discarded, worker quarantined, job redone elsewhere
    it evicted an operand                   shipped again to the same worker
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
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar, final

from tempo.errors import IntegrityError, NoWorkersLeft, OperandMissing, UsageError, WorkerError
from tempo.fleet.runner import Runner, Ticket
from tempo.fleet.settings import Event, EventKind, FleetSettings, Stats
from tempo.fleet.worker import Worker
from tempo.ops import Job, Unverified

T = TypeVar("T")

#: Time that `close` leaves a job under way before it cuts the connection.
_CLOSE_S = 1.0


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
        self._on_event = on_event
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()  # guards _retries
        self._retries = 0
        self._owner = os.getpid()
        self._closed = False
        settings = settings or FleetSettings()
        self._runners = tuple(Runner(worker, settings, self._events.append) for worker in workers)

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
    def stats(self) -> Stats:
        return Stats(
            retries=self._retries,
            bytes_sent=sum(runner.worker.bytes_sent for runner in self._runners),
            bytes_received=sum(runner.worker.bytes_received for runner in self._runners),
            jobs={runner.name: runner.jobs for runner in self._runners},
            busy_seconds={runner.name: runner.busy_seconds for runner in self._runners},
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
        now = time.monotonic()
        return [runner for runner in self._runners if runner.usable(now)]

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
        while isinstance(placed, Ticket):
            placed.done.wait()
            self._flush()
            runner, outcome, placed.outcome = placed.runner, placed.outcome, None
            match outcome:
                case Unverified():
                    try:
                        return Done(accept(task.job, outcome), runner.name)
                    except IntegrityError as error:
                        self._events.append(Event(EventKind.CHECK_FAILED, runner.name, str(error)))
                        runner.quarantine()
                case OperandMissing():
                    missing = outcome
                case WorkerError():
                    pass  # the runner has drawn the consequences and reported them
                case BaseException():
                    raise outcome
                case None:
                    raise AssertionError("a ticket of a run that goes on has an outcome")
            tried.append(runner)
            placed = self._place(task, run, tried)
            if isinstance(placed, Ticket):
                with self._lock:
                    self._retries += 1
                op = task.job.op.value
                self._events.append(Event(EventKind.RETRIED, placed.runner.name, f"redoes a {op}"))
            self._flush()
        return Failed(missing) if missing is not None and self.width else placed

    def _flush(self) -> None:
        while self._events:
            try:
                event = self._events.popleft()
            except IndexError:
                return  # another thread took it
            if self._on_event is not None:
                self._on_event(event)
