"""Rows and steps that sizes gave away, against how many rows were sealed and which W' of a parameter it was.

Chance is what the same answers score when they are dealt out to the products at random.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, final

from tempo.attacks.score.scorer import Scorer
from tempo.attacks.traffic import Overheard, Traffic
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class TrafficScorer(Scorer[Overheard]):
    attack: ClassVar[type[Traffic]] = Traffic

    def score(self, guess: Overheard, truth: Truth) -> dict[str, Trials]:
        rows = {x: sum(truth.of(x).rows) for x in guess.rows}
        return {
            "rows of a product": _trials(guess.rows, rows),
            "step of a product": _trials(guess.step, _steps(guess.weight, truth)),
        }


def _steps(weight: dict[int, int], truth: Truth) -> dict[int, int]:
    """The how manieth W' of its parameter each X met: ids count up."""
    of: dict[str, list[int]] = {}
    for w in sorted(set(weight.values())):
        of.setdefault(truth.of(w).weight, []).append(w)
    return {x: of[truth.of(w).weight].index(w) for x, w in weight.items()}


def _trials(guessed: dict[int, int], true: dict[int, int]) -> Trials:
    hits = [float(guessed[i] == true[i]) for i in true]
    counts = [Counter(d[i] for i in true) for d in (guessed, true)]
    chance = sum(n * counts[1][value] for value, n in counts[0].items()) / max(1, len(hits)) ** 2
    return Trials(hits, chance, "the same answers dealt out at random")
