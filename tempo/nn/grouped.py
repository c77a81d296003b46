"""torch._grouped_mm (F.grouped_mm), on products that the caller brings: how experts of a mixture are
computed.

Axes: S rows, sorted by expert; E experts; K in-features, N out-features. offs (E): where each expert's rows
end.

    y[s] = x[s] W[e],   offs[e - 1] <= s < offs[e]

PyTorch hands this over as a whole. Taken apart, each expert is a linear layer on its own rows; its weight
is passed on as a view of the parameter. Rows after the last are nobody's: they are zero here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Matmul = Callable[[Tensor, Tensor], Tensor]


def grouped(x: Any, w: Any, offs: Any, bias: Any, out_dtype: Any) -> bool:
    """Whether this call is rows of (S,K) by weights (E,K,N), the one form that is taken apart."""
    return (
        isinstance(offs, Tensor)
        and bias is None
        and out_dtype in (None, x.dtype)
        and (x.ndim, w.ndim, offs.ndim) == (2, 3, 1)
        and x.shape[1] == w.shape[1]
        and offs.shape[0] == w.shape[0]
        and offs.device.type == "cpu"
        and bool(offs[-1] > 0)
    )


def grouped_mm(matmul: Matmul, x: Tensor, w: Tensor, offs: Tensor) -> Tensor:
    """y (S,N). An expert without rows costs nothing; its gradient is zero, as PyTorch's is."""
    parts, start = [], 0
    for weight, end in zip(w.unbind(), offs.tolist(), strict=True):
        if end > start:
            parts.append(matmul(x[start:end], weight))
            start = end
    if start < x.shape[0]:
        parts.append(x.new_zeros(x.shape[0] - start, w.shape[2]))
    return torch.cat(parts)
