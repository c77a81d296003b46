"""A process for each subject, several at once: attacks on different references have nothing in common.

An attack that does not come back from a library in time, or that takes its process down, costs that
process: it is listed, and a fresh process goes on behind it. Recordings lie in a folder of this process, so
that they are removed whatever becomes of the other.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, final

import torch
from threadpoolctl import threadpool_limits

from tempo.attacks.suite.clock import Clock
from tempo.attacks.suite.rows import Picture, Result, Row
from tempo.attacks.suite.run import Plan, Watcher, run, skipped
from tempo.errors import TempoError

#: An attack stops itself when its time is over; so many seconds later its process is ended.
_GRACE_S: Final = 15.0
_LOOK_S: Final = 1.0


def run_in_processes(
    plan: Plan, clock: Clock, watcher: Watcher, jobs: int, before: Sequence[Row] = ()
) -> Result:
    """As `tempo.attacks.suite.run.run`. jobs: processes at once, which divide this machine's cores."""
    start = time.monotonic()
    watcher.begin(plan.runs - len({(row.reference, row.scheme, row.attack) for row in before}))
    crew = _Crew(plan, clock, watcher, jobs, before)
    try:
        crew.work()
    finally:
        crew.end()
    result = Result(seconds=time.monotonic() - start)
    for name in plan.entries:
        of = crew.parts[name]
        result.rows += [row for row in of.rows[of.before :] if row.scheme in plan.wanted]
        result.pictures += of.pictures
        if of.title:
            result.subjects[name] = of.title
    return result


def run_on_references(
    plan: Plan, clock: Clock, watcher: Watcher, jobs: int, before: Sequence[Row] = ()
) -> Result:
    """In this process where there is nothing to divide. jobs: processes at most."""
    if min(jobs, len(plan.entries)) > 1:
        return run_in_processes(plan, clock, watcher, jobs, before)
    return run(plan, clock, watcher, before)


@final
@dataclass(slots=True, eq=False)
class _Part:
    """What is known of one subject so far. before: how many rows come from an earlier run."""

    rows: list[Row] = field(default_factory=list)
    before: int = 0
    pictures: list[Picture] = field(default_factory=list)
    title: str = ""


@final
@dataclass(slots=True, eq=False)
class _Child:
    name: str
    process: BaseProcess
    pipe: Connection
    folder: tempfile.TemporaryDirectory[str]
    #: When what it is doing should have ended, by time.monotonic, and whether that is an attack.
    end: float = math.inf
    attacks: bool = False


@final
class _Crew:
    def __init__(self, plan: Plan, clock: Clock, watcher: Watcher, jobs: int, before: Sequence[Row]) -> None:
        self._plan, self._clock, self._watcher, self._jobs = plan, clock, watcher, jobs
        self.parts = {}
        for name in plan.entries:
            rows = [row for row in before if row.reference == name]
            self.parts[name] = _Part(rows, len(rows))
        # Those with the most attacks first, so that they do not end alone.
        self._queue = sorted(plan.entries, key=lambda name: -len(plan.entries[name]))
        self._children: list[_Child] = []

    def work(self) -> None:
        while self._queue or self._children:
            while self._queue and len(self._children) < self._jobs:
                self._start(self._queue.pop(0))
            ready = wait([child.pipe for child in self._children], _LOOK_S)
            for child in list(self._children):
                if child.pipe in ready and not self._heard(child):
                    self._lost(child, "its process ended")
                elif time.monotonic() > child.end + _GRACE_S:
                    self._lost(child, "out of time: its process was ended")

    def end(self) -> None:
        for child in list(self._children):
            self._dismiss(child)

    def _start(self, name: str) -> None:
        plan, part = self._plan, self.parts[name]
        one = replace(plan, entries={name: plan.entries[name]}, makers={name: plan.makers[name]})
        ahead = sum(len(plan.recorded) * len(plan.entries[other]) for other in self._queue)
        clock = (self._clock.left_s, self._clock.each_s, ahead // self._jobs)
        folder = tempfile.TemporaryDirectory(prefix="tempo-attacks-")
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe(duplex=False)
        threads = max(1, len(os.sched_getaffinity(0)) // self._jobs)
        process = context.Process(target=_work, args=(theirs, one, clock, part.rows, folder.name, threads))
        process.start()
        theirs.close()
        self._children.append(_Child(name, process, pipe, folder))

    def _heard(self, child: _Child) -> bool:
        """False where nothing will come any more and something is missing."""
        try:
            kind, *what = child.pipe.recv()
        except (EOFError, OSError):
            return False
        part = self.parts[child.name]
        match kind:
            case "say":
                self._watcher.say(*what)
            case "running":
                child.end, child.attacks = time.monotonic() + what[1], what[1] < math.inf
                self._watcher.running(*what)
            case "done":
                pictures = [Picture(*about, *map(torch.from_numpy, images)) for about, images in what[1]]
                part.rows += what[0]
                part.pictures += pictures
                child.end, child.attacks = math.inf, False
                self._watcher.done(what[0], pictures)
            case "title":
                part.title = what[0]
                self._dismiss(child)
            case "refused":
                raise what[0]
        return True

    def _lost(self, child: _Child, why: str) -> None:
        """The attack that was running is listed, or, where none was, all that needed the recording."""
        self._dismiss(child)
        finished = {(row.scheme, row.attack) for row in self.parts[child.name].rows}
        code = child.process.exitcode
        for variant in self._plan.recorded:
            rest = [
                e for e in self._plan.of(child.name, variant) if (str(variant), e.attack.name) not in finished
            ]
            if not rest:
                continue
            text = why if why.startswith("out") else f"failed: {why} (exit code {code})"
            for entry in rest[:1] if child.attacks else rest:
                row = skipped(entry, variant, child.name, text, time.monotonic())
                self.parts[child.name].rows.append(row)
                self._watcher.done([row])
            self._queue.insert(0, child.name)
            return

    def _dismiss(self, child: _Child) -> None:
        self._children.remove(child)
        child.pipe.close()
        child.process.join(_LOOK_S)
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
        child.folder.cleanup()


@final
class _Relay(Watcher):
    """Tells the process that started this one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def tell(self, *what: Any) -> None:
        self._pipe.send(what)

    def say(self, text: str) -> None:
        self.tell("say", text)

    def begin(self, runs: int) -> None:
        pass

    def running(self, what: str, limit_s: float = math.inf) -> None:
        self.tell("running", what, limit_s)

    def done(self, rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> None:
        # Arrays are copied into the pipe; tensors would be shared, with a process that may be ended.
        plain = [
            ((p.attack, p.scheme, p.reference, p.title), (p.recovered.numpy(), p.true.numpy()))
            for p in pictures
        ]
        self.tell("done", list(rows), plain)


def _work(
    pipe: Connection,
    plan: Plan,
    clock: tuple[float, float, int],
    before: Sequence[Row],
    folder: str,
    threads: int,
) -> None:
    tempfile.tempdir = folder
    if not Path(folder).is_dir():
        return
    torch.set_num_threads(threads)
    relay = _Relay(pipe)
    with threadpool_limits(threads):
        try:
            result = run(plan, Clock(*clock), relay, before)
        except TempoError as error:
            relay.tell("refused", error)
            return
    relay.tell("title", next(iter(result.subjects.values()), ""))
