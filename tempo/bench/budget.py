"""Which of a suite's cases are run: those that were asked for, as far as its time goes. What does not fit is
listed as skipped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, final

from tempo.errors import UsageError

T = TypeVar("T")


@final
class Budget:
    """seconds: of the whole suite, from now on. Work is asked for before it starts and then runs to its end,
    so a suite may pass the limit by as much as an estimate was wrong."""

    def __init__(self, seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        if not seconds > 0:
            raise UsageError(f"a budget is a positive number of seconds, not {seconds!r}")
        self.seconds = seconds
        self.skipped: list[dict[str, str]] = []
        self._clock = clock
        self._start = clock()

    @property
    def spent(self) -> float:
        return self._clock() - self._start

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def fits(self, what: str, estimate: float) -> bool:
        """Whether `estimate` more seconds fit. If not, `what` is listed as skipped."""
        if estimate <= self.left:
            return True
        if self.left <= 0:
            self.skip(what, f"the budget of {_seconds(self.seconds)} is used up: give more with --budget")
        else:
            self.skip(
                what,
                f"takes about {_seconds(estimate)}, and {_seconds(self.left)} of {_seconds(self.seconds)} "
                "are left: give more with --budget",
            )
        return False

    def skip(self, what: str, why: str) -> None:
        self.skipped.append({"what": what, "why": why})

    def part(self, share: float) -> Budget:
        """A budget of a share of what is left. What it skips is listed here too."""
        part = Budget(max(1e-3, share * self.left), self._clock)
        part.skipped = self.skipped
        return part

    def parts(self, several: Sequence[T]) -> Iterator[tuple[T, Budget]]:
        """Each with an even part of what is left when its turn comes: the first cannot take it all."""
        for number, each in enumerate(several):
            yield each, self.part(1 / (len(several) - number))


def named(cases: Sequence[T], only: str) -> list[T]:
    """Those whose name contains `only`, in either case of letters. Raises UsageError where none does."""
    found = [case for case in cases if only.lower() in str(case).lower()]
    if only and not found:
        raise UsageError(f"--only {only!r}: no case is called that. There are: {'; '.join(map(str, cases))}")
    return found


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"
