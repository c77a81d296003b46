"""What the checks ask of a tensor: sums over either axis, several at a time, and norms. All in float64.

    along   a v  (T, P)   with v (F, P),   or (a o a) v;   ||a[t]||   of each row
    down    a^T q (F, P)  with q (R, P),   or (a o a)^T q; sum of squares of each column; in each group

Axes: G groups, R rows of a group, T rows of all groups, F features, P probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sums:
    """probes, float64: (G, F, P) along the features, (T, P) down the rows; or (F, P) and (R, P), the same for
    all groups. squared: of the squares of a."""

    probes: Tensor
    squared: bool = False

    @property
    def columns(self) -> int:
        return self.probes.shape[-1]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Survey:
    """along: (T, P) for each sum asked for along the features, norms (T,), or (0,) if none was. down:
    (G, F, P) for each asked for down the rows, squares (G, F), or (0, F) if none was."""

    along: tuple[Tensor, ...]
    norms: Tensor
    down: tuple[Tensor, ...]
    squares: Tensor

    @classmethod
    def empty(cls, rows: Sequence[int], width: int, along: Sequence[Sums], down: Sequence[Sums]) -> Self:
        """Memory for the results. rows: of each group."""
        total, groups = sum(rows), len(rows)
        return cls(
            tuple(torch.empty(total, each.columns, dtype=torch.float64) for each in along),
            torch.empty(total if along else 0, dtype=torch.float64),
            tuple(torch.empty(groups, width, each.columns, dtype=torch.float64) for each in down),
            torch.empty(groups if down else 0, width, dtype=torch.float64),
        )
