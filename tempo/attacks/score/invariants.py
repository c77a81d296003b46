"""Judge of attacks 6, 8 and 18."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch

from tempo.attacks.invariants import Invariants, MonomialInvariants
from tempo.attacks.score.places import kind_of, placed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class InvariantsScorer(Scorer[list[Invariants]]):
    """Places: one trial for each row. Mantissas: one for each operand."""

    attack = MonomialInvariants

    def score(self, guess: list[Invariants], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            plain = truth.of(each.id)
            kind, bases = kind_of(plain), (plain.left[each.group], plain.right[each.group])
            ways = {"cross ratios": each.by_ratios, "signatures": each.by_signatures, "norms": each.by_norms}
            for how, found in ways.items():
                for axis, basis, guessed in zip(("rows", "columns"), bases, found, strict=True):
                    name = f"W {axis} by {how}, {kind}"
                    values[name] += placed(basis, guessed)
                    chances[name].append(1 / len(guessed))
            excess = (each.mantissas - each.blind) / (1 - each.blind)
            values[f"W by mantissas, {kind}"].append(excess)
            chances[f"W by mantissas, {kind}"].append(0.0)
        deviation = float(torch.tensor([each.cross_ratios for each in guess]).median())
        return {name: _trials(name, v, chances[name], deviation) for name, v in values.items()}


def _trials(name: str, values: list[float], chances: list[float], deviation: float) -> Trials:
    how = "one over the number of rows or columns"
    if "mantissas" in name:
        how = "0: in excess of what a W0 shares of which each entry was multiplied by a random number"
    details = {"median_deviation": deviation} if "ratios" in name else {}
    return Trials(values, sum(chances) / len(chances), how, details=details)
