"""Seconds of a piece of work: repeated, with their spread, and interleaved with a baseline.

Machines drift: another tenant, a warmer chip. So a pass and the copy that it is measured in are timed in
turns, and the ratio is that of two medians of the same seconds of the day.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from tempo.errors import UsageError

Work = Callable[[], object]


@final
@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds. count: how many runs they stand for."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        if not seconds:
            raise UsageError("a spread needs one measurement or more")
        return cls(min(seconds), statistics.median(seconds), max(seconds), len(seconds))

    def less(self, seconds: float) -> Spread:
        """The same runs without a part that took `seconds` of each; never below zero."""
        low, median, high = (max(0.0, each - seconds) for each in (self.low, self.median, self.high))
        return Spread(low, median, high, self.count)

    def beyond(self, other: Spread) -> float:
        """Seconds that these runs took more, by the fastest of both. A hundredth at least: less is noise."""
        return max(self.low - other.low, 0.01 * self.low)


@final
@dataclass(frozen=True, slots=True)
class Repeats:
    """How often: `most` times, fewer once `seconds` have passed, never fewer than `least`."""

    least: int = 3
    most: int = 9
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if not (1 <= self.least <= self.most and self.seconds >= 0):
            raise UsageError(f"repeats are at least 1, least <= most, and seconds not negative: {self}")


def timed(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(work: Work, repeats: Repeats, *, warm: bool = True) -> Spread:
    """Seconds of one run of `work`. warm: run it once before, untimed, so that its memory is touched."""
    return interleaved({"": work}, repeats, warm=warm)[""]


def interleaved(
    works: Mapping[str, Work],
    repeats: Repeats,
    *,
    prepare: Mapping[str, Work] | None = None,
    warm: bool = True,
) -> dict[str, Spread]:
    """Seconds of each work, all of them run in turns: a, b, c, a, b, c, ...

    prepare: what each needs before every run; not timed.
    """
    before = prepare or {}
    taken: dict[str, list[float]] = {name: [] for name in works}

    def once(name: str, work: Work) -> float:
        if name in before:
            before[name]()
        return timed(work)

    if warm:
        for name, work in works.items():
            once(name, work)
    start = time.perf_counter()
    for done in range(repeats.most):
        if done >= repeats.least and time.perf_counter() - start > repeats.seconds:
            break
        for name, work in works.items():
            taken[name].append(once(name, work))
    return {name: Spread.of(seconds) for name, seconds in taken.items()}
