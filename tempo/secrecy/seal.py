"""Sealing: plain operands in, operands in secret bases out, and the way back.

Bases: A on rows, B on in-features, C on out-features; * marks the dual. Independent per group.

    X'  = A  (X - 1 c^T) B^T       Y  = A^-1  Y'  C^-T  + 1 (W c)^T      (more: tempo/secrecy/cover.py)
    W'  = C   W          B*^T      dX = A*^-1 dX' B*^-T
    dY' = A*  dY         C*^T      dW = C*^-1 dW' B^-T  + (dY^T 1) c^T

c is close to the mean row of X. It removes the direction that dominates every mixture of rows; it
is never the exact mean, since an exact constraint on an operand is key material.

Axes: G groups, R rows, K in-features, N out-features, T rows of all groups that are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Hidden, Sums, Transform, pieces, resolved, survey, transform
from tempo.memory import Pool
from tempo.ops import spans
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import Label, SessionKey, SingleUse
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import Scheme

#: Rows that the centre is estimated from, and its noise relative to their deviation.
_CENTRE_SAMPLE = 1000
_CENTRE_NOISE = 0.1


@final
class FeatureKey(Hidden):
    """B and C of every group. They serve one W, and as many X and dY as one W epoch has."""

    __slots__ = ("_decoys", "_once", "_stream", "b", "c")

    def __init__(self, key: SessionKey, scheme: Scheme, label: Label, *, groups: int, k: int, n: int) -> None:
        stream = key.stream(("features", *label))
        self.b = scheme.features(stream, [k] * groups)
        self.c = scheme.features(stream, [n] * groups)
        self._once = SingleUse()
        self._stream = key.stream(("decoys", *label))
        self._decoys: Tensor | None = None

    def decoys(self, groups: int, k: int, count: int) -> Tensor:
        """Z (G, K, d) float64: secret directions that are added to every X under this B, drawn once. Row by
        row of U Z^T they have norm 1; their sizes differ by up to 4 times, or they would stand out as one
        singular value d times."""
        if self._decoys is None:
            sizes = self._stream.coefficients(groups * count, 2.0).view(groups, 1, count)
            sizes /= torch.linalg.vector_norm(sizes, dim=2, keepdim=True)
            self._decoys = self._stream.gaussian(groups, k, count) * (sizes / k**0.5)
        return self._decoys

    def seal_w(self, w_GNK: Tensor, *, out: Tensor | None = None) -> Tensor:
        """W' = C W B*^T, in `out` if that is given (its dtype may be bfloat16). Raises KeySpentError the
        second time."""
        self._once.spend("W")
        out = torch.empty(w_GNK.shape, dtype=w_GNK.dtype) if out is None else out
        transform(
            [
                Transform(rows(w), o, c.stretches, b.dual().stretches[0])
                for w, o, b, c in zip(w_GNK, out, self.b, self.c, strict=True)
            ]
        )
        return out

    def open_dw(self, dw_GNK: Tensor, *, out: Tensor | None = None) -> Tensor:
        """dW, without the share of the centre, from the sum of the workers' dW'; in `out` if given."""
        out = torch.empty_like(dw_GNK) if out is None else out
        transform(
            [
                Transform(dw, o, c.dual().inverse, b.inverse[0])
                for dw, o, b, c in zip(dw_GNK, out, self.b, self.c, strict=True)
            ]
        )
        return out


@final
class RowKey(Hidden):
    """A of every group, for one X and its dY. Derived when needed, not kept: it is as long as the rows."""

    __slots__ = ("_key", "_label", "_once", "_rows", "_scheme")

    def __init__(self, key: SessionKey, scheme: Scheme, label: Label, rows: Sequence[int]) -> None:
        self._key = key
        self._scheme = scheme
        self._label = label
        self._rows = tuple(rows)
        self._once = SingleUse()

    def bases(self) -> list[Basis]:
        stream = self._key.stream(("rows", *self._label))
        return self._scheme.rows(stream, self._rows)

    def draws(self, width: int, dtype: torch.dtype) -> list[Tensor]:
        """U (R, width) of each group: uniform, of variance 1; the same at every call."""
        stream = self._key.stream(("draws", *self._label))
        return [stream.uniform(count, width).sub_(0.5).mul_(12**0.5).to(dtype) for count in self._rows]

    def seal_x(
        self,
        a: Sequence[Basis],
        b: Sequence[Basis],
        x_GRK: Tensor,
        where: Selection,
        centre_G1K: Tensor | None = None,
        *,
        added: Added | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """X' = A (X - 1 c^T + U Z^T) B^T (T, K) of the rows `where`, in `out` if that is given (its dtype
        may be bfloat16). Raises KeySpentError the second time."""
        self._once.spend("X")
        return self._seal(a, b, x_GRK, where, centre_G1K, added, out)

    def seal_dy(
        self,
        a: Sequence[Basis],
        c: Sequence[Basis],
        dy_GRN: Tensor,
        where: Selection,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """dY' = A* dY C*^T (T, N) of the rows `where`, as `seal_x`."""
        self._once.spend("dY")
        a, c = [basis.dual() for basis in a], [basis.dual() for basis in c]
        return self._seal(a, c, dy_GRN, where, None, None, out)

    def _seal(
        self,
        rows_: Sequence[Basis],
        features: Sequence[Basis],
        t_GRF: Tensor,
        where: Selection,
        centre_G1F: Tensor | None,
        added: Added | None,
        out: Tensor | None,
    ) -> Tensor:
        out = t_GRF.new_empty(sum(self._rows), t_GRF.shape[2]) if out is None else out
        transform(
            [
                Transform(
                    rows(t_GRF[g]) if added is None else added.to(t_GRF, where, g),
                    out[lo:hi],
                    rows_[g].stretches,
                    features[g].stretches[0],
                    source_rows=where.index[g] if added is None else None,
                    before=None if centre_G1F is None else centre_G1F[g, 0],
                )
                for g, (lo, hi) in enumerate(spans(self._rows))
            ]
        )
        return out


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Added(Hidden):
    """U Z^T: what is added to the rows of X on their way (tempo/secrecy/cover.py)."""

    u: Sequence[Tensor]
    z_GKs: Tensor
    pool: Pool

    def to(self, x_GRK: Tensor, where: Selection, g: int) -> Tensor:
        """Those rows of one group with their share added, in memory of their own."""
        rows_RK = resolved(where.take(x_GRK, g))
        out = self.pool.empty(tuple(rows_RK.shape), rows_RK.dtype)
        return torch.addmm(rows_RK, self.u[g], self.z_GKs[g].mT, out=out)


