"""A timeline: which part of the work ran when, where, and over how many bytes. No secret in it.

Lanes are threads of the master and, for each worker, its link and the worker itself as seen from here:

    send      a job's frame is written                     lane "NAME link"
    worker    from then, or from the reply before, until the reply begins     lane "NAME"
    receive   the rest of the reply is read                lane "NAME link"
    encode, decode, check, keys, lower, wait, ...          lane: the master's thread

Written as JSON of the Trace Event Format (chrome://tracing, Perfetto, Speedscope), or drawn.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.errors import OutsideError, UsageError

#: Spans of a trace, at most: later ones are counted only.
_MOST = 1_000_000
_DRAWN = (".png", ".svg", ".pdf")
#: Parts that are no work of the master's: it waits, or bytes are on their way.
_IDLE: Final = frozenset({"wait", "send", "receive"})
#: Over the colours of matplotlib's default cycle, so that a part has the same in each figure.
_COLOURS: Final = {
    "encode": "C0",
    "decode": "C1",
    "worker": "C2",
    "check": "C3",
    "send": "C4",
    "receive": "C5",
    "keys": "C6",
    "lower": "C8",
    "local": "C9",
    "wait": "0.9",
}


@final
@dataclass(frozen=True, slots=True)
class Span:
    """start: seconds of time.perf_counter(). nbytes: 0 where they are not counted."""

    part: str
    lane: str
    start: float
    seconds: float
    nbytes: int = 0

    @property
    def end(self) -> float:
        return self.start + self.seconds

    def overlaps(self, other: Span) -> float:
        """Seconds that both ran."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))


@final
class Trace:
    """Thread-safe. `part` is for Stats.watch, `span` for Fleet.watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._spans: list[Span] = []
        self.left_out = 0
        #: What was traced, over the figure and in the file.
        self.title = ""

    @property
    def spans(self) -> list[Span]:
        """By their start."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.start)

    def part(self, name: str, begins: bool) -> None:
        """A part of this thread's work begins or ends. An end without a beginning was before our time."""
        begun: list[tuple[str, float]] = self._local.__dict__.setdefault("begun", [])
        now = time.perf_counter()
        if begins:
            begun.append((name, now))
        elif begun:
            part, start = begun.pop()
            self.span(part, threading.current_thread().name, start, now)

    def span(self, part: str, lane: str, start: float, end: float, nbytes: int = 0) -> None:
        with self._lock:
            if len(self._spans) < _MOST:
                self._spans.append(Span(part, lane, start, end - start, nbytes))
            else:
                self.left_out += 1

    def save(self, path: str | Path) -> None:
        """As the suffix says: .json, or a figure. Raises UsageError, OutsideError."""
        path = ready_to_save(path)
        try:
            if path.suffix == ".json":
                path.write_text(json.dumps(chrome(self.spans, self.title)), encoding="utf-8")
            else:
                draw(self.spans, path, self.title)
        except OSError as error:
            raise OutsideError(f"cannot write the timeline to {path} ({error.strerror})") from error


@contextmanager
def recording(
    trace: Trace,
    parts: Callable[[Callable[[str, bool], None] | None], None],
    spans: Callable[[Callable[[str, str, float, float, int], None] | None], None],
) -> Iterator[None]:
    """Inside, `trace` is told of everything. parts, spans: `watch` of a session's Stats and of its fleet."""
    parts(trace.part)
    spans(trace.span)
    try:
        yield
    finally:
        parts(None)
        spans(None)


def ready_to_save(path: str | Path) -> Path:
    """The path, if a trace can be saved there: asked before anything is traced. Raises UsageError."""
    path = Path(path)
    if path.suffix not in (".json", *_DRAWN):
        raise UsageError(
            f"a timeline is written to .json or drawn to {', '.join(_DRAWN)}, not to {path.name!r}"
        )
    if path.suffix in _DRAWN and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "a timeline is drawn with matplotlib: pip install 'tempo-confidential[demo]', or write .json"
        )
    return path


def lanes(spans: Sequence[Span]) -> list[str]:
    """The master's threads first, then workers with their links."""
    far = {span.lane for span in spans if span.part in ("send", "worker", "receive")}
    near = dict.fromkeys(span.lane for span in spans if span.lane not in far)
    return [*near, *sorted(far)]


def overlap(spans: Iterable[Span]) -> float:
    """Share of the time in which the master was busy, not waiting, in which some worker was too."""
    busy, jobs = [], []
    for span in spans:
        if span.part == "worker":
            jobs.append((span.start, span.end))
        elif span.part not in _IDLE:
            busy.append((span.start, span.end))
    master = _merged(busy)
    total = sum(end - start for start, end in master)
    both = sum(max(0.0, min(e, f) - max(s, g)) for s, e in master for g, f in _merged(jobs))
    return both / total if total else 0.0


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union as disjoint intervals."""
    out: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def chrome(spans: Sequence[Span], title: str = "") -> dict[str, object]:
    """The Trace Event Format: complete events in microseconds, and a name for each lane."""
    first = min((span.start for span in spans), default=0.0)
    numbers = {lane: number for number, lane in enumerate(lanes(spans))}
    names = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": lane}}
        for lane, number in numbers.items()
    ]
    events = [
        {
            "ph": "X",
            "name": span.part,
            "cat": "tempo",
            "pid": 1,
            "tid": numbers[span.lane],
            "ts": round(1e6 * (span.start - first), 3),
            "dur": round(1e6 * span.seconds, 3),
            "args": {"bytes": span.nbytes} if span.nbytes else {},
        }
        for span in spans
    ]
    other = {"title": title, "overlap_of_master_and_workers": round(overlap(spans), 4)}
    return {"traceEvents": [*names, *events], "displayTimeUnit": "ms", "otherData": other}


def draw(spans: Sequence[Span], path: Path, title: str = "") -> None:
    """One row per lane, one colour per part. Parts within others are drawn over them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = lanes(spans)
    first = min((span.start for span in spans), default=0.0)
    figure = Figure(figsize=(12, 1.2 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    parts = sorted({span.part for span in spans}, key=lambda part: (part not in _COLOURS, part))
    for row, lane in enumerate(rows):
        for part in sorted(parts, key=lambda part: part != "wait"):
            bars = [(s.start - first, s.seconds) for s in spans if s.lane == lane and s.part == part]
            axes.broken_barh(bars, (row - 0.4, 0.8), color=_COLOURS.get(part, "0.5"))
    for part in parts:
        axes.plot([], [], color=_COLOURS.get(part, "0.5"), linewidth=6, label=part)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=max(1, len(parts)))
    words = f"Workers compute in {100 * overlap(spans):.0f} % of the master's busy time"
    axes.set_title(f"{title}: {words}" if title else words, loc="left", fontsize=9)
    figure.savefig(path)
