"""Suite `integrity`: what the check of replies lets through, and whom it accuses (docs/integrity.md).

honest      false alarms over honest workers in every arithmetic        tempo/bench/honest.py
tamper      wrong replies of every kind against their size              tempo/bench/detection.py
reduced     workers that compute in less than they were asked for       tempo/bench/detection.py
below       training with a worker that stays below the bound           tempo/bench/below.py
adaptive    a liar that learns from what is accepted                    tempo/bench/adaptive_liar.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from tempo.bench import adaptive_liar, below, detection, honest
from tempo.bench.budget import Budget
from tempo.bench.result import INTEGRITY_FIELDS, Result
from tempo.errors import UsageError
from tempo.integrity.guarantee import STATED_MISS

Say = Callable[[str], None]

PARTS: Final = ("honest", "tamper", "reduced", "below", "adaptive")


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """only: those parts alone whose name contains this text."""

    honest: honest.Settings = field(default_factory=honest.Settings)
    detection: detection.Settings = field(default_factory=detection.Settings)
    below: below.Settings = field(default_factory=below.Settings)
    adaptive: adaptive_liar.Settings = field(default_factory=adaptive_liar.Settings)
    only: str = ""
    budget_s: float = 3600.0

    @property
    def parts(self) -> Sequence[str]:
        """Raises UsageError where there is none of that name."""
        chosen = [part for part in PARTS if self.only in part]
        if not chosen:
            raise UsageError(f"bench integrity has no part {self.only!r}: {', '.join(PARTS)}")
        return chosen


FAST = Settings(
    honest=honest.Settings(checks=10_000, large=200, pairs=32),
    detection=detection.Settings(trials=128, draws=4, sizes=(1.0, 10.0, 100.0), inner=(64, 1024)),
    below=below.Settings(steps=20, wires=("fp32",), mnist=False),
    adaptive=adaptive_liar.Settings(rounds=2000, misses=(1e-3,)),
    budget_s=120.0,
)


def run(settings: Settings, say: Say = print) -> Result:
    """`broken` of the result says which promise was not kept."""
    result, budget = Result("integrity", INTEGRITY_FIELDS), Budget(settings.budget_s)
    parts = settings.parts
    if "honest" in parts:
        honest.run(settings.honest, result, budget.part(0.5), say)
        honest.constants(result, settings.honest.pairs, say)
        result.note(
            "checks are decisions on a reply with fresh probes, products are replies; row_checks, rows"
        )
    if "tamper" in parts:
        detection.run(settings.detection, result, budget, say)
    if "reduced" in parts:
        detection.reduced(settings.detection, result, budget, say)
    if "tamper" in parts or "reduced" in parts:
        result.note(
            "tolerances: size of the largest row of the difference; threshold: the size from which on at "
            f"most {STATED_MISS:g} may be missed, with {honest.PROBES} probes"
        )
    if "below" in parts:
        below.run(settings.below, result, budget, say)
    if "adaptive" in parts:
        adaptive_liar.run(settings.adaptive, result, budget, say)
    result.skipped = [*result.skipped, *budget.skipped]
    return result
