"""Judge of attack 13."""

from __future__ import annotations

import math
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
            mine = torch.cat([truth.of(i).groups[0] for i in each.x_ids]).double()
            apart = torch.tensor([_apart(x.double(), mine) for x in each.known])
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


def _apart(x_TK: Tensor, y_SK: Tensor) -> float:
    """|X^T X - Y^T Y|. Sums, not means: rows that are zero were left out, and count for nothing. Few rows are
    compared by products of rows: |X^T X|^2 - 2 |X Y^T|^2 + |Y^T Y|^2."""
    if max(len(x_TK), len(y_SK)) >= x_TK.shape[1]:
        return float((x_TK.mT @ x_TK - y_SK.mT @ y_SK).norm())
    squares = ((x_TK @ x_TK.mT), (x_TK @ y_SK.mT), (y_SK @ y_SK.mT))
    xx, xy, yy = (float(t.square().sum()) for t in squares)
    return math.sqrt(max(xx - 2 * xy + yy, 0.0))
