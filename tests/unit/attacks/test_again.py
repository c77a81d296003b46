"""A finding that is barely above chance is looked for again under fresh keys; a clear one stands."""

from __future__ import annotations

import random
from typing import final

import pytest
from planted import Quiet, Reading, ReadingScorer, tiny

from tempo.attacks.attack import Attack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.registry import Entry
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.suite.again import doubtful, settled
from tempo.attacks.suite.clock import Clock
from tempo.attacks.suite.rows import Row
from tempo.attacks.suite.run import Plan, run
from tempo.attacks.suite.variant import Variant
from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials, Verdict, finding


def of(hits: int, n: int = 100, chance: float = 0.5) -> Trials:
    return Trials([1.0] * hits + [0.0] * (n - hits), chance, "planted")


def row(trials: Trials) -> Row:
    return Row("a", "shares", "r", "none", "m", 0.0, finding("a", "shares", "X", "none", trials, 1.0))


@pytest.mark.parametrize(("hits", "doubt"), [(55, False), (61, True), (66, True), (70, False), (99, False)])
def test_what_is_barely_above_chance_is_doubtful(hits, doubt):
    assert doubtful(row(of(hits))) is doubt


def test_seen_twice_it_stands_and_seen_once_it_is_undecided():
    first = row(of(62))
    assert first.verdict == "leaks"
    assert settled(first, {"X": of(64)}).verdict == "leaks"
    gone = settled(first, {"X": of(51)})
    assert gone.verdict == "undecided"
    assert "0.51 against 0.5" in gone.finding.note
    assert gone.finding.score == first.finding.score
    assert settled(first, None).verdict == "leaks"
    assert settled(first, {}).verdict == "undecided"


def test_what_is_clear_or_holds_is_left_alone():
    for hits in (20, 50, 95):
        assert settled(row(of(hits)), {"X": of(0)}) == row(of(hits))


def test_luck_alone_is_seldom_seen_twice():
    """Of two thousand fair coins; without a second look some fifty would leak."""
    rng = random.Random(5)
    once = [row(of(sum(rng.random() < 0.5 for _ in range(400)), 400)) for _ in range(2000)]
    again = [settled(r, {"X": of(sum(rng.random() < 0.5 for _ in range(400)), 400)}) for r in once]
    assert sum(r.verdict == Verdict.LEAKS for r in once) > 25
    assert sum(r.verdict == Verdict.LEAKS for r in again) <= 5


@final
class Lucky(Attack[Nothing, list[float]]):
    """Barely above chance, in the runs whose numbers it is told."""

    name = "lucky"
    number = 0
    title = "Throws coins"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "heads"
    compute = "none"

    def __init__(self, *runs: int) -> None:
        self.runs, self.done = runs, 0

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[float]:
        self.done += 1
        return list(of(62 if self.done in self.runs else 50).values)


@final
class Heads(Scorer[list[float]]):
    attack = Lucky

    def score(self, guess: list[float], truth: Truth) -> dict[str, Trials]:
        return {"X": Trials(guess, 0.5, "planted")}


@pytest.mark.parametrize(
    ("lucky", "runs", "verdict"), [((2,), 3, "undecided"), ((2, 3), 3, "broken"), ((), 2, "undecided")]
)
def test_the_suite_looks_again(lucky, runs, verdict):
    """The first run is the undefended one, which is never repeated."""
    attack = Lucky(*lucky)
    plan = Plan({"tiny": [Entry(attack, Heads(), ("tiny",))]}, {"tiny": tiny}, [Variant.parse("mixing")])
    (found,) = run(plan, Clock(600, 60), Quiet()).rows
    assert attack.done == runs
    assert found.verdict == verdict or (verdict == "broken" and found.verdict == "leaks")


def test_a_leak_without_doubt_is_not_run_twice():
    plan = Plan(
        {"tiny": [Entry(Reading(), ReadingScorer(), ("tiny",))]},
        {"tiny": tiny},
        [Variant.parse("unsafe_none")],
    )
    (found,) = run(plan, Clock(600, 60), Quiet()).rows
    assert found.verdict == "broken"
    assert settled(found, {}) == found
