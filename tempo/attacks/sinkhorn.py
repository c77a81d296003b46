"""Attack 1: the canonical form of a monomial mask (Sinkhorn and Knopp, 1967), and an assignment.

W' = D_r P W Q D_c with unknown permutations and signed coefficients; W0 is public and near W.

    1. canonical form   S(W) = D W.W D' with all row sums K and all column sums N: S(D_r W D_c) = S(W),
                        whatever the coefficients and signs
    2. first match      rows of S(W') and S(W0) by their sorted values, which no column permutation changes
    3. refine           columns given rows, rows given columns, each a linear assignment, to a fixed point
    4. coefficients     log |W'_ij| - log |W0_ij| = r_i + c_j by alternating medians
    5. signs            sign(W' W0) = s_i t_j, the leading singular vectors of the sign matrix
    6. secret           W_ij = W'_ij / (s_i e^r_i t_j e^c_j), in the places found

Steps 2 and 3 start once from rows and once from columns. Where coefficients are near 1 another first match is
better: an orthogonal map keeps singular values, so W' = U' S V'^T with U' = C U up to signs, and rows of |U'|
are compared with rows of |U|, whatever mixes the other axis. It is taken where canonical forms do not fit.
Linear assignment: Jonker and Volgenant, 1987 (scipy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from tempo.attacks.attack import Attack
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.public import matched
from tempo.attacks.transcript import Transcript

#: Operands attacked, normalisations, alternations of step 3.
OPERANDS: Final = 8
NORMALISATIONS: Final = 200
ALTERNATIONS: Final = 8
#: Correlation of canonical forms above which a fit is no accident: those that noise is fitted to stay below.
SURE: Final = 0.5
_TINY: Final = 1e-300


@final
@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Of one group of a W': rows[i] and columns[j] are the plain places of encoded row i and column j.

    recovered (N, K): the secret weight in plain places. public: W0.
    """

    id: int
    group: int
    name: str
    rows: Tensor
    columns: Tensor
    recovered: Tensor
    public: Tensor


@final
class Sinkhorn(Attack[PublicWeights, list[Placed]]):
    name = "sinkhorn"
    number = 1
    title = "Sinkhorn canonical form and assignment"
    adversary = "one worker that keeps W'; it needs no data and no gradient"
    side_knowledge = "public weights W0 that the secret ones were fine-tuned from"
    knowledge = PublicWeights
    metric = (
        "rows and columns of W placed; cosine of the recovered change W - W0 with the true one, row by row"
    )
    compute = "200 normalisations and some ten linear assignments an operand: seconds"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> list[Placed]:
        out = []
        for m in matched(transcript, knowledge, OPERANDS):
            rows, columns = place(m.sent, m.public)
            recovered = undo(m.sent, m.public, rows, columns)
            out.append(Placed(m.id, m.group, m.name, rows, columns, recovered, m.public))
        return out


def canonical(w_NK: Tensor) -> Tensor:
    """Square root of S(w), (N, K): magnitudes of w in the scales that make all rows and columns alike."""
    s = w_NK.double().square()
    for _ in range(NORMALISATIONS):
        s = s / s.mean(1, keepdim=True).clamp_min(_TINY)
        s = s / s.mean(0, keepdim=True).clamp_min(_TINY)
    return s.sqrt()


def place(sent_NK: Tensor, public_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Plain places of rows and of columns."""
    mine, theirs = canonical(sent_NK), canonical(public_NK)
    first = _refine(mine, theirs, _match(*_profiles(mine, theirs)))
    columns, rows = _refine(mine.mT, theirs.mT, _match(*_profiles(mine.mT, theirs.mT)))
    fits = [_correlation(mine, theirs[r][:, c]) for r, c in (first, (rows, columns))]
    best = first if fits[0] >= fits[1] else (rows, columns)
    if max(fits) > SURE:
        return best
    (u, _, vh), (u0, _, vh0) = (torch.linalg.svd(w, full_matrices=False) for w in (sent_NK, public_NK))
    return _match(u.abs(), u0.abs()), _match(vh.mT.abs(), vh0.mT.abs())


def assign(similarity: Tensor) -> Tensor:
    """(N,) for each row the column of the best one-to-one match. similarity: (N, N)."""
    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])


def _profiles(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted values of rows, in which no order of columns is left."""
    return mine.sort(1).values, theirs.sort(1).values


def _match(mine: Tensor, theirs: Tensor) -> Tensor:
    """Rows matched by correlation."""
    a, b = (normalize(t - theirs.mean(0), dim=1) for t in (mine, theirs))
    return assign(a @ b.mT)


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def _refine(mine: Tensor, theirs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    # All rows have the same norm: least squares is the largest inner product.
    columns = assign(mine.mT @ theirs[rows])
    for _ in range(ALTERNATIONS):
        again = assign(mine @ theirs[:, columns].mT)
        if torch.equal(again, rows):
            break
        rows = again
        columns = assign(mine.mT @ theirs[rows])
    return rows, columns


def undo(sent_NK: Tensor, public_NK: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The plain weight from the sent one, given the places: coefficients and signs are read off."""
    there = public_NK[rows][:, columns]
    solid = (sent_NK != 0) & (there != 0)
    ratio = torch.where(solid, (sent_NK / there).abs().log(), torch.nan)
    of_rows, of_columns = torch.zeros(len(rows), 1).double(), torch.zeros(1, len(columns)).double()
    for _ in range(10):
        of_rows = (ratio - of_columns).nanmedian(1, keepdim=True).values.nan_to_num()
        of_columns = (ratio - of_rows).nanmedian(0, keepdim=True).values.nan_to_num()
    # Large entries keep their sign when W moves from W0.
    agree = torch.sign(sent_NK * there) * (sent_NK * there).abs().sqrt()
    t = torch.ones(len(columns), dtype=torch.float64)
    s = torch.ones(len(rows), dtype=torch.float64)
    u, _, v = torch.svd_lowrank(agree, q=4, niter=8)
    s, t = _signs(u[:, 0]), _signs(v[:, 0])
    for _ in range(10):
        s = _signs(agree @ t)
        t = _signs(agree.mT @ s)
    plain = sent_NK / ((of_rows + of_columns).exp() * s[:, None] * t)
    recovered = torch.empty_like(plain)
    recovered[rows[:, None], columns[None]] = plain
    return recovered


def _signs(t: Tensor) -> Tensor:
    return torch.where(t < 0, -1.0, 1.0).double()
