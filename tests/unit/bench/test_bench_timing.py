"""Spreads, repeats and turns; budgets and what they skip."""

from __future__ import annotations

import pytest

from tempo.bench.budget import Budget
from tempo.bench.timing import Repeats, Spread, interleaved
from tempo.errors import UsageError


def test_spread_of_an_even_and_an_odd_number() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0, 3)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]) == Spread(1.0, 2.5, 4.0, 4)
    with pytest.raises(UsageError, match="one measurement"):
        Spread.of([])


def test_a_part_is_taken_off_and_never_below_zero() -> None:
    assert Spread(1.0, 2.0, 3.0, 5).less(1.5) == Spread(0.0, 0.5, 1.5, 5)


def test_works_take_turns_after_a_warm_round() -> None:
    seen: list[str] = []
    took = interleaved(
        {"copy": lambda: seen.append("copy"), "pass": lambda: seen.append("pass")},
        Repeats(least=2, most=2),
        prepare={"pass": lambda: seen.append("prepare")},
    )
    assert seen == ["copy", "prepare", "pass"] * 3
    assert [spread.count for spread in took.values()] == [2, 2]


def test_preparation_is_not_timed() -> None:
    import time

    took = interleaved(
        {"work": lambda: None}, Repeats(1, 1), prepare={"work": lambda: time.sleep(0.3)}, warm=False
    )
    assert took["work"].high < 0.25


def test_least_binds_where_seconds_are_short() -> None:
    count: list[int] = []
    interleaved({"": lambda: count.append(1)}, Repeats(least=3, most=50, seconds=0.0), warm=False)
    assert len(count) == 3


@pytest.mark.parametrize(("least", "most", "seconds"), [(0, 1, 1.0), (3, 2, 1.0), (1, 1, -1.0)])
def test_repeats_that_cannot_be(least: int, most: int, seconds: float) -> None:
    with pytest.raises(UsageError):
        Repeats(least, most, seconds)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_lists_what_does_not_fit() -> None:
    clock = Clock()
    budget = Budget(10.0, clock)
    assert budget.fits("a", 10.0)
    clock.now += 6
    assert (budget.spent, budget.left) == (6.0, 4.0)
    assert not budget.fits("b", 4.5)
    assert budget.skipped == [
        {"what": "b", "why": "takes about 4.5 s, and 4 s of 10 s are left: give more with --budget"}
    ]
    assert budget.fits("c", 4.0)


def test_parts_share_what_is_left_when_their_turn_comes() -> None:
    clock = Clock()
    budget = Budget(30.0, clock)
    parts = []
    for name, part in budget.parts(["a", "b", "c"]):
        parts.append((name, part.seconds))
        if name == "a":
            clock.now += 4  # of its ten: the others gain
            assert not part.fits("in a", 7.0)
    assert parts == [("a", 10.0), ("b", 13.0), ("c", 26.0)]
    assert [each["what"] for each in budget.skipped] == ["in a"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_budget_is_positive(seconds: float) -> None:
    with pytest.raises(UsageError):
        Budget(seconds)