def open_rows(
    sealed_TF: Tensor,
    rows_: Sequence[Basis],
    features: Sequence[Basis],
    where: Selection,
    out_GRF: Tensor,
    shift_G1F: Tensor | None = None,
) -> None:
    """Decode Y' (bases A, C) or dX' (A*, B*), add the shift and put the rows where they belong."""
    transform(
        [
            Transform(
                sealed_TF[lo:hi],
                out_GRF[g],
                rows_[g].inverse,
                features[g].inverse[0],
                target_rows=where.index[g],
                after=None if shift_G1F is None else shift_G1F[g, 0],
            )
            for g, (lo, hi) in enumerate(spans(where.counts))
        ]
    )


def rows(t: Tensor) -> Tensor:
    """A matrix in plain memory with unit stride along its rows."""
    t = resolved(t)
    return t if t.stride(1) == 1 or t.shape[1] <= 1 else t.contiguous()


def draw_centre(key: SessionKey, label: Label, x_GRK: Tensor, where: Selection) -> Tensor:
    """c (G, 1, K): the mean of some rows of each group plus noise."""
    stream = key.stream(("centre", *label))
    centre = x_GRK.new_zeros(x_GRK.shape[0], 1, x_GRK.shape[2])
    for g, count in enumerate(where.counts):
        if count == 0:
            continue
        index = where.index[g]
        picks = (stream.words(min(count, _CENTRE_SAMPLE)) & 0x7FFFFFFF) % count
        picks = picks if index is None else index[picks]
        mean, mean_square = _moments(x_GRK[g], picks)
        # Noise even where all rows are alike: their difference from an exact mean would be zero.
        spread = (mean_square - mean.square().mean()).clamp_(min=0) + _CENTRE_NOISE * mean.square().mean()
        centre[g] = mean + _CENTRE_NOISE * spread.sqrt_() * stream.gaussian(1, mean.shape[1])
    return centre


def _moments(x_RK: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (1, K) of some rows and mean square of their entries, float64, piece by piece in the caches."""
    total = torch.zeros(1, x_RK.shape[1], dtype=torch.float64)
    square = torch.zeros((), dtype=torch.float64)
    for lo, hi in pieces(0, len(picks), x_RK.shape[1]):
        ones = torch.ones(hi - lo, 1, dtype=torch.float64)
        found = survey(x_RK.index_select(0, picks[lo:hi]), down=[Sums(ones)])
        total += found.down[0][0].mT
        square += found.squares.sum()
    return total / len(picks), square / max(1, len(picks) * x_RK.shape[1])
