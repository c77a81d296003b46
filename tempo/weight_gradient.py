"""dW of one layer, as it comes together.

    dW = C*^-1 (sum of dW' of the pieces) B^-T  +  (dY^T 1) c^T  +  what the master computed

dY^T 1 is of the rows that the pieces stand for. Where they are all rows of a group, which is the rule, it
was taken when dY was first read.

Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from tempo.secrecy.pieces import Desk
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey


@final
class WeightGradient:
    """dy: the arriving gradient. sums (G, N): of all its rows, or None. centre: what X was sent without."""

    def __init__(
        self, desk: Desk, dy_GRN: Tensor, sums_GN: Tensor | None, centre_G1K: Tensor | None, k: int
    ) -> None:
        self._desk = desk
        self._dy = dy_GRN
        self._sums = sums_GN
        self._centre = centre_G1K
        self._k = k
        #: Sums of dW' by the key they are sealed under, and the rows of dY that they stand for.
        self._sealed: dict[FeatureKey, Tensor] = {}
        self._rows: list[Selection] = []
        self._local: Tensor | None = None

    def add(self, key: FeatureKey, where: Selection, dw_sealed: Tensor) -> None:
        """A partial dW', in the order of the pieces, so that a run can be repeated."""
        sofar = self._sealed.get(key)
        self._sealed[key] = dw_sealed if sofar is None else sofar.add_(dw_sealed)
        self._rows.append(where)

    @property
    def local(self) -> Tensor:
        """(G, N, K) for the master's own share, to be added to in place: zero at first."""
        if self._local is None:
            self._local = self._empty().zero_()
        return self._local

    def finish(self) -> Tensor:
        """(G, N, K). Once."""
        dw = self._local
        for key, total in self._sealed.items():
            with self._desk.stats.timed("decode"):
                opened = key.open_dw(total, out=self._empty())
                dw = opened if dw is None else dw.add_(opened)
        if dw is None:
            return self.local
        if self._centre is not None and self._sealed:
            with self._desk.stats.timed("decode"):
                for dw_NK, sum_N1, centre_1K in zip(dw, self._sum_GN1(), self._centre, strict=True):
                    dw_NK.addcmul_(sum_N1, centre_1K)
        return dw

    def _empty(self) -> Tensor:
        groups, _, n = self._dy.shape
        return self._desk.pool.empty((groups, n, self._k), self._dy.dtype)

    def _sum_GN1(self) -> Tensor:
        """dY^T 1 over the rows of the pieces, no two of which have a row in common."""
        groups, rows, n = self._dy.shape
        total = torch.zeros(groups, n, 1, dtype=torch.float64)
        for g in range(groups):
            if self._sums is not None and sum(where.counts[g] for where in self._rows) == rows:
                total[g, :, 0] = self._sums[g]
            else:
                for where in self._rows:
                    total[g, :, 0] += where.take(self._dy, g).sum(0)
        return total.to(self._dy.dtype)
