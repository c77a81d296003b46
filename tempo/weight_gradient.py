"""dW of one layer, as it comes together.

    dW = sum over keys of  C*^-1 (sum of dW') B^-T - (dY^T U) Z^T
       + (dY^T 1) c^T  +  what the master computed

U Z^T is what was added to X (tempo/secrecy/cover.py). dY^T 1 is of the rows that the pieces stand for. Where
they are all rows of a group, which is the rule, it was taken when dY was first read.

Axes: G groups, R rows, K in-features, N out-features, s directions added to X.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from tempo.secrecy.cover import Cover
from tempo.secrecy.pieces import Desk, GradientPiece
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey


@final
class WeightGradient:
    """dy: the arriving gradient. sums (G, N): of all its rows, or None. cover: of X as it was sent."""

    def __init__(self, desk: Desk, dy_GRN: Tensor, sums_GN: Tensor | None, cover: Cover, k: int) -> None:
        self._desk = desk
        self._dy = dy_GRN
        self._totals = sums_GN
        self._cover = cover
        self._k = k
        #: Sums of dW' by the key they are sealed under, and the rows of dY that they stand for.
        self._sealed: dict[FeatureKey, Tensor] = {}
        self._rows: list[Selection] = []
        #: dY^T U by key.
        self._beside: dict[FeatureKey, Tensor] = {}
        self._local: Tensor | None = None

    def add(self, piece: GradientPiece, dw_sealed: Tensor, dy_sent_GRN: Tensor) -> None:
        """A partial dW', in the order of the pieces, so that a run can be repeated. dy_sent_GRN: dY with
        random rows where it is zero, as it was sealed."""
        sofar = self._sealed.get(piece.key)
        self._sealed[piece.key] = dw_sealed if sofar is None else sofar.add_(dw_sealed)
        self._rows.append(piece.where)
        if self._cover.width:
            with self._desk.stats.timed("aside"):
                self._add_beside(piece, dy_sent_GRN)

    def _add_beside(self, piece: GradientPiece, dy_GRN: Tensor) -> None:
        groups, _, n = dy_GRN.shape
        sofar = self._beside.get(piece.key)
        if sofar is None:
            sofar = self._beside[piece.key] = dy_GRN.new_zeros(groups, n, self._cover.width)
        for g, u_Rs in enumerate(piece.row_key.draws(self._cover.width, dy_GRN.dtype)):
            sofar[g].addmm_(piece.where.take(dy_GRN, g).mT, u_Rs)

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
        for key, beside_GNs in self._beside.items():
            with self._desk.stats.timed("aside"):
                z_GKs = self._cover.directions(key, dw)
                if z_GKs is not None:
                    torch.baddbmm(dw, beside_GNs, z_GKs.mT, alpha=-1, out=dw)
        if self._cover.centre is not None and self._sealed:
            with self._desk.stats.timed("decode"):
                for dw_NK, sum_N1, centre_1K in zip(dw, self._sum_GN1(), self._cover.centre, strict=True):
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
            if self._totals is not None and sum(where.counts[g] for where in self._rows) == rows:
                total[g, :, 0] = self._totals[g]
            else:
                for where in self._rows:
                    total[g, :, 0] += where.take(self._dy, g).sum(0)
        return total.to(self._dy.dtype)
