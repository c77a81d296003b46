"""Undoes a monomial basis on in-features with a public weight: which column is which, and its coefficient.

    W' = C W B*^T, C and B monomial        W'o W' = diag(c^2) P (WoW) Q diag(b^-2)

    1. Sinkhorn's limit of W'oW' and W0oW0 (constant row and column sums) does not depend on c and b.
    2. Match columns by their sorted values, then rows by values in matched columns, and columns once more.
    3. log |W' / W0| = log c_i - log b_j: medians. Signs: leading singular vectors of sign(W' o W0).

(Sinkhorn and Knopp, 1967; assignment by the Hungarian method.)
"""

from __future__ import annotations

from typing import Final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_SINKHORN: Final = 100
_ROUNDS: Final = 3
_TINY: Final = 1e-30


def placed(seen_NK: Tensor, known_NK: Tensor) -> tuple[Tensor, Tensor]:
    """place (K,): column j as seen is column place[j]; beta (K,): W' column j over W column place[j], up to a
    common factor. So X[:, place[j]] is X'[:, j] times beta[j]."""
    seen, known = (_balanced(w.double().square()) for w in (seen_NK, known_NK))
    columns = _match(seen.sort(0).values.mT, known.sort(0).values.mT)
    for _ in range(_ROUNDS):
        rows = _match(seen, known[:, columns])
        columns = _match(seen.mT, known[rows].mT)
    ratio = (seen_NK.double().abs() + _TINY).log() - (known_NK.double()[rows][:, columns].abs() + _TINY).log()
    ratio = ratio - ratio.median(1, keepdim=True).values
    agreement = (seen_NK.double() * known_NK.double()[rows][:, columns]).sign()
    right = torch.linalg.svd(agreement, full_matrices=False)[2][0]
    signs = torch.where(right < 0, -1.0, 1.0)
    return columns, ratio.median(0).values.exp() * signs


def unmixed(t_TK: Tensor, place: Tensor, beta: Tensor) -> Tensor:
    """X' or the rows of dW', (T, K), with columns in place and coefficients undone."""
    out = torch.empty_like(t_TK, dtype=torch.float64)
    out[:, place] = t_TK.double() * beta
    return out


def _balanced(w: Tensor) -> Tensor:
    w = w + 1e-12 * w.mean()
    for _ in range(_SINKHORN):
        w = w / w.mean(1, keepdim=True)
        w = w / w.mean(0, keepdim=True)
    return w.sqrt()


def _match(a: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(torch.cdist(a, b).numpy())[1])
