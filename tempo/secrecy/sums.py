"""dW of one backward pass: what came back of it, added up by key, and opened once for each.

    dW = sum over keys of  C*^-1 (sum of dW') B^-T - (dY^T U) Z^T,  and  (dY^T 1) c^T

Axes: G groups, R rows, K in-features, N out-features, s directions added to X (tempo/secrecy/cover.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from tempo.secrecy.cover import Cover
from tempo.secrecy.pieces import Desk, GradientPiece
from tempo.secrecy.seal import FeatureKey


@final
class WeightSums:
    """Pieces are added in their order, so that a run can be repeated."""

    def __init__(self, desk: Desk, cover: Cover, like: Tensor) -> None:
        """like: dW (G, N, K)."""
        self._desk = desk
        self._cover = cover
        self._sealed: dict[FeatureKey, Tensor] = {}
        #: dY^T U by key.
        self._beside: dict[FeatureKey, Tensor] = {}
        self._dy_sum_GN1 = like.new_zeros(like.shape[0], like.shape[1], 1)

    def add(self, piece: GradientPiece, dw_sealed: Tensor, dy_GRN: Tensor, dy_sent_GRN: Tensor) -> None:
        """dy_GRN: the gradient. dy_sent_GRN: with random rows where it is zero, as it was sealed."""
        sofar = self._sealed.get(piece.key)
        self._sealed[piece.key] = dw_sealed if sofar is None else sofar.add_(dw_sealed)
        if self._cover.centre is not None:
            for g in range(len(self._dy_sum_GN1)):
                self._dy_sum_GN1[g, :, 0] += piece.where.take(dy_GRN, g).sum(0)
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

    def into(self, dw_GNK: Tensor) -> None:
        """Open and add to dW."""
        desk, centre = self._desk, self._cover.centre
        for key, total in self._sealed.items():
            with desk.stats.timed("decode"):
                dw_GNK += key.open_dw(total, out=desk.pool.empty(total.shape, total.dtype))
        for key, beside_GNs in self._beside.items():
            with desk.stats.timed("aside"):
                z_GKs = self._cover.directions(key, dw_GNK)
                if z_GKs is not None:
                    torch.baddbmm(dw_GNK, beside_GNs, z_GKs.mT, alpha=-1, out=dw_GNK)
        if centre is not None and self._sealed:
            dw_GNK += self._dy_sum_GN1 * centre
