"""torch.nn.functional.scaled_dot_product_attention, taken apart into its two products.

Axes: L target and S source positions, D features of a head, V features of its values; heads and batch in
front.

    y = dropout(softmax_S(scale q k^T + mask)) v

Only where the user wants products of two activations sent (offload_attention) and one of these would be; else
PyTorch's kernel runs, which never holds all scores at once. Calls that PyTorch refuses are its own to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tempo.lowering import lower_matmul
from tempo.lowering.base import Lowering

_DTYPES = {torch.float32, torch.float64}
_Shape = tuple[int, ...]


def stays(
    ask: Callable[[Lowering, Tensor, Tensor], str | None],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
    **options: Any,
) -> str | None:
    """Why PyTorch's kernel runs: a call that it alone takes, or of which neither product would be sent. ask:
    why one would not."""
    cast = torch.is_autocast_enabled("cpu")
    dtypes = {torch.float32 if cast and t.dtype.itemsize < 8 else t.dtype for t in (q, k, v)}
    if len(dtypes) > 1 or not all(t.is_floating_point() for t in (q, k, v)) or not dtypes <= _DTYPES:
        return "attention in other numbers than float32 or float64"
    if attn_mask is not None and (is_causal or attn_mask.dtype not in (torch.bool, torch.float32, q.dtype)):
        return "a mask PyTorch refuses"
    shapes = None if any(t.is_nested for t in (q, k, v)) else _shapes(q, k, v, attn_mask, grouped=enable_gqa)
    if shapes is None or not 0 <= dropout_p <= 1:
        return "shapes PyTorch refuses"
    of_k, scores, of_v = shapes
    reason = ask(lower_matmul(q.shape, of_k), q, k)
    # The scores want a gradient where q or k does. Where one product goes, the other may stay.
    return reason and ask(lower_matmul(scores, of_v), q if q.requires_grad else k, v) and reason


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
    """(..., L, V) of q (..., L, D), k (..., S, D), v (..., S, V), for calls that `stays` lets go. attn_mask:
    bool (true: look) or float, added to the scores. A row that may look at nothing gives zeros, as PyTorch's
    does. enable_gqa: k and v have fewer heads, each for several of q's. Under autocast all is computed in
    float32, as PyTorch's kernel computes scores and softmax, and the result alone is rounded."""
    if torch.is_autocast_enabled("cpu") and q.dtype != torch.float64:
        out = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            y = dot_product_attention(
                matmul, q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
            return y.to(out)
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


def _shapes(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, grouped: bool
) -> tuple[_Shape, _Shape, _Shape] | None:
    """Of k^T, the scores and v, as they are multiplied; None where they do not fit."""
    if min(q.ndim, k.ndim, v.ndim) < 2 + grouped or q.shape[-1] != k.shape[-1] or not q.shape[-1]:
        return None
    heads = q.shape[-3] if grouped else 0
    if grouped and any(not t.shape[-3] or heads % t.shape[-3] for t in (k, v)):
        return None
    of_k, of_v = ((*t.shape[:-3], heads, *t.shape[-2:]) if grouped else tuple(t.shape) for t in (k, v))
    try:
        scores = (*torch.broadcast_shapes(q.shape[:-2], of_k[:-2]), q.shape[-2], of_k[-2])
        torch.broadcast_shapes(scores[:-2], of_v[:-2])
        if mask is not None and torch.broadcast_shapes(scores, mask.shape) != scores:
            return None
    except RuntimeError:
        return None
    return None if of_k[-2] != of_v[-2] else ((*of_k[:-2], of_k[-1], of_k[-2]), scores, of_v)
