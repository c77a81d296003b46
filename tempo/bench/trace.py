"""A timeline of one step: what the master does, and which job each worker has, side by side.

Written as a picture (.png, .svg, .pdf) or as events for chrome://tracing and Perfetto (.json).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tempo.bench.quiet import WAIT
from tempo.errors import OutsideError, UsageError
from tempo.fleet import Worker
from tempo.ops import AnyJob, Unverified

PICTURES = (".png", ".svg", ".pdf")


@final
@dataclass(frozen=True, slots=True)
class Span:
    """start, end: seconds of one clock. lane: the master's thread or the worker's name."""

    lane: str
    what: str
    start: float
    end: float


@final
class Tracer:
    """Collects spans while `on`. Thread-safe. Serves as the watcher of a session's Stats."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in (*PICTURES, ".json"):
            raise UsageError(f"--trace {path}: expected a name that ends in .json, {', '.join(PICTURES)}")
        self.path = path
        self.on = False
        self.done = False
        self.title = ""
        self.spans: list[Span] = []
        self._lock = threading.Lock()
        self._open = threading.local()

    def __call__(self, part: str, begins: bool) -> None:
        stack: list[tuple[str, float]] = self._open.__dict__.setdefault("stack", [])
        now = time.perf_counter()
        if begins:
            stack.append((part, now))
        elif stack:
            name, start = stack.pop()
            if name != WAIT:
                main = threading.current_thread() is threading.main_thread()
                self.add("master" if main else f"master, {threading.current_thread().name}", name, start, now)

    def add(self, lane: str, what: str, start: float, end: float) -> None:
        if self.on:
            with self._lock:
                self.spans.append(Span(lane, what, start, end))

    def overlap(self) -> float:
        """Share of the master's busy time in which some worker had a job."""
        busy = _merged((s.start, s.end) for s in self.spans if s.lane.startswith("master"))
        jobs = _merged((s.start, s.end) for s in self.spans if not s.lane.startswith("master"))
        total = sum(end - start for start, end in busy)
        both = sum(max(0.0, min(e, f) - max(s, g)) for s, e in busy for g, f in jobs)
        return both / total if total else 0.0

    def write(self) -> None:
        """Raises OutsideError where the file cannot be written."""
        if not self.spans:
            raise UsageError(
                "--trace: no step was traced, since no protected step was measured (see skipped): give a "
                "larger --budget, or --fast for small shapes"
            )
        try:
            if self.path.suffix == ".json":
                self.path.write_text(json.dumps(self.events()) + "\n")
            else:
                from tempo.bench.figures import timeline

                timeline(self.path, self.spans, self.title, self.overlap())
        except OSError as error:
            raise OutsideError(f"--trace {self.path} cannot be written ({error.strerror})") from error

    def events(self) -> dict[str, object]:
        """Trace Event Format: complete events, microseconds."""
        first = min(span.start for span in self.spans)
        return {
            "traceEvents": [
                {
                    "name": span.what,
                    "ph": "X",
                    "ts": 1e6 * (span.start - first),
                    "dur": 1e6 * (span.end - span.start),
                    "pid": 1,
                    "tid": span.lane,
                }
                for span in self.spans
            ],
            "displayTimeUnit": "ms",
            "otherData": {"title": self.title, "overlap_of_master_and_workers": self.overlap()},
        }


@final
class Watched(Worker):
    """A worker whose jobs (transfer, product, reply) are counted, and put on the timeline if there is one."""

    def __init__(self, worker: Worker, tracer: Tracer | None = None) -> None:
        self.name = worker.name
        #: Of all jobs so far: multiplications and additions of the products, as they were lowered.
        self.flops = 0
        #: As of the worker: else the session would have one job under way where it could have two.
        self.depth = worker.depth
        self._worker = worker
        self._tracer = tracer
        self._begun: deque[tuple[AnyJob, float]] = deque()
        self._free = 0.0  # when the last reply had come

    def connect(self) -> None:
        self._begun.clear()
        self._worker.connect()

    def begin(self, job: AnyJob, ship: frozenset[int], deadline: float) -> None:
        start = time.perf_counter()
        self._worker.begin(job, ship, deadline)
        self._begun.append((job, start))

    def ready(self, seconds: float) -> bool:
        return self._worker.ready(seconds)

    def end(self, deadline: float) -> Unverified:
        """On the timeline a job starts once the one before it is answered."""
        job, start = self._begun.popleft()
        try:
            return self._worker.end(deadline)
        finally:
            self.flops += job.flops
            start, self._free = max(start, self._free), time.perf_counter()
            if self._tracer is not None:
                self._tracer.add(self.name, job.op.value, start, self._free)

    def run(self, job: AnyJob, ship: frozenset[int], deadline: float) -> Unverified:
        start = time.perf_counter()
        try:
            return self._worker.run(job, ship, deadline)
        finally:
            self.flops += job.flops
            if self._tracer is not None:
                self._tracer.add(self.name, job.op.value, start, time.perf_counter())

    def release(self, ids: Iterable[int], deadline: float) -> None:
        self._worker.release(ids, deadline)

    def close(self) -> None:
        self._worker.close()

    def drop(self) -> None:
        self._worker.drop()

    def retry_s(self, attempt: int) -> float | None:
        return self._worker.retry_s(attempt)

    @property
    def bytes_sent(self) -> int:
        return self._worker.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._worker.bytes_received


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union as disjoint intervals."""
    out: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out
