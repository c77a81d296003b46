"""What is added to X before it is sealed, and the part of Y that the TEE computes itself.

    X^ = X - 1 c^T + U Z^T        c: the centre; U: secret, fresh for every operation
                                  Z: secret directions, those of one W epoch, and columns to fill

    Y  = X^ W^^T + 1 (W c)^T + L M^T        L = [X Q - 1 (c^T Q) | U]    M = [P | -W^ Z]
    dW = dY^T X^ + (dY^T 1) c^T - (dY^T U) Z^T            W = W^ + P Q^T (tempo/secrecy/deflate.py)

Decoys are d random directions in the space of the features, as strong as X itself. Two things they do:

- The strongest directions of X' are no longer those of X, which someone who knows W and the usual
  covariance of X would meet with those of W'.
- They lift null spaces: X v = 0 becomes X^ v = U Z^T v, so up to d exact linear constraints of X (the
  plane that LayerNorm puts its rows on) are gone. Columns of noise appended to X would not do that: [v; 0]
  would be a null vector still.

Z stays for one W epoch. Drawn anew for every X under one B it would average out, and the true directions
would stand out from many X'.

Filled columns: features that are alike in all rows (dead units, constant pixels) get random entries of
the usual size. dX needs nothing of all this: X is not in it.

Axes: G groups, R rows, K in-features, N out-features, r directions taken from W, s directions added to X.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Hidden
from tempo.secrecy.deflate import Taken
from tempo.secrecy.hardening import Hardening
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey

#: Columns that differ by less than this many round-offs of their largest entry are constant.
_CONSTANT = 16.0
#: Rows of a first look at that.
_GLANCE = 64
#: Rows that the size of X is estimated from.
_SAMPLE = 1000


@final
class Cover(Hidden):
    """Of one X. centre: c (G, 1, K) or None. size_G: norm of an added row. dead: columns to fill, by
    group."""

    __slots__ = ("_dead", "_decoys", "_size_G", "centre", "unfilled")

    def __init__(
        self,
        centre_G1K: Tensor | None,
        decoys: int,
        size_G: Tensor | None,
        dead: Sequence[Tensor],
        unfilled: int = 0,
    ) -> None:
        """unfilled: how many more there were to fill than may be."""
        self.centre = centre_G1K
        self._decoys = decoys
        self._size_G = size_G
        self._dead = tuple(dead)
        self.unfilled = unfilled

    @property
    def filled(self) -> int:
        return sum(len(index) for index in self._dead)

    @property
    def width(self) -> int:
        """s: how many directions are added."""
        return self._decoys + max((len(index) for index in self._dead), default=0)

    def directions(self, key: FeatureKey, like: Tensor) -> Tensor | None:
        """Z (G, K, s) under this key, in the dtype of `like` (G, R, K); None where nothing is added."""
        if not self.width or self._size_G is None:
            return None
        groups, _, k = like.shape
        z_GKs = torch.zeros(groups, k, self.width, dtype=torch.float64)
        if self._decoys:
            z_GKs[:, :, : self._decoys] = key.decoys(groups, k, self._decoys)
        for z_Ks, index in zip(z_GKs, self._dead, strict=True):
            z_Ks[index, self._decoys + torch.arange(len(index))] = k**-0.5
        return (z_GKs * self._size_G.view(-1, 1, 1)).to(like.dtype)


def draw_cover(hardening: Hardening, x_GRK: Tensor, where: Selection, centre_G1K: Tensor | None) -> Cover:
    """How X is covered of which the rows `where` are sent."""
    dead, unfilled = [torch.empty(0, dtype=torch.int64)] * len(x_GRK), 0
    if hardening.fill:
        found = [constant_columns(where.take(x_GRK, g)) for g in range(len(x_GRK))]
        dead = [index[: hardening.fill] for index in found]
        unfilled = sum(map(len, found)) - sum(map(len, dead))
    if not hardening.decoys and not any(len(index) for index in dead):
        return Cover(centre_G1K, 0, None, dead)
    size_G = torch.zeros(len(x_GRK), dtype=torch.float64)
    for g, count in enumerate(where.counts):
        if count:
            picks = torch.linspace(0, count - 1, min(count, _SAMPLE)).long()
            index = where.index[g]
            rows_RK = x_GRK[g].index_select(0, picks if index is None else index[picks]).double()
            if centre_G1K is not None:
                rows_RK -= centre_G1K[g]
            size_G[g] = hardening.decoy_size * rows_RK.square().sum(1).mean().sqrt()
    return Cover(centre_G1K, hardening.decoys, size_G, dead, unfilled)


def constant_columns(x_RK: Tensor) -> Tensor:
    """Indices of features that are alike in all rows, but for rounding."""
    rows, k = x_RK.shape
    if rows == 0:
        return torch.empty(0, dtype=torch.int64)
    # A few rows rule most features out: extremes of all columns would cost as much as ten copies.
    few = torch.linspace(0, rows - 1, min(rows, _GLANCE)).long()
    found = torch.arange(k)[_alike(x_RK.index_select(0, few))]
    return found[_alike(x_RK.index_select(1, found))] if len(found) else found


def _alike(x_RK: Tensor) -> Tensor:
    """(K,) bool."""
    low, high = torch.aminmax(x_RK, dim=0)
    allowed = _CONSTANT * torch.finfo(x_RK.dtype).eps * torch.maximum(low.abs(), high.abs())
    return high - low <= allowed


@final
class Aside(Hidden):
    """L M^T, piece by piece. Nothing where neither W nor X was changed."""

    __slots__ = ("_shift_G1r", "_taken", "m_GNs", "z_GKs")

    def __init__(
        self, cover: Cover, key: FeatureKey, taken: Taken | None, x_GRK: Tensor, w_GNK: Tensor
    ) -> None:
        self._taken = taken
        self.z_GKs = z = cover.directions(key, x_GRK)
        self._shift_G1r = None
        parts = []
        if taken is not None:
            parts.append(taken.p_GNr)
            self._shift_G1r = None if cover.centre is None else torch.bmm(cover.centre, taken.q_GKr)
        if z is not None:
            wz_GNs = torch.bmm(w_GNK, z)
            if taken is not None:
                wz_GNs -= torch.bmm(taken.p_GNr, torch.bmm(taken.q_GKr.mT, z))
            parts.append(-wz_GNs)
        self.m_GNs = torch.cat(parts, 2) if parts else None

    @property
    def nothing(self) -> bool:
        return self.m_GNs is None

    def left(self, x_GRK: Tensor, where: Selection, u: Sequence[Tensor]) -> list[Tensor]:
        """L of the rows `where`, by group. u: what RowKey.draws gave for them, or nothing."""
        if self.m_GNs is None:
            return []
        found = []
        for g in range(len(x_GRK)):
            parts = list(u[g : g + 1])
            if self._taken is not None:
                xq_Rr = where.take(x_GRK, g) @ self._taken.q_GKr[g]
                parts.insert(0, xq_Rr if self._shift_G1r is None else xq_Rr - self._shift_G1r[g])
            found.append(torch.cat(parts, 1))
        return found

    def add(self, left: Sequence[Tensor], where: Selection, y_GRN: Tensor) -> None:
        """Y += L M^T on the rows `where`."""
        if self.m_GNs is not None:
            for g, l_Rs in enumerate(left):
                add_product(y_GRN, where, g, l_Rs, self.m_GNs[g])


def add_product(t_GRF: Tensor, where: Selection, g: int, left_Rs: Tensor, right_Fs: Tensor) -> None:
    """t += left right^T on the rows `where` of one group."""
    if where.counts[g]:
        rows = where.take(t_GRF, g).addmm_(left_Rs, right_Fs.mT)
        if not where.in_place(g):
            where.put(t_GRF, g, rows)
