"""The canonical form of a monomial mask (Sinkhorn and Knopp, 1967), and what public weights make of it.

W' = D_r P W Q D_c with unknown permutations and signed coefficients; W0 is public and near W.

    1. canonical form   S(W) = D W.W D' with all row sums K and all column sums N: S(D_r W D_c) = S(W),
                        whatever the coefficients and signs
    2. first match      rows of S(W') and S(W0) by their sorted values, which no column permutation changes
    3. refine           columns given rows, rows given columns, each a linear assignment, to a fixed point
    4. coefficients     log |W'_ij| - log |W0_ij| = r_i + c_j by alternating medians
    5. signs            sign(W' W0) = s_i t_j, the leading singular vectors of the sign matrix

Steps 2 and 3 start once from rows and once from columns. Where coefficients are near 1 another first match is
better: an orthogonal map keeps singular values, so W' = U' S V'^T with U' = C U up to signs, and rows of |U'|
are compared with rows of |U|, whatever mixes the other axis. It is taken where canonical forms do not fit.
Linear assignment: Jonker and Volgenant, 1987 (scipy).
"""

from __future__ import annotations

from typing import Final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

#: Normalisations, alternations of step 3, and of these how many a match that is no match gets.
NORMALISATIONS: Final = 200
ALTERNATIONS: Final = 8
PATIENCE: Final = 3
#: Correlation of canonical forms above which a fit is no accident: those that noise is fitted to stay below.
SURE: Final = 0.5
_TINY: Final = 1e-30


def canonical(w_NK: Tensor, turns: int = NORMALISATIONS) -> Tensor:
    """Square root of S(w), (N, K): magnitudes of w in the scales that make all rows and columns alike, with
    mean square 1. Rows and columns of zeros stay zero. In the precision of w."""
    s = w_NK.square()
    for _ in range(turns):
        s = s / s.mean(1, keepdim=True).clamp_min(_TINY)
        s = s / s.mean(0, keepdim=True).clamp_min(_TINY)
    return s.sqrt()


def place(sent_NK: Tensor, public_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Plain places of rows and of columns."""
    sent, public = sent_NK.double(), public_NK.double()
    mine, theirs = canonical(sent), canonical(public)
    first = _refine(mine, theirs, _match(*_profiles(mine, theirs)))
    if _fit(mine, theirs, *first) > SURE:
        return first
    columns, rows = _refine(mine.mT, theirs.mT, _match(*_profiles(mine.mT, theirs.mT)))
    if _fit(mine, theirs, rows, columns) > SURE:
        return rows, columns
    (u, _, vh), (u0, _, vh0) = (torch.linalg.svd(w, full_matrices=False) for w in (sent, public))
    return _match(u.abs(), u0.abs()), _match(vh.mT.abs(), vh0.mT.abs())


def assign(similarity: Tensor) -> Tensor:
    """(N,) for each row the column of the best one-to-one match. similarity: (N, N)."""
    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])


def coefficients(sent_NK: Tensor, public_NK: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """a (N,) and b (K,), float64, signed, with W' ~ a b^T o W0 in the places found; a factor may go from one
    to the other."""
    sent, there = sent_NK.double(), public_NK.double()[rows][:, columns]
    solid = (sent != 0) & (there != 0)
    ratio = torch.where(solid, (sent / there).abs().log(), torch.nan)
    of_rows, of_columns = torch.zeros(len(rows), 1).double(), torch.zeros(1, len(columns)).double()
    for _ in range(10):
        of_rows = (ratio - of_columns).nanmedian(1, keepdim=True).values.nan_to_num()
        of_columns = (ratio - of_rows).nanmedian(0, keepdim=True).values.nan_to_num()
    # Large entries keep their sign when W moves from W0.
    agree = torch.sign(sent * there) * (sent * there).abs().sqrt()
    u, _, v = torch.svd_lowrank(agree, q=min(4, *agree.shape), niter=8)
    s, t = _signs(u[:, 0]), _signs(v[:, 0])
    for _ in range(10):
        s = _signs(agree @ t)
        t = _signs(agree.mT @ s)
    return s * of_rows[:, 0].exp(), t * of_columns[0].exp()


def unmixed(rows_TK: Tensor, sent_NK: Tensor, public_NK: Tensor) -> Tensor:
    """Rows of X' or of dW', (T, K), with features in place and coefficients undone, up to one factor: they
    live in the dual of the basis that W' shows."""
    rows, columns = place(sent_NK, public_NK)
    _, b = coefficients(sent_NK, public_NK, rows, columns)
    out = torch.empty_like(rows_TK, dtype=torch.float64)
    out[:, columns] = rows_TK.double() * b
    return out


def _profiles(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted values of rows, in which no order of columns is left."""
    return mine.sort(1).values, theirs.sort(1).values


def _match(mine: Tensor, theirs: Tensor) -> Tensor:
    """Rows matched by correlation."""
    a, b = (normalize(t - theirs.mean(0), dim=1) for t in (mine, theirs))
    return assign(a @ b.mT)


def _fit(mine: Tensor, theirs: Tensor, rows: Tensor, columns: Tensor) -> float:
    there = theirs[rows][:, columns]
    return float(torch.corrcoef(torch.stack([mine.flatten(), there.flatten()]))[0, 1])


def _refine(mine: Tensor, theirs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    # All rows have the same norm: least squares is the largest inner product.
    columns = assign(mine.mT @ theirs[rows])
    for turn in range(ALTERNATIONS):
        if turn == PATIENCE and _fit(mine, theirs, rows, columns) < SURE:
            break  # noise is fitted a little better every turn, for ever
        again = assign(mine @ theirs[:, columns].mT)
        if torch.equal(again, rows):
            break
        rows = again
        columns = assign(mine.mT @ theirs[rows])
    return rows, columns


def _signs(t: Tensor) -> Tensor:
    return torch.where(t < 0, -1.0, 1.0).double()
