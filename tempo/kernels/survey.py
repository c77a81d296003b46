"""What the checks ask of a tensor: sums over either axis, several at a time, and norms. All in float64.

    along   a v  (R, P)   with v (F, P),   or (a o a) v;   ||a[r]||   of each row
    down    a^T q (F, P)  with q (R, P),   or (a o a)^T q; sum of squares of each column

Axes: R rows, F features, P probes.
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
    """probes: (F, P) along the features, (R, P) down the rows, float64. squared: of the squares of a."""

    probes: Tensor
    squared: bool = False


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Survey:
    """along: (R, P) for each sum asked for along the features, norms (R,), or (0,) if none was. down: (F, P)
    for each asked for down the rows, squares (F,), or (0,) if none was."""

    along: tuple[Tensor, ...]
    norms: Tensor
    down: tuple[Tensor, ...]
    squares: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, along: Sequence[Sums], down: Sequence[Sums]) -> Self:
        """Memory for the results."""

        def sums(length: int, asked: Sequence[Sums]) -> tuple[Tensor, ...]:
            return tuple(torch.empty(length, each.probes.shape[1], dtype=torch.float64) for each in asked)

        return cls(
            sums(rows, along),
            torch.empty(rows if along else 0, dtype=torch.float64),
            sums(width, down),
            torch.empty(width if down else 0, dtype=torch.float64),
        )
