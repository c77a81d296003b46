"""Rows of the suite's table: a finding, or an attack that was skipped and why. A test freezes the fields."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from torch import Tensor

from tempo.attacks.verdict import Finding, Verdict

#: As DESIGN.md names them, then what a reader needs besides.
FIELDS: Final = (
    *("attack", "scheme", "operand", "side_knowledge", "score", "chance", "undefended", "low", "high", "n"),
    *("verdict", "note", "details", "reference", "seconds", "metric", "chance_from"),
)
#: Verdict of a row that is none.
SKIPPED: Final = "skipped"
#: No operand of the kind that the attack is about: nothing was missed.
NOTHING: Final = "nothing to attack"

#: From best to worst, for a user; what was skipped says nothing.
RANK: Final = (Verdict.HOLDS, Verdict.VISIBLE, Verdict.UNDECIDED, Verdict.LEAKS, Verdict.BROKEN)


@final
@dataclass(frozen=True, slots=True)
class Row:
    """finding: None where the attack was skipped; `why` says why."""

    attack: str
    scheme: str
    reference: str
    side_knowledge: str
    metric: str
    seconds: float
    finding: Finding | None = None
    chance_from: str = ""
    why: str = ""

    @property
    def verdict(self) -> str:
        return SKIPPED if self.finding is None else self.finding.verdict.value

    @property
    def missed(self) -> bool:
        """Something that should have been measured and was not."""
        return self.finding is None and not self.why.startswith(NOTHING)

    def to_dict(self) -> dict[str, Any]:
        """With the fields of FIELDS; None for a figure that there is not."""
        found = {} if self.finding is None else self.finding.to_dict()
        values: dict[str, Any] = {name: found.get(name) for name in FIELDS}
        values |= {
            "attack": self.attack,
            "scheme": self.scheme,
            "operand": found.get("operand", ""),
            "side_knowledge": self.side_knowledge,
            "n": found.get("n", 0),
            "verdict": self.verdict,
            "note": found.get("note", "") or self.why,
            "details": found.get("details", {}),
            "reference": self.reference,
            "seconds": round(self.seconds, 3),
            "metric": self.metric,
            "chance_from": self.chance_from,
        }
        return {name: _json(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, r: Mapping[str, Any]) -> Row:
        """Of what `to_dict` gave. A figure that is None was not a number, or had no end."""
        found, why = None, ""
        if r["verdict"] == SKIPPED:
            why = str(r["note"])
        else:
            low, high = (
                math.copysign(math.inf, sign) if v is None else v
                for v, sign in ((r["low"], -1), (r["high"], 1))
            )
            score, chance, clear = (
                math.nan if r[n] is None else r[n] for n in ("score", "chance", "undefended")
            )
            found = Finding(
                *(r["attack"], r["scheme"], r["operand"], r["side_knowledge"], score, chance, clear),
                *(low, high, r["n"], Verdict(r["verdict"]), r["note"], dict(r["details"])),
            )
        first = (r["attack"], r["scheme"], r["reference"], r["side_knowledge"], r["metric"], r["seconds"])
        return cls(*first, found, r["chance_from"], why)


def _json(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    return value


@final
@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What an attack recovered beside what was true; images (H, W)."""

    attack: str
    scheme: str
    reference: str
    title: str
    recovered: Tensor
    true: Tensor


@final
@dataclass(slots=True, eq=False)
class Result:
    """Everything that a run of the suite found."""

    rows: list[Row] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    #: Title by name of each subject.
    subjects: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def schemes(self) -> list[str]:
        return list(dict.fromkeys(row.scheme for row in self.rows))

    def against(self, verdicts: Collection[str], schemes: Collection[str]) -> list[str]:
        """What a user who forbids these verdicts under these schemes must know, in words."""
        out = [
            f"{row.attack} on {row.reference}, {row.scheme}, {row.finding.operand}: {row.verdict}"
            for row in self.rows
            if row.finding is not None and row.verdict in verdicts and row.scheme in schemes
        ]
        out += [
            f"{row.attack} on {row.reference}, {row.scheme}: not measured ({row.why})"
            for row in self.rows
            if row.missed and row.scheme in schemes
        ]
        return out
