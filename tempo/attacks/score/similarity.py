"""Judge of attack 13."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch
from torch import Tensor

from tempo.attacks.score.scorer import Scorer
from tempo.attacks.similarity import Ranked, SimilarityInvariants
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class SimilarityScorer(Scorer[list[Ranked]]):
    """One trial for each W': 1 where the nearest candidate is the one that was run. Which that is: the one
    whose X has the moments of what was sent (rows may have been left out, or come in another order)."""

    attack = SimilarityInvariants

    def score(self, guess: list[Ranked], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            mine = _moment(torch.cat([truth.of(i).groups[0] for i in each.x_ids]))
            apart = torch.tensor([float((_moment(x) - mine).norm()) for x in each.known])
            if len(apart) < 2 or apart.min() == apart.max():
                continue
            right = int(apart.argmin())
            ways = {
                "by products with gradients": each.by_spectrum,
                "by products, centre unknown": each.by_effort,
                "by singular values": each.by_values,
            }
            for name, ranking in ways.items():
                if ranking is not None:
                    values[name].append(float(int(ranking[0]) == right))
                    chances[name].append(1 / len(apart))
        how = "derived: one over the number of candidates"
        return {name: Trials(v, sum(chances[name]) / len(v), how) for name, v in values.items()}


def _moment(x_TK: Tensor) -> Tensor:
    """Sums, not means: rows that are zero were left out, and count for nothing."""
    x = x_TK.double()
    moment: Tensor = x.mT @ x
    return moment
