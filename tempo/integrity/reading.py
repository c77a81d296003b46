"""All that the checks of a round ask of one operand, from one pass over its memory.

Each check asks first, for probes of its own; then the operand is read, group after group; then each takes
what it asked for. What costs is the reading: four projections take hardly longer than two
(docs/decisions/0005-one-reading.md).

Axes: T rows of all groups, G groups, F features, P probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Sums, Survey, survey
from tempo.ops import spans


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
        #: By (down, squared): probes of each group, and how many there are.
        self._asked: dict[tuple[bool, bool], list[list[Tensor]]] = {}
        self._width: dict[tuple[bool, bool], int] = {}
        self._sums: dict[tuple[bool, bool], Tensor] = {}
        #: 2-norms of the rows (T,), once something was asked along them.
        self.norms = torch.empty(0, dtype=torch.float64)
        #: Sums of squares of the columns (G, F), once something was asked down them.
        self.squares = torch.empty(0, dtype=torch.float64)

    def along(self, probes: Sequence[Tensor], *, squared: bool = False) -> Asked:
        """t v, or (t o t) v: v (F, P) of each group. The answer is (T, P)."""
        return self._ask(False, squared, probes)

    def down(self, probes_TP: Tensor, *, squared: bool = False) -> Asked:
        """t^T q, or (t o t)^T q, with the rows of each group. The answer is (G, F, P)."""
        return self._ask(True, squared, [probes_TP[lo:hi] for lo, hi in spans(self._rows)])

    def _ask(self, down: bool, squared: bool, probes: Sequence[Tensor]) -> Asked:
        kind = (down, squared)
        lo = self._width.get(kind, 0)
        self._width[kind] = hi = lo + (probes[0].shape[1] if probes else 0)
        self._asked.setdefault(kind, [[] for _ in self._rows])
        for group, each in zip(self._asked[kind], probes, strict=True):
            group.append(each)
        return Asked(down, squared, lo, hi)

    def read(self) -> None:
        """Once, after everything has been asked."""
        found = [self._survey(g, lo, hi) for g, (lo, hi) in enumerate(spans(self._rows))]
        for down in (False, True):
            kinds = [kind for kind in self._asked if kind[0] is down]
            for at, kind in enumerate(kinds):
                each = [f.down[at] if down else f.along[at] for f in found]
                self._sums[kind] = torch.stack(each) if down else _joined(each)
        self.norms = _joined([f.norms for f in found])
        self.squares = torch.stack([f.squares for f in found])
        self._asked.clear()

    def _survey(self, group: int, lo: int, hi: int) -> Survey:
        sums: dict[bool, list[Sums]] = {False: [], True: []}
        for (down, squared), probes in self._asked.items():
            sums[down].append(Sums(_beside(probes[group]), squared))
        return survey(self._t[lo:hi], sums[False], sums[True])

    def take(self, asked: Asked) -> Tensor:
        return self._sums[asked.down, asked.squared][..., asked.lo : asked.hi]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _beside(probes: Sequence[Tensor]) -> Tensor:
    return probes[0] if len(probes) == 1 else torch.cat(list(probes), 1)
