"""What a page is made of before it is HTML: sections of blocks, tables of cells. Templates draw each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from tempo.report.page.charts import Curves, Lane, Line
from tempo.report.page.text import NOTHING, Text


@final
@dataclass(frozen=True, slots=True)
class Code:
    """A command or a name of the program."""

    text: str
    kind: ClassVar[str] = "code"


@final
@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in a word. tone: good, care, bad, plain."""

    text: Text
    tone: str = "plain"
    kind: ClassVar[str] = "badge"


@final
@dataclass(frozen=True, slots=True)
class Gauge:
    """A score from 0 to 1, with what guessing reaches and what is reached where nothing is hidden."""

    score: float | None
    chance: float | None
    undefended: float | None
    kind: ClassVar[str] = "gauge"

    def at(self, name: str) -> float | None:
        """In per cent of the bar, None where there is no figure."""
        value: float | None = getattr(self, name)
        return None if value is None else round(100 * min(1.0, max(0.0, value)), 2)


Cell = Text | str | Code | Badge | Gauge


@final
@dataclass(frozen=True, slots=True)
class Para:
    text: Text
    tone: str = ""
    kind: ClassVar[str] = "para"


@final
@dataclass(frozen=True, slots=True)
class Heading:
    text: Text
    kind: ClassVar[str] = "heading"


@final
@dataclass(frozen=True, slots=True)
class Items:
    texts: Sequence[Text]
    kind: ClassVar[str] = "items"


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """Words with what they mean."""

    pairs: Sequence[tuple[Cell, Text]]
    kind: ClassVar[str] = "terms"


@final
@dataclass(frozen=True, slots=True)
class Commands:
    """lead: what they are for."""

    lead: Text
    commands: Sequence[str]
    kind: ClassVar[str] = "commands"


@final
@dataclass(frozen=True, slots=True)
class Missing:
    """What the run did not have, and what would measure it."""

    lead: Text
    ask: Text
    commands: Sequence[str]
    kind: ClassVar[str] = "missing"


@final
@dataclass(frozen=True, slots=True)
class Table:
    """The first column heads its row. numbers: columns of figures. slim: two or three short columns, which
    fit on a phone as they are."""

    caption: Text
    heads: Sequence[Text]
    rows: Sequence[Sequence[Cell]]
    numbers: frozenset[int] = frozenset()
    slim: bool = False
    kind: ClassVar[str] = "table"


@final
@dataclass(frozen=True, slots=True)
class BarTable:
    """A table whose rows have a bar each: the chart and its figures in one."""

    caption: Text
    head: Text
    value_head: Text
    lines: Sequence[Line]
    note_head: Text = NOTHING
    kind: ClassVar[str] = "bars"


@final
@dataclass(frozen=True, slots=True)
class CurveChart:
    caption: Text
    alt: Text
    axis: Text
    curves: Curves
    marks: Sequence[tuple[str, Text]] = ()
    kind: ClassVar[str] = "curves"


@final
@dataclass(frozen=True, slots=True)
class LaneChart:
    """rows: a lane each, with what it was busy with in words."""

    caption: Text
    rows: Sequence[tuple[Lane, Text]]
    total: Text
    #: Class and word of each part.
    legend: Sequence[tuple[str, Text]]
    heads: tuple[Text, Text]
    kind: ClassVar[str] = "lanes"


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """Pictures as data URIs."""

    caption: Text
    recovered: str
    true: str
    recovered_alt: Text
    true_alt: Text


@final
@dataclass(frozen=True, slots=True)
class Gallery:
    pairs: Sequence[Pair]
    recovered: Text
    true: Text
    kind: ClassVar[str] = "gallery"


@final
@dataclass(frozen=True, slots=True)
class Fold:
    """Closed on a screen until it is asked for, open on paper. says: the essential of what is inside, so that
    whoever does not open it misses details alone."""

    title: Text
    says: Text
    blocks: Sequence[Block]
    kind: ClassVar[str] = "fold"


Block = (
    Para
    | Heading
    | Items
    | Terms
    | Commands
    | Missing
    | Table
    | BarTable
    | CurveChart
    | LaneChart
    | Gallery
    | Fold
)


@final
@dataclass(frozen=True, slots=True)
class Section:
    """anchor: its id on the page."""

    anchor: str
    title: Text
    blocks: Sequence[Block]


@final
@dataclass(frozen=True, slots=True)
class KeyFigure:
    value: Text
    what: Text
    tone: str = ""


@final
@dataclass(frozen=True, slots=True)
class Page:
    """tone: good, care, bad. verdict: its headline; summary: one paragraph in plain words. onward: the anchor
    of what the verdict leaves open."""

    kind_of: Text
    title: Text
    tone: str
    verdict: Text
    summary: Text
    figures: Sequence[KeyFigure]
    made: Text
    sections: Sequence[Section]
    onward: str
