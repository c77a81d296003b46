"""Verdicts follow from intervals, and "holds" is not said lightly."""

import math

import pytest

from tempo.attacks.suite.figures import worst
from tempo.attacks.suite.rows import Result, Row
from tempo.attacks.suite.summary import worst_of
from tempo.attacks.verdict import Trials, Verdict, finding, interval, judge


def test_an_interval_has_its_coverage():
    import torch

    torch.manual_seed(0)
    draws = torch.rand(2000, 12)
    inside = sum(interval(row.tolist()).low <= 0.5 <= interval(row.tolist()).high for row in draws)
    assert 0.93 <= inside / 2000 <= 0.97


def test_few_agreeing_trials_are_no_certainty():
    assert interval([0.0] * 5).high > 0.3
    assert interval([1.0] * 1000).low > 0.99


@pytest.mark.parametrize("values", [[], [0.5]])
def test_without_trials_nothing_holds(values):
    assert judge(interval(values), 0.5, 1.0, visible=False) is Verdict.UNDECIDED


def test_the_five_verdicts():
    tight = interval([0.49, 0.5, 0.51] * 20)
    assert judge(tight, 0.5, 1.0, visible=False) is Verdict.HOLDS
    assert judge(interval([0.3, 0.7]), 0.5, 1.0, visible=False) is Verdict.UNDECIDED
    assert judge(tight, 0.4, 1.0, visible=False) is Verdict.LEAKS
    assert judge(tight, 0.4, 1.0, visible=True) is Verdict.VISIBLE
    assert judge(tight, 0.4, 0.5, visible=False) is Verdict.BROKEN


def test_what_finds_nothing_in_the_clear_does_not_make_a_scheme_hold():
    tight = interval([0.49, 0.5, 0.51] * 20)
    assert judge(tight, 0.5, 0.51, visible=False) is Verdict.UNDECIDED
    assert judge(tight, 0.5, 0.53, visible=False) is Verdict.HOLDS
    assert judge(tight, 0.5, math.nan, visible=False) is Verdict.HOLDS
    found = finding("a", "mixing", "W", "none", Trials([0.49, 0.51] * 90, 0.5, "derived"), 0.5)
    assert "in the clear" in found.note


def test_dependent_trials_are_no_narrower_than_their_draws():
    one = finding("a", "mixing", "W", "none", Trials([0.49, 0.52] * 90, 0.5, "derived"), 1.0)
    two = finding("a", "mixing", "W", "none", Trials([0.49, 0.52] * 90, 0.5, "derived", error=0.1), 1.0)
    assert one.verdict is Verdict.LEAKS
    assert two.verdict is Verdict.UNDECIDED
    assert (two.high - two.low) / 2 == pytest.approx(0.196, abs=1e-3)


def test_without_an_undefended_score_nothing_is_called_broken():
    assert judge(interval([1.0] * 100), 0.1, math.nan, visible=False) is Verdict.LEAKS


def test_a_finding_carries_its_figures():
    found = finding("a", "mixing", "W", "none", Trials([1.0] * 40, 0.1, "derived"), 1.0)
    assert found.verdict is Verdict.BROKEN
    assert found.to_dict()["verdict"] == "broken"
    assert found.low <= found.score <= found.high


def test_the_worst_row_is_one_that_says_something():
    """What finds nothing in the clear either stands behind what holds."""

    def row(operand: str, clear: float, chance: float) -> Row:
        trials = Trials([0.49, 0.51] * 90, chance, "derived")
        return Row(
            "a", "mixing", "r", "none", "m", 0.0, finding("a", "mixing", operand, "none", trials, clear)
        )

    idle, holds, leaks = row("idle", 0.5, 0.5), row("holds", 1.0, 0.5), row("leaks", 1.0, 0.4)
    assert idle.finding.idle
    assert not holds.finding.idle
    for rows, most in (((idle, holds), "holds"), ((holds, idle, leaks), "leaks"), ((idle,), "idle")):
        assert worst_of(Result(list(rows)))["mixing"]["a"]["operand"] == most


def test_nothing_to_attack_is_not_called_skipped():
    """In the picture of verdicts too."""

    def row(why: str) -> Row:
        return Row("a", "mixing", "r", "none", "m", 0.0, None, why=why)

    nothing, missed = row("nothing to attack: no W'"), row("out of time: not begun")
    assert worst([nothing]) == worst([nothing, nothing]) == "nothing to attack"
    assert worst([nothing, missed]) == "skipped"
