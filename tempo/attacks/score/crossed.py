"""Whose rows are they? For judges of attacks that recover rows of several operands of one kind.

    s_ij   share of the rows found for operand i that lie nearer to a true row of i than to any of operand j
    h_ij   (s_ij + s_ji) / 2, which is 1/2 for every guess that knows nothing of what it was made from: swap i
           and j, and right becomes wrong. A guess that is the same for all operands has 1/2 in every pair.
    U      mean of h over pairs

Pairs share operands, so they are no independent trials. Operands are: trial i is the jackknife's pseudo-value
n U - (n - 1) U without i, whose mean is U (Arvesen, Ann. Math. Statist. 1969, for U-statistics).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

HOW: Final = "derived: who knows nothing of two operands cannot tell them apart"
CHANCE: Final = 0.5


def own_rows(nearness: Sequence[Sequence[Tensor]]) -> list[float]:
    """Trials, one for each operand. nearness[i][j]: (R,) of each row found for i, how near it comes to the
    true rows of j. Two operands give their mean as the one trial; one alone gives none."""
    n = len(nearness)
    if n < 2:
        return []
    s = torch.tensor(
        [[float(_above(nearness[i][i], nearness[i][j])) for j in range(n)] for i in range(n)]
    ).double()
    h = ((s + s.mT) / 2).fill_diagonal_(0)
    whole = h.sum() / (n * (n - 1))
    if n == 2:
        return [float(whole)]
    without = (h.sum() - 2 * h.sum(1)) / ((n - 1) * (n - 2))
    values: list[float] = (n * whole - (n - 1) * without).tolist()
    return values


def _above(own: Tensor, other: Tensor) -> Tensor:
    """Share of rows; what is as near to both counts half."""
    return ((own > other).double() + (own == other).double() / 2).mean()
