"""The table of the suite: for a terminal, as Markdown and as CSV. Everything is in the JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tempo.attacks.suite.rows import FIELDS, Result, Row
from tempo.attacks.suite.summary import as_table, worst_of

SHORT: Final = (
    "attack",
    "reference",
    "scheme",
    "operand",
    "score",
    "chance",
    "clear",
    "interval",
    "n",
    "verdict",
)
_HEAD: Final = (
    *("attack", "scheme", "reference", "operand", "side knowledge", "score", "chance", "undefended"),
    *("95 % interval", "n", "verdict", "note"),
)


def short(row: Row) -> list[str]:
    """Cells under SHORT."""
    r = row.to_dict()
    first = [row.attack, row.reference, row.scheme, r["operand"] or row.why]
    interval = f"{_figure(r['low'])} to {_figure(r['high'])}" if row.finding else ""
    figures = [_figure(r[name]) for name in ("score", "chance", "undefended")]
    return [*first, *figures, interval, str(r["n"] or ""), row.verdict]


def as_csv(result: Result) -> str:
    """All rows with the fields of the JSON; details are left to it."""
    out = io.StringIO()
    names = [name for name in FIELDS if name != "details"]
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.to_dict() for row in result.rows)
    return out.getvalue()


def markdown(fields: Mapping[str, Any], result: Result, pictures: Sequence[Path]) -> str:
    """A report with the same parts every time."""
    machine = fields["machine"]
    head = [
        "# Attack suite",
        "",
        "What the cloud could learn, measured: how to read it is in docs/secrecy.md.",
        "",
        f"- command: `{fields['command']}`",
        f"- commit: {fields['commit']}, tempo {fields['tempo']}, torch {machine['torch']}",
        f"- machine: {machine['cpu']}, {machine['cores']} cores",
        f"- {result.seconds:.0f} s in all",
        *(f"- {name}: {title}" for name, title in result.subjects.items()),
        "",
    ]
    for picture in pictures:
        head += [f"![{picture.stem}]({picture.name})", ""]
    head += ["## Verdicts", "", "Of the worst operand of each attack.", "", *as_table(worst_of(result)), ""]
    table = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    table += [_line(_cells(row)) for row in result.rows if row.finding is not None]
    parts = [*head, "## Findings", "", *table, ""]
    metrics = {row.attack: row.metric for row in result.rows}
    chance = {row.attack: row.chance_from for row in result.rows if row.chance_from}
    parts += ["## What scores mean", ""]
    parts += [f"- {name}: {metric}. Chance: {chance.get(name, 'none')}." for name, metric in metrics.items()]
    skipped = [row for row in result.rows if row.finding is None]
    if skipped:
        parts += [
            "",
            "## Not measured",
            "",
            _line(("attack", "scheme", "reference", "why")),
            _line(["---"] * 4),
        ]
        parts += [_line((row.attack, row.scheme, row.reference, row.why)) for row in skipped]
    return "\n".join(parts) + "\n"


def _cells(row: Row) -> list[str]:
    r = row.to_dict()
    first = [row.attack, row.scheme, row.reference, r["operand"], row.side_knowledge]
    figures = [_figure(r[name]) for name in ("score", "chance", "undefended")]
    interval = f"{_figure(r['low'])} to {_figure(r['high'])}"
    return [*first, *figures, interval, str(r["n"]), row.verdict, r["note"]]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"
