"""The fleet: hands jobs to workers that nobody trusts, and brings back what passed its check.

    results = fleet.run(tasks, accept)              accept returns a value, or raises IntegrityError
    for result in fleet.stream(tasks, accept): ...  the same, while later tasks are under way

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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar, final

from tempo.errors import UsageError
from tempo.fleet.dispatch import Dispatch
from tempo.fleet.round import Round
from tempo.fleet.runner import Runner
from tempo.fleet.settings import Event, EventKind, FleetSettings, Standing, Stats, Watcher
from tempo.fleet.task import Done, Failed, Task
from tempo.fleet.worker import Worker
from tempo.ops import AnyJob, Unverified

T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)

#: Time that `close` leaves a job under way before it cuts the connection.
_CLOSE_S = 1.0


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
        self._watcher: Watcher | None = None
        self._runners = tuple(self._runner(worker) for worker in workers)
        self._left: tuple[Runner, ...] = ()

    def run(self, tasks: Iterable[Task[J]], accept: Callable[[J, Unverified], T]) -> list[Done[T] | Failed]:
        """The outcomes of tasks, in the order given. `tasks` is pulled lazily and each task leaves at
        once, so the caller seals the next one while workers compute. `accept` is called in this thread."""
        return list(self.stream(tasks, accept))

    def stream(
        self, tasks: Iterable[Task[J]], accept: Callable[[J, Unverified], T], window: int | None = None
    ) -> Generator[Done[T] | Failed, None, None]:
        """As `run`, each outcome as soon as it and those before it are known, while later tasks are
        under way. window: so many tasks are out at most; the next is pulled when one has come back.

        Closing the iterator before its end gives up what is under way. Not every caller exhausts
        it, so close it (contextlib.closing).
        """
        self._require_open()
        if window is not None and window < 1:
            raise UsageError(f"window is the number of tasks under way, at least 1, not {window}")
        return self._stream(iter(tasks), accept, window)

    def _stream(
        self, tasks: Iterator[Task[J]], accept: Callable[[J, Unverified], T], window: int | None
    ) -> Generator[Done[T] | Failed, None, None]:
        run = self._round(accept)
        try:
            while True:
                for task in tasks if window is None else islice(tasks, window - len(run)):
                    run.place(task)
                    del task  # operands of a finished job are not kept
                if not len(run):
                    return
                outcome = run.collect()
                yield outcome
                del outcome
        finally:
            # Interrupted, closed, out of memory, or accept found a fault of ours: what is open is given up.
            run.abandon()

    def begin(self, accept: Callable[[J, Unverified], T]) -> Round[J, T]:
        """A round whose tasks the caller places and collects itself."""
        self._require_open()
        return self._round(accept)

    def _round(self, accept: Callable[[J, Unverified], T]) -> Round[J, T]:
        dispatch: Dispatch[J, T] = Dispatch(
            accept,
            usable=self._usable,
            given=len(self._runners),
            events=self._events,
            retried=self._count_retry,
            flush=self._flush,
        )
        return Round(dispatch, self._flush)

    def _require_open(self) -> None:
        if self._closed or os.getpid() != self._owner:
            raise UsageError("this fleet is closed, or belongs to another process: make a new one")

    def _runner(self, worker: Worker) -> Runner:
        return Runner(worker, self._settings, self._events.append, self._span)

    def _span(self, part: str, lane: str, start: float, end: float, nbytes: int) -> None:
        if (watcher := self._watcher) is not None:
            watcher(part, lane, start, end, nbytes)

    def _count_retry(self) -> None:
        with self._lock:
            self._retries += 1

    def add(self, worker: Worker) -> None:
        """A worker joins, also while runs are under way. The fleet owns it from here on."""
        with self._lock:
            if self._closed or worker.name in {runner.name for runner in self._runners}:
                raise UsageError(f"this fleet is closed or has a worker named {worker.name} already")
            self._runners = (*self._runners, self._runner(worker))

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

    def accuse(self, name: str, detail: str) -> None:
        """A reply of this worker was found false by a check that took several replies together: it is
        quarantined, as where `accept` finds it out. detail: plain words of ours."""
        for runner in self._runners:
            if runner.name == name:
                self._events.append(Event(EventKind.CHECK_FAILED, name, detail))
                runner.quarantine()
        self._flush()

    def holds(self, operand: int) -> bool:
        """Whether some worker is believed to hold this operand (it may have evicted it by now)."""
        return any(runner.holds(operand) for runner in self._runners)

    def watch(self, watcher: Watcher | None) -> None:
        """From now on tell `watcher` when jobs were sent, computed, received; None: nobody."""
        self._watcher = watcher

    @property
    def standing(self) -> dict[str, Standing]:
        """Of each worker that was caught, by name."""
        return {r.name: r.standing for r in self._runners if r.standing.relapses}

    def restore(self, standing: Mapping[str, Standing]) -> None:
        """What an earlier run held against workers of these names counts again."""
        for runner in self._runners:
            if runner.name in standing:
                runner.restore(standing[runner.name])

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

    def _usable(self) -> list[Runner]:
        """Those that may get a job; a worker that lags only where there is no other."""
        now = time.monotonic()
        usable = [runner for runner in self._runners if runner.usable(now)]
        return [runner for runner in usable if not runner.pace.lags] or usable

    def _flush(self) -> None:
        while self._events:
            try:
                event = self._events.popleft()
            except IndexError:
                return  # another thread took it
            if self._on_event is not None:
                self._on_event(event)
