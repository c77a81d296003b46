"""Rows that stand so far above the others that they would take the others' precision.

Rows of a group share a scale where they are added up (dW). One row 1,000 times the size of the rest (the
first token of some language models, a sample that went wrong) would leave the rest ten bits fewer. A few such
rows are sent as zeros, which no worker can tell, and the master computes what they add, at most a 64th of
the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from tempo.kernels import norms
from tempo.ops import spans

#: A row is lone if it is so many times larger than all but a 64th of its group: four bits of precision.
FAR: Final = 16.0
_SHARE: Final = 64


def lone_rows(t_TF: Tensor, counts: Sequence[int]) -> Tensor:
    """Their indices among T, int64, ascending. Depends on the operand alone."""
    by_row, found = norms(t_TF), []
    for lo, hi in spans(counts):
        most = (hi - lo) // _SHARE
        if most:
            usual = by_row[lo:hi].topk(most + 1).values[-1]
            if usual > 0:
                found.append((by_row[lo:hi] > FAR * usual).nonzero().flatten() + lo)
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def without(t_TF: Tensor, lone: Tensor) -> Tensor:
    """The rows with zeros for the lone ones. The same tensor if there are none."""
    return t_TF.index_fill(0, lone, 0.0) if len(lone) else t_TF
