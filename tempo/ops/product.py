"""The one operation: a grouped product and its two gradients.

Axes: T rows of all groups, one group after another; G groups; K in-features; N out-features.
`rows[g]` of the T rows belong to group g, and g(t) is the group of row t.

    Y[t,n]    = sum_k        X[t,k]  W[g(t),n,k]
    dX[t,k]   = sum_n        dY[t,n] W[g(t),n,k]
    dW[g,n,k] = sum_{t in g} dY[t,n] X[t,k]

A batched product Y_GRN = X_GRK W_GNK^T is the case of equal groups. Groups may differ in length
because the master leaves out rows that are zero, and each Winograd point has zeros of its own.
Pure functions over plain tensors: nothing here knows a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def spans(rows: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last + 1) of the rows of each group."""
    ends = list(accumulate(rows))
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def _equal(rows: Sequence[int]) -> bool:
    return len(set(rows)) == 1


def _wider(operand: Tensor, dtype: torch.dtype | None) -> dict[str, Any]:
    """Torch is told a result's dtype only where it is another one (on CUDA)."""
    return {} if dtype is None or dtype == operand.dtype else {"out_dtype": dtype}


def product(
    x_TK: Tensor,
    w_GNK: Tensor,
    rows: Sequence[int],
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Y_TN = X_TK W_g^T, group by group, in the dtype of X or a wider one. out: contiguous, where it goes."""
    groups, n, k = w_GNK.shape
    wider = _wider(x_TK, dtype)
    if _equal(rows):
        there = {} if out is None else {"out": out.view(groups, rows[0], n)}
        return torch.bmm(x_TK.reshape(groups, rows[0], k), w_GNK.mT, **there, **wider).flatten(0, 1)
    y_TN = x_TK.new_empty(x_TK.shape[0], n, dtype=dtype) if out is None else out
    for w_NK, (lo, hi) in zip(w_GNK, spans(rows), strict=True):
        torch.mm(x_TK[lo:hi], w_NK.mT, out=y_TN[lo:hi], **wider)
    return y_TN


def grad_x(
    dy_TN: Tensor,
    w_GNK: Tensor,
    rows: Sequence[int],
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """dX_TK = dY_TN W_g, group by group, dtype and out as in `product`."""
    return product(dy_TN, w_GNK.mT, rows, dtype, out)


def grad_w(
    dy_TN: Tensor,
    x_TK: Tensor,
    rows: Sequence[int],
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """dW_GNK = dY_g^T X_g, group by group, dtype and out as in `product`."""
    n, k = dy_TN.shape[1], x_TK.shape[1]
    wider = _wider(x_TK, dtype)
    if _equal(rows):
        groups, r = len(rows), rows[0]
        there = {} if out is None else {"out": out}
        return torch.bmm(dy_TN.reshape(groups, r, n).mT, x_TK.reshape(groups, r, k), **there, **wider)
    dw_GNK = x_TK.new_empty(len(rows), n, k, dtype=dtype) if out is None else out
    for dw_NK, (lo, hi) in zip(dw_GNK, spans(rows), strict=True):
        torch.mm(dy_TN[lo:hi].mT, x_TK[lo:hi], out=dw_NK, **wider)
    return dw_GNK
