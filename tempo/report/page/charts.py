"""Geometry of the charts. Templates draw them as stretched SVG without text in it: labels are HTML around it,
so that they wrap, scale and are read aloud, and every chart is, or stands beside, a table of its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from tempo.report.page.text import Text
from tempo.report.sections import Bar

#: Units of a strip or a curve from end to end.
WIDTH: Final = 1000
HEIGHT: Final = 100
#: Curves are thinned to so many points, keeping the extremes of each group.
_POINTS: Final = 400
#: Spans that are nearer than this share of the whole are drawn as one.
_NEAR: Final = 1 / 1500
#: Parts that have a colour of their own, in this order; others share the last one.
PARTS: Final = ("encode", "decode", "check", "worker", "send", "receive", "keys", "lower", "local", "wait")
#: Shown in the place of a difference of zero, which a logarithmic axis has no room for.
_LEAST: Final = 1e-9
_MOST_LANES: Final = 24


#: Class of the style sheet, label, values by step.
Series = Sequence[tuple[str, Text, Sequence[float]]]


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A row of a bar chart, which is a table. share: of the longest bar, from 0 to 1."""

    label: Text
    value: Text
    share: float
    note: Text
    tone: str = ""

    @property
    def width(self) -> float:
        return round(100 * self.share, 2)


def bars(rows: Sequence[tuple[Text, float, Text, Text]], tone: str = "") -> list[Line]:
    """rows: label, length, its figure, a note. Longest first if the caller sorted them."""
    longest = max((length for _, length, _, _ in rows if math.isfinite(length)), default=0.0) or 1.0
    return [
        Line(label, value, min(1.0, max(0.0, length / longest)) if math.isfinite(length) else 0.0, note, tone)
        for label, length, value, note in rows
    ]


@final
@dataclass(frozen=True, slots=True)
class Stripe:
    """All bars of one part on one lane, as the path of an SVG."""

    part: str
    kind: str
    path: str
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    stripes: list[Stripe]


@final
@dataclass(frozen=True, slots=True)
class Lanes:
    lanes: list[Lane]
    total_seconds: float
    parts: list[tuple[str, str]]
    left_out: int


def lanes(spans: Sequence[Bar]) -> Lanes | None:
    """A lane for each thread of the master, link and worker; None where nothing was traced."""
    spans = [s for s in spans if math.isfinite(s.start) and math.isfinite(s.seconds) and s.seconds >= 0]
    if not spans:
        return None
    first = min(s.start for s in spans)
    total = max(s.start + s.seconds for s in spans) - first or 1.0
    far = ("send", "worker", "receive", "product", "grad_x", "grad_w")
    names = list(dict.fromkeys(s.lane for s in spans))
    distant = {s.lane for s in spans if s.part in far}
    names = [n for n in names if n not in distant] + sorted(n for n in names if n in distant)
    out = []
    for name in names[:_MOST_LANES]:
        by_part: dict[str, list[Bar]] = {}
        for span in spans:
            if span.lane == name:
                by_part.setdefault(span.part, []).append(span)
        # Waiting first: what happens within it is drawn over it.
        order = sorted(by_part, key=lambda part: part != "wait")
        stripes = [
            Stripe(
                part,
                part_kind(part),
                _strip(by_part[part], first, total),
                sum(s.seconds for s in by_part[part]),
            )
            for part in order
        ]
        out.append(Lane(name, stripes))
    used = list(dict.fromkeys(stripe.part for lane in out for stripe in lane.stripes))
    return Lanes(out, total, [(part, part_kind(part)) for part in used], max(0, len(names) - _MOST_LANES))


def part_kind(part: str) -> str:
    """The class of its colour."""
    if part in ("product", "grad_x", "grad_w"):
        return "worker"
    return part if part in PARTS else "other"


def _strip(spans: Sequence[Bar], first: float, total: float) -> str:
    merged: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda each: each.start):
        start, end = (span.start - first) / total, (span.start + span.seconds - first) / total
        if merged and start - merged[-1][1] < _NEAR:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    cells = []
    for start, end in merged:
        x, width = WIDTH * start, max(0.7, WIDTH * (end - start))
        cells.append(f"M{x:.1f} 0h{width:.1f}v20h-{width:.1f}z")
    return "".join(cells)


@final
@dataclass(frozen=True, slots=True)
class Curve:
    """name: a class of the style sheet. path: in WIDTH x HEIGHT, larger values further up."""

    name: str
    label: Text
    path: str


@final
@dataclass(frozen=True, slots=True)
class Curves:
    curves: list[Curve]
    #: Labels of the vertical axis, from top to bottom.
    ticks: list[str]
    steps: int
    #: Where something happened: class, x.
    marks: list[tuple[str, float]]


def curves(series: Series, marks: Sequence[tuple[str, int]]) -> Curves | None:
    """Linear from 0 to the largest value. marks: class, step. None where there is no line to draw."""
    values = [v for _, _, of in series for v in of if math.isfinite(v)]
    if len(values) < 2 * len(series):
        return None
    top = max(*values, 0.0) or 1.0
    return _drawn(series, marks, lambda v: v / top, [f"{top:.3g}", f"{top / 2:.3g}", "0"])


def log_curves(series: Series, marks: Sequence[tuple[str, int]]) -> Curves | None:
    """Logarithmic, over whole powers of ten. None where there is no line to draw."""
    values = [max(_LEAST, v) for _, _, of in series for v in of if math.isfinite(v)]
    if len(values) < 2 * len(series):
        return None
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    low -= (high - low) % 2 or 2 * (high == low)  # an even number of powers, so that the middle is one
    ticks = [f"1e{high}", f"1e{(low + high) // 2}", f"1e{low}"]
    return _drawn(series, marks, lambda v: (math.log10(max(_LEAST, v)) - low) / (high - low), ticks)


def _drawn(
    series: Series, marks: Sequence[tuple[str, int]], place: Callable[[float], float], ticks: list[str]
) -> Curves:
    """place: height of a value, from 0 to 1."""
    steps = max(len(of) for _, _, of in series)
    across = WIDTH / max(1, steps - 1)
    made = []
    for name, label, of in series:
        points = [(i, v) for i, v in enumerate(of) if math.isfinite(v)]
        stride = -(-len(points) // _POINTS)
        thin = [
            each
            for k in range(0, len(points), max(1, stride))
            for each in sorted(
                {min(points[k : k + stride], key=_by_value), max(points[k : k + stride], key=_by_value)}
            )
        ]
        path = " ".join(f"{i * across:.1f} {HEIGHT * (1 - place(v)):.2f}" for i, v in thin)
        made.append(Curve(name, label, f"M{path}" if path else ""))
    where = [(kind, round(step * across, 1)) for kind, step in marks if 0 <= step < steps]
    return Curves(made, ticks, steps, where)


def _by_value(point: tuple[int, float]) -> float:
    return point[1]
