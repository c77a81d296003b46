"""Which rows of an operand are sent, and in which shard.

A row that is zero gives the basis of its block away (every row mixed with it becomes dependent on
the others), so such rows are left out before encoding. Mixing already blurs a row by some ten round-offs
of the largest row of its block, so a row below that counts as zero too: Winograd points of a
constant background are such rows, zero up to rounding.

Axes: G groups, R rows. A selection names, for each group, the rows it takes, as int64 indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Sums, Survey, norms, survey

#: In units of eps and the largest row: docs/numerics.md, section 1.
NEGLIGIBLE = 16.0


def row_norms(t_GRF: Tensor) -> Tensor:
    """2-norms over the last axis, float64, without a float64 copy of the whole."""
    if t_GRF.dtype == torch.float64 and t_GRF.numel():
        # Squares of float64 leave the range of float64: take the norms of the tensor scaled to 1.
        peak = float(torch.linalg.vector_norm(t_GRF, torch.inf))
        if 0.0 < peak < 1e-100 or 1e100 < peak < torch.inf:
            return row_norms(t_GRF / peak) * peak
    return norms(t_GRF).view(t_GRF.shape[:2])


def row_norms_and_sums(t_GRF: Tensor) -> tuple[Tensor, Tensor]:
    """As `row_norms`, and the sums over the rows of each group (G, F), float64."""
    norms_GR, _, sums_GF = read_once(t_GRF, torch.empty(t_GRF.shape[2], 0, dtype=torch.float64))
    return norms_GR, sums_GF


def project_rows(t_GRF: Tensor, probes_FP: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (G, R) as of `row_norms`, and t times the probes (G, R, P), float64: of float32 in one pass."""
    norms_GR, along_GRP, _ = _read(t_GRF, [Sums(probes_FP)], [])
    return norms_GR, along_GRP


