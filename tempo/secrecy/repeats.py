"""Rows that repeat within their group: mean pooling gives every position of a sequence the same gradient,
a constant background the same window.

    marks = t s        s: secret, a few columns; two rows are alike where all their marks are

Equal rows are linear dependencies, and dependencies among rows name their blocks and outer coefficients
(attack 20 of the suite). No basis removes them, so an operation with too many of them stays in the TEE.
Marks are compared in steps of some round-offs of the largest row, so rows count as equal that rounding in
their block cannot tell apart. Two rows that differ share all marks by chance with about (rows x step)^3;
two equal ones are taken for different where a step falls between them, if they differ at all.

What stays is cheap where rows repeat, because each distinct row is multiplied once:

    dX = (D W)[i]        dW = D^T (sum of the rows of X by i)        D: the distinct rows of dY, dY = D[i]

Axes: G groups, R rows, F features, K in-features, N out-features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Hidden, ranking
from tempo.secrecy.keys import Stream
from tempo.secrecy.rows import project_rows, read_once

#: Columns of marks, and steps in units of eps and the largest row.
_MARKS = 3
_STEP = 64.0
#: Odd 63-bit numbers; the marks they weigh are secret.
_WEIGHTS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB)


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Distinct(Hidden):
    """Of one group. first (D,): where each distinct row stands first. inverse (R,): which one a row is."""

    first: Tensor
    inverse: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Survey(Hidden):
    """Of one operand: norms_GR and marks_GRP of its rows, and their sums_GF where asked for, float64.
    eps: of its dtype."""

    norms_GR: Tensor
    marks_GRP: Tensor
    sums_GF: Tensor | None
    eps: float


def survey(t_GRF: Tensor, stream: Stream, *, sums: bool = False) -> Survey:
    """Norms and marks, of float32 in one pass; and sums."""
    probes_FP, eps = stream.gaussian(t_GRF.shape[2], _MARKS), torch.finfo(t_GRF.dtype).eps
    if sums:
        return Survey(*read_once(t_GRF, probes_FP), eps)
    return Survey(*project_rows(t_GRF, probes_FP), None, eps)


def distinct(seen: Survey, g: int) -> Distinct:
    """The distinct rows of one group. Zero rows are one of them."""
    rows = seen.norms_GR.shape[1]
    if rows == 0:
        nothing = torch.empty(0, dtype=torch.int64)
        return Distinct(nothing, nothing)
    _, inverse = torch.unique(_words(seen, g), return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), rows, dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(rows), "amin")
    return Distinct(first, inverse)


def repeated(seen: Survey, sent_GR: Tensor) -> float:
    """The largest share, over groups, of rows to be sent that stand there more than once: all of them but
    one of each kind, over all rows to be sent."""
    worst = 0.0
    for g, sent_R in enumerate(sent_GR):
        count = int(sent_R.sum())
        if count > 1:
            words = _words(seen, g)[sent_R]
            sorted_ = words[ranking(words).long()]
            kinds = 1 + int((sorted_[1:] != sorted_[:-1]).sum())
            worst = max(worst, 1 - kinds / count)
    return worst


def _words(seen: Survey, g: int) -> Tensor:
    """(R,) int64: one number for all marks of a row, a sum with odd weights, modulo 2^64. Equal marks give
    equal sums."""
    marks_RP, norms_R = seen.marks_GRP[g], seen.norms_GR[g]
    step = _STEP * seen.eps * norms_R.amax().clamp_min(torch.finfo(torch.float64).tiny)
    whole_RP = (marks_RP / step).round().nan_to_num(0.0, 0.0, 0.0).clamp(-(2.0**52), 2.0**52).long()
    return (whole_RP * torch.tensor(_WEIGHTS)).sum(1)


def gradients(
    dy_GRN: Tensor,
    seen: Survey,
    *,
    of_x: tuple[Tensor, Tensor] | None,
    of_w: tuple[Tensor, Tensor] | None,
) -> None:
    """Each distinct row of dY multiplied once. of_x: W, and where dX goes. of_w: X, and where dW goes."""
    for g, dy_RN in enumerate(dy_GRN):
        alike = distinct(seen, g)
        d_DN = dy_RN.index_select(0, alike.first)
        if of_x is not None:
            w_GNK, dx_GRK = of_x
            dx_GRK[g] = (d_DN @ w_GNK[g]).index_select(0, alike.inverse)
        if of_w is not None:
            x_RK, dw_GNK = of_w[0][g], of_w[1]
            sums_DK = x_RK.new_zeros(len(alike.first), x_RK.shape[1]).index_add_(0, alike.inverse, x_RK)
            dw_GNK[g] = d_DN.mT @ sums_DK
