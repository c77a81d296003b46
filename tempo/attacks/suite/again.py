"""What is barely above chance is looked for again under fresh keys.

A table has hundreds of intervals of 95 %, and one in forty lies above chance by luck alone, where there is
nothing to be found and even where a proof says so. So "leaks" and "broken" that are no more than DOUBT
half-widths above chance are attacked once more on a recording of the same batches, whose keys are others.
Seen twice, the verdict stands, and luck alone does that once in 1,600 intervals. Seen once, it is undecided.
What is farther above chance stands as it is, and no verdict gets better than undecided this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tempo.attacks.suite.rows import Row
from tempo.attacks.verdict import Finding, Trials, Verdict, interval

#: Of a normal distribution the share beyond 1.75 times 1.96 deviations is one in 3,400.
DOUBT: Final = 1.75


def doubtful(row: Row) -> bool:
    of = row.finding
    if of is None or of.verdict not in (Verdict.LEAKS, Verdict.BROKEN):
        return False
    return of.low - of.chance < (DOUBT - 1) * (of.score - of.low)


def settled(row: Row, again: Mapping[str, Trials] | None) -> Row:
    """again: trials of a second recording by operand; None where there was no time for one."""
    of = row.finding
    if of is None or not doubtful(row):
        return row
    if again is None:
        return _noted(row, of, "barely above chance; no time to look again under fresh keys")
    second = again.get(of.operand)
    if second is None:
        return _noted(row, _open(of), "barely above chance once; under fresh keys there was nothing to judge")
    found = interval(second.values).at_least(second.error)
    figures = f"{found.mean:.3g} against {second.chance:.3g}"
    if found.low > second.chance:
        return _noted(row, of, f"barely above chance, and again under fresh keys: {figures}")
    return _noted(row, _open(of), f"barely above chance once, not again under fresh keys: {figures}")


def _open(of: Finding) -> Finding:
    return replace(of, verdict=Verdict.UNDECIDED)


def _noted(row: Row, of: Finding, text: str) -> Row:
    return replace(row, finding=replace(of, note="; ".join(filter(None, (of.note, text)))))