def read_once(t_GRF: Tensor, probes_FP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norms (G, R) as of `row_norms`, t times the probes (G, R, P) and sums over the rows (G, F), float64:
    of float32 in one pass."""
    ones = torch.ones(t_GRF.shape[1], 1, dtype=torch.float64)
    norms_GR, along_GRP, found = _read(t_GRF, [Sums(probes_FP)], [Sums(ones)])
    return norms_GR, along_GRP, found.down[0].squeeze(2)


def _read(t_GRF: Tensor, along: list[Sums], down: list[Sums]) -> tuple[Tensor, Tensor, Survey]:
    found, shape = survey(t_GRF, along, down), t_GRF.shape[:2]
    norms_GR = found.norms.view(shape) if t_GRF.dtype == torch.float32 else row_norms(t_GRF)
    return norms_GR, found.along[0].view(*shape, along[0].columns), found


@final
@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rows of each group, ascending. `index[g]` is None for all rows of the group."""

    index: tuple[Tensor | None, ...]
    total: int
    #: Of each group, where its rows are consecutive: they are read and written in place.
    _runs: tuple[slice | None, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "_runs", tuple(_run(i, self.total) for i in self.index))

    @classmethod
    def everything(cls, groups: int, rows: int) -> Selection:
        return cls((None,) * groups, rows)

    @classmethod
    def where(cls, mask_GR: Tensor) -> Selection:
        counts = mask_GR.sum(1).tolist()
        total = mask_GR.shape[1]
        return cls(
            tuple(
                None if count == total else mask.nonzero().flatten()
                for mask, count in zip(mask_GR, counts, strict=True)
            ),
            total,
        )

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(self.total if i is None else i.numel() for i in self.index)

    @property
    def empty(self) -> bool:
        return sum(self.counts) == 0

    def mask(self) -> Tensor:
        """(G, R) bool."""
        mask = torch.zeros(len(self.index), self.total, dtype=torch.bool)
        for row, index in zip(mask, self.index, strict=True):
            row[slice(None) if index is None else index] = True
        return mask

    def take(self, t_GRF: Tensor, group: int) -> Tensor:
        """Rows of one group: (rows, F). A view where all are taken or they are consecutive."""
        run, index = self._runs[group], self.index[group]
        if run is None and index is not None:
            return t_GRF[group].index_select(0, index)
        return t_GRF[group, run]

    def rows_of(self, t_GRF: Tensor) -> list[Tensor]:
        """Rows of each group, (rows, F), as `take`."""
        return [self.take(t_GRF, g) for g in range(len(self.index))]

    def in_place(self, group: int) -> bool:
        """`take` gives a view."""
        return self._runs[group] is not None

    def put(self, t_GRF: Tensor, group: int, rows_F: Tensor) -> None:
        """Write rows back where `take` had them from."""
        run, index = self._runs[group], self.index[group]
        if run is None and index is not None:
            t_GRF[group].index_copy_(0, index, rows_F)
        else:
            t_GRF[group, run] = rows_F

    def shards(
        self, weights: Sequence[float], smallest: int, grain: int = 1
    ) -> tuple[dict[int, Selection], Selection]:
        """Cut into a shard for each weight, with rows in proportion, none with fewer than `smallest`
        rows in a group, and what stays at home because a group has fewer rows than that. The shards
        by the position of their weight; empty ones are left out. grain: cuts are at multiples of it."""
        cut: list[list[Tensor]] = [[] for _ in weights]
        home: list[Tensor] = []
        for index, count in zip(self.index, self.counts, strict=True):
            everything = torch.arange(self.total) if index is None else index
            sizes = apportion(count, weights, max(smallest, 1), grain)
            home.append(everything[sum(sizes) :])
            for piece, part in zip(cut, everything[: sum(sizes)].split(sizes), strict=True):
                piece.append(part)
        shards = {lane: Selection(self._normal(piece), self.total) for lane, piece in enumerate(cut)}
        kept_home = Selection(self._normal(home), self.total)
        return {lane: shard for lane, shard in shards.items() if not shard.empty}, kept_home

    def _normal(self, index: list[Tensor]) -> tuple[Tensor | None, ...]:
        return tuple(None if i.numel() == self.total and self.total else i for i in index)


def _run(index: Tensor | None, total: int) -> slice | None:
    if index is None:
        return slice(0, total)
    count = index.numel()
    first, last = (int(index[0]), int(index[-1])) if count else (0, -1)
    return slice(first, first + count) if last - first + 1 == count else None


def negligible(norms_GR: Tensor, dtype: torch.dtype) -> Tensor:
    """(G, R) bool: rows that rounding in their group cannot tell from zero."""
    if norms_GR.shape[1] == 0:
        return torch.zeros_like(norms_GR, dtype=torch.bool)
    return norms_GR <= NEGLIGIBLE * torch.finfo(dtype).eps * norms_GR.amax(1, keepdim=True)


def apportion(count: int, weights: Sequence[float], smallest: int, grain: int = 1) -> list[int]:
    """`count` in proportion to the weights, no part between 0 and `smallest`; all parts 0 if `count`
    itself is below it. The lightest parts go first where there is not enough for all. Parts are
    multiples of `grain`, but for the last one and those that would be too small."""
    if count < smallest:
        return [0] * len(weights)
    heaviest = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    chosen = heaviest[: max(1, count // smallest)]
    sizes, total, weight, edge = [0] * len(weights), sum(weights[i] for i in chosen), 0.0, 0
    for i in chosen:
        weight += weights[i]
        after = count if i == chosen[-1] else min(count, grain * int(count * weight / total / grain + 0.5))
        sizes[i] = after - edge
        edge = after
    for i in chosen:  # what a light part lacks, the largest gives
        lack = smallest - sizes[i]
        while lack > 0:
            rich = max(chosen, key=lambda j: sizes[j])
            given = min(lack, sizes[rich] - smallest)
            sizes[rich] -= given
            sizes[i] += given
            lack -= given
    return sizes


def union(a: Selection, b: Selection) -> Selection:
    """Rows of either."""
    return Selection.where(a.mask() | b.mask())


def largest(norms: Tensor) -> float:
    """Largest norm; NaN where there is one."""
    return float(norms.amax()) if norms.numel() else 0.0


def rms(norms: Tensor) -> float:
    """Root of the mean square."""
    return float(norms.square().mean().sqrt())


def unfit(left: float, *right: float, dtype: torch.dtype) -> str | None:
    """Why an operand must not be sent to meet others, or None; all are given by their largest row norm.

    A NaN or an infinity would spread over its whole block of rows; a product near the ends of the
    dtype's range could over- or underflow in the secret basis although it does not in the plain one.
    """
    limits = torch.finfo(dtype)
    # A quarter of the exponent range at each end is for coefficients, sums and probes. The check squares
    # in float64, so of float64 itself less than half is left.
    share = 0.75 if dtype == torch.float32 else 0.45
    low, high = limits.tiny**share, limits.max**share
    for size in (left, *right, *(left * other for other in right)):
        if not size < high:
            return "values not finite or too large to send"
        if 0.0 < size < low:
            return "values too small to send"
    return None


def rows_of(mask_GR: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(group, indices of its rows) for groups that have any."""
    for g, mask in enumerate(mask_GR):
        if mask.any():
            yield g, mask.nonzero().flatten()
