"""torch.nn.functional.scaled_dot_product_attention, taken apart into its two products.

Axes: L target and S source positions, D features of a head, V features of its values; heads and batch in
front.

    y = dropout(softmax_S(scale q k^T + mask)) v

Only where the user wants products of two activations sent (offload_attention); else PyTorch's kernel runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def dot_product_attention(
    matmul: Callable[[Tensor, Tensor], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(..., L, V) of q (..., L, D), k (..., S, D), v (..., S, V). attn_mask: bool (true: look) or float,
    added to the scores. A row that may look at nothing gives zeros, as PyTorch's does. enable_gqa: k and v
    have fewer heads, each for several of q's. Both masks at once are PyTorch's error to raise."""
    if attn_mask is not None and is_causal:
        return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        heads = q.shape[-3]
        k, v = (t.repeat_interleave(heads // t.shape[-3], dim=-3) for t in (k, v))
    scores = matmul(q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k.mT)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch._safe_softmax(scores, -1)
    if dropout_p > 0.0:
        weights = F.dropout(weights, p=dropout_p)
    return matmul(weights, v)
