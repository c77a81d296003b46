"""Judge of attack 7."""

from __future__ import annotations

from collections import defaultdict
from typing import final

from tempo.attacks.directions import DirectionMatching, Directions
from tempo.attacks.score.places import dealt_out, kind_of, placed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class DirectionsScorer(Scorer[list[Directions]]):
    """One trial for each row. Chance: the same guesses dealt out to rows at random, expected, not drawn."""

    attack = DirectionMatching

    def score(self, guess: list[Directions], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            plain = truth.of(each.id)
            for how, rows in each.rows.items():
                name = f"W rows by {how}, {kind_of(plain)}"
                values[name] += placed(plain.left[each.group], rows)
                blind[name] += [dealt_out(plain.left[each.group], rows)] * len(rows)
        how = "the same guesses dealt out to the rows at random"
        return {name: Trials(v, sum(blind[name]) / len(v), how) for name, v in values.items()}
