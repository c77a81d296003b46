"""All that the checks of a round ask of one operand, from one pass over its memory.

Each check asks first, for probes of its own; then the operand is read; then each takes what it asked for.
What costs is the reading: four projections take hardly longer than two (docs/decisions/0005-one-reading.md).

Axes: T rows of all groups, G groups, F features, P probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Sums, survey


@final
@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Where an answer will stand: columns `lo` to `hi` of the sums of one kind."""

    down: bool
    squared: bool
    lo: int
    hi: int


@final
class Reading:
    """t (T, F), rows[g] of them in group g. Ask, then read, then take."""

    def __init__(self, t_TF: Tensor, rows: Sequence[int]) -> None:
        self._t = t_TF
        self._rows = tuple(rows)
        #: By (down, squared): probes, and how many there are.
        self._asked: dict[tuple[bool, bool], list[Tensor]] = {}
        self._width: dict[tuple[bool, bool], int] = {}
        self._sums: dict[tuple[bool, bool], Tensor] = {}
        #: 2-norms of the rows (T,), once something was asked along them.
        self.norms = torch.empty(0, dtype=torch.float64)
        #: Sums of squares of the columns (G, F), once something was asked down them.
        self.squares = torch.empty(0, dtype=torch.float64)

    def along(self, probes: Tensor, *, squared: bool = False) -> Asked:
        """t v, or (t o t) v: v (G, F, P), or (F, P) for all groups. The answer is (T, P)."""
        return self._ask(False, squared, probes)

    def down(self, probes_TP: Tensor, *, squared: bool = False) -> Asked:
        """t^T q, or (t o t)^T q, with the rows of each group. The answer is (G, F, P)."""
        return self._ask(True, squared, probes_TP)

    def _ask(self, down: bool, squared: bool, probes: Tensor) -> Asked:
        kind = (down, squared)
        lo = self._width.get(kind, 0)
        self._width[kind] = hi = lo + probes.shape[-1]
        self._asked.setdefault(kind, []).append(probes)
        return Asked(down, squared, lo, hi)

    def read(self) -> None:
        """Once, after everything has been asked."""
        kinds = {at: [kind for kind in self._asked if kind[0] is at] for at in (False, True)}
        along, down = ([Sums(_beside(self._asked[kind]), kind[1]) for kind in kinds[at]] for at in kinds)
        found = survey(self._t, along, down, rows=self._rows)
        self._sums = dict(zip((*kinds[False], *kinds[True]), (*found.along, *found.down), strict=True))
        self.norms, self.squares = found.norms, found.squares
        self._asked.clear()

    def take(self, asked: Asked) -> Tensor:
        return self._sums[asked.down, asked.squared][..., asked.lo : asked.hi]


def _beside(probes: Sequence[Tensor]) -> Tensor:
    """Where some differ from group to group, all do."""
    if len(probes) == 1:
        return probes[0]
    leading = torch.broadcast_shapes(*(t.shape[:-1] for t in probes))
    return torch.cat([t.expand(*leading, t.shape[-1]) for t in probes], -1)
