"""Judge of attack 7."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch

from tempo.attacks.directions import DirectionMatching, Directions
from tempo.attacks.score.places import kind_of, placed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class DirectionsScorer(Scorer[list[Directions]]):
    """One trial for each row. Chance: the same guesses for the wrong rows (each for the next one)."""

    attack = DirectionMatching

    def score(self, guess: list[Directions], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            plain = truth.of(each.id)
            for how, rows in each.rows.items():
                name = f"W rows by {how}, {kind_of(plain)}"
                values[name] += placed(plain.left[each.group], rows)
                blind[name] += placed(plain.left[each.group], rows.roll(1))
        how = "the same guesses, each for the next row"
        return {name: Trials(v, float(torch.tensor(blind[name]).mean()), how) for name, v in values.items()}
