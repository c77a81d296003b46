"""From trials to a verdict.

    broken     at least BROKEN of the way from chance to the undefended score
    visible    above chance, by something that the scheme's documentation lists as visible
    leaks      above chance beyond the interval
    holds      chance lies within the interval, whose half-width is at most WIDEST
    undecided  chance lies within an interval that is wider: more trials are needed to say more; or the attack
               finds nothing in the clear either, and that it finds nothing here is no evidence

Intervals are 95 %: Student's t over independent trials, Wilson's for trials that are 0 or 1
(Wilson 1927; Brown, Cai and DasGupta 2001). Where trials depend on one another the interval is as wide as the
judge's draws at the right level (of whole operands) differ, if that is wider.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, final

from scipy import stats

WIDEST: Final = 0.02
BROKEN: Final = 0.8
_CONFIDENCE: Final = 0.95
_IDLE: Final = "finds nothing in the clear either: no evidence"


class Verdict(StrEnum):
    BROKEN = "broken"
    LEAKS = "leaks"
    VISIBLE = "visible"
    HOLDS = "holds"
    UNDECIDED = "undecided"


@final
@dataclass(frozen=True, slots=True)
class Trials:
    """What a scorer hands over. values: success of each independent trial. chance: expected success of one
    who guesses blindly, measured or derived; how, says `chance_from`. note: what a reader must know."""

    values: Sequence[float]
    chance: float
    chance_from: str
    note: str = ""
    #: Figures besides the score, for the JSON.
    details: dict[str, float] = field(default_factory=dict)
    #: Standard error of the mean, where that was measured on whole draws since values depend on one another.
    #: The interval is never narrower than values make it.
    error: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def at_least(self, error: float) -> Interval:
        """No narrower than that standard error of the mean makes it."""
        half = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2)) * error
        return Interval(self.mean, min(self.low, self.mean - half), max(self.high, self.mean + half), self.n)


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. undefended: the same attack where operands were sent in the clear, or NaN."""

    attack: str
    scheme: str
    operand: str
    side_knowledge: str
    score: float
    chance: float
    undefended: float
    low: float
    high: float
    n: int
    verdict: Verdict
    note: str = ""
    details: dict[str, float] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Nothing was found here nor in the clear: it says nothing of the scheme."""
        return self.verdict is Verdict.UNDECIDED and self.undefended <= self.chance + WIDEST

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict.value}


def interval(values: Sequence[float]) -> Interval:
    """95 % interval of the mean. One trial, or none, tells nothing: then it is the whole range. Trials that
    all agree get Wilson's width, since agreement of a few is no certainty."""
    n = len(values)
    if n == 0:
        return Interval(float("nan"), float("-inf"), float("inf"), 0)
    mean = sum(values) / n
    if all(v in (0, 1) for v in values) or min(values) == max(values):
        if not all(0 <= v <= 1 for v in values):
            return Interval(mean, mean, mean, n) if n > 1 else Interval(mean, float("-inf"), float("inf"), n)
        z = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2))
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (mean * (1 - mean) / n + z * z / (4 * n * n)) ** 0.5
        return Interval(mean, min(mean, centre - half), max(mean, centre + half), n)
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, n - 1)) * (variance / n) ** 0.5
    return Interval(mean, mean - half, mean + half, n)


def judge(of: Interval, chance: float, undefended: float, *, visible: bool) -> Verdict:
    """visible: the scheme's documentation lists what this attack sees. undefended: NaN where unknown."""
    above = of.low > chance
    if above and visible:
        return Verdict.VISIBLE
    if above and undefended > chance and of.mean >= chance + BROKEN * (undefended - chance):
        return Verdict.BROKEN
    if above:
        return Verdict.LEAKS
    idle = undefended <= chance + WIDEST  # false where it is not known
    return Verdict.UNDECIDED if idle or of.half_width > WIDEST else Verdict.HOLDS


def finding(
    attack: str,
    scheme: str,
    operand: str,
    side_knowledge: str,
    trials: Trials,
    undefended: float,
    visible: Collection[str] = (),
) -> Finding:
    """visible: names of attacks whose finding the scheme lists as visible by construction."""
    of = interval(trials.values).at_least(trials.error)
    verdict = judge(of, trials.chance, undefended, visible=attack in visible)
    idle = verdict is Verdict.UNDECIDED and undefended <= trials.chance + WIDEST
    return Finding(
        attack,
        scheme,
        operand,
        side_knowledge,
        of.mean,
        trials.chance,
        undefended,
        of.low,
        of.high,
        of.n,
        verdict,
        "; ".join(filter(None, (trials.note, _IDLE if idle else ""))),
        dict(trials.details),
    )
