"""The verdict of each attack under each scheme, as small data that reports quote without running anything.

`tempo attack --out` writes it as verdicts.json; the package ships the one of its own release
(tempo/report/verdicts.json).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from tempo.attacks.suite.rows import NOTHING, RANK, SKIPPED, Result, Row
from tempo.config import Config

#: Settings that decide what workers see.
SETTINGS: Final = (
    *("key_shift", "rounds", "row_rounds", "block", "spread", "min_size", "deflate", "decoys", "fill"),
    *("gain", "repeats", "weight_uses"),
)


def summary(fields: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """fields: the JSON object of the whole result. The worst operand and reference of an attack counts."""
    config = Config()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": fields["commit"],
        "tempo": fields["tempo"],
        "command": fields["command"],
        "settings": {name: getattr(config, name) for name in SETTINGS},
        "schemes": worst_of(result),
    }


def worst_of(result: Result) -> dict[str, dict[str, Any]]:
    """By scheme and attack."""
    schemes: dict[str, dict[str, Any]] = {}
    ranks: dict[tuple[str, str], tuple[float, float]] = {}
    for row in result.rows:
        key, rank = (row.scheme, row.attack), _rank(row)
        if key not in ranks or rank > ranks[key]:
            ranks[key] = rank
            schemes.setdefault(row.scheme, {})[row.attack] = _cell(row)
    return schemes


def as_table(schemes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Markdown, attack by scheme: verdict, score, chance and trials of the worst operand."""
    attacks = list(dict.fromkeys(attack for cells in schemes.values() for attack in cells))
    lines = ["| attack | " + " | ".join(schemes) + " |", "|---" * (len(schemes) + 1) + "|"]
    for attack in attacks:
        cells = [_words(of.get(attack)) for of in schemes.values()]
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    return lines


def _words(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    if cell["verdict"] == SKIPPED:
        return "nothing to attack" if cell["why"].startswith(NOTHING) else SKIPPED
    score, chance = (f"{cell[name]:.3f}" if cell[name] is not None else "" for name in ("score", "chance"))
    return f"**{cell['verdict']}** {score}, chance {chance}, n {cell['n']}"


def _cell(row: Row) -> dict[str, Any]:
    r = row.to_dict()
    names = ("verdict", "reference", "operand", "score", "chance", "undefended", "n")
    rounded = {name: round(r[name], 4) if isinstance(r[name], float) else r[name] for name in names}
    return rounded if row.finding is not None else {**rounded, "why": row.why}


def _rank(row: Row) -> tuple[float, float]:
    """Worst verdict first, among equals the one that is farthest above chance. What finds nothing in the
    clear either comes after all that says something."""
    of = row.finding
    if of is None:
        return -2.0, 0.0
    return -1.0 if of.idle else float(RANK.index(of.verdict)), of.score - of.chance
