"""torch.nn.functional.multi_head_attention_forward, on linear algebra that the caller brings.

Axes: L target and S source positions; B batch; H heads; D features of a head; E = H D.
Per head, with softmax over S:

    q = query Wq^T + bq    k = key Wk^T + bk    v = value Wv^T + bv
    out = concat_H( softmax(q k^T / sqrt(D) + mask) v ) Wo^T + bo

PyTorch hands this function over as a whole, so its projections are out of reach until it is taken
apart. Here `linear(x, w, b)` does every projection, `matmul(a, b)` both attention products when the
weights are wanted, and `attend` has the signature of scaled_dot_product_attention when they are not.
Parameters are passed on as they are, or as views of themselves: who encodes them may go by identity.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tempo.errors import UsageError

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Matmul = Callable[[Tensor, Tensor], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, bool], Tensor]


def multi_head_attention_forward(
    linear: Linear,
    matmul: Matmul,
    attend: Attend,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """(out, weights) as PyTorch returns them: out (L,B,E), weights (B,L,S) or (B,H,L,S), and without
    B for 2-D operands. Masks are bool (true: do not look) or float (added to the scores)."""
    _check_sizes(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight)
    source = key.shape[0] if static_k is None else static_k.shape[1]
    _check_masks(query, source, num_heads, key_padding_mask, attn_mask, is_causal)

    batched = query.dim() == 3
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        q, k, v = _project_separately(linear, (query, key, value), weights, in_proj_bias)
    else:
        q, k, v = _project_packed(linear, query, key, value, in_proj_weight, in_proj_bias)
    if not batched:
        q, k, v = q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, embed = q.shape

    # The hint spares the mask only where nothing else is masked and no weights are asked for.
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None
    is_causal = is_causal and key_padding_mask is None
    mask = _additive(attn_mask, q.dtype)
    padding_BS = _additive(key_padding_mask, q.dtype)

    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.expand(1, batch, -1)])
        v = torch.cat([v, bias_v.expand(1, batch, -1)])
        mask, padding_BS = _one_more(mask), _one_more(padding_BS)
    q = _heads(q, num_heads)
    k = _heads(k, num_heads) if static_k is None else static_k
    v = _heads(v, num_heads) if static_v is None else static_v
    _check_statics(q, k, v, bias_k, bias_v, static_k, static_v)
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        mask, padding_BS = _one_more(mask), _one_more(padding_BS)

    mask = _merge(mask, padding_BS, batch, num_heads)
    dropout_p = dropout_p if training else 0.0
    scores: Tensor | None = None
    if need_weights:
        out, scores = _attend_with_weights(matmul, q, k, v, mask, dropout_p)
        out = out.transpose(0, 1)
        scores = scores.unflatten(0, (batch, num_heads))
        scores = scores.mean(dim=1) if average_attn_weights else scores
    else:
        q, k, v = (x.unflatten(0, (batch, num_heads)) for x in (q, k, v))
        if mask is not None:
            mask = mask.unsqueeze(0) if mask.shape[0] == 1 else mask.unflatten(0, (batch, num_heads))
        out = attend(q, k, v, mask, dropout_p, is_causal).permute(2, 0, 1, 3)

    out = linear(out.reshape(length, batch, embed), out_proj_weight, out_proj_bias)
    if not batched:
        out = out.squeeze(1)
        scores = None if scores is None else scores.squeeze(0)
    return out, scores


def _project_packed(
    linear: Linear, query: Tensor, key: Tensor, value: Tensor, w: Tensor | None, b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """w (3E,E) stacks Wq, Wk, Wv. Operands that are one object share one product."""
    if w is None:
        raise UsageError("in_proj_weight is None: give it, or the three separate projection weights")
    embed = query.shape[-1]
    if query is key and key is value:
        q, k, v = linear(query, w, b).chunk(3, dim=-1)
        return q, k, v
    if key is value:
        w_q, w_kv = w.split([embed, 2 * embed])
        b_q, b_kv = (None, None) if b is None else b.split([embed, 2 * embed])
        k, v = linear(key, w_kv, b_kv).chunk(2, dim=-1)
        return linear(query, w_q, b_q), k, v
    return _project_separately(linear, (query, key, value), w.chunk(3), b)


def _project_separately(
    linear: Linear,
    operands: tuple[Tensor, Tensor, Tensor],
    weights: tuple[Tensor | None, ...],
    b: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Three products; b (3E) stacks the biases even where the weights are separate."""
    biases = (None, None, None) if b is None else b.chunk(3)
    projected = []
    for x, w, bias in zip(operands, weights, biases, strict=True):
        if w is None:
            raise UsageError("separate projection needs q_proj_weight, k_proj_weight and v_proj_weight")
        projected.append(linear(x, w, bias))
    q, k, v = projected
    return q, k, v


def _heads(x_LBE: Tensor, heads: int) -> Tensor:
    """(L,B,E) -> (B*H,L,D)."""
    length, batch, embed = x_LBE.shape
    return x_LBE.reshape(length, batch * heads, embed // heads).transpose(0, 1)


def _attend_with_weights(
    matmul: Matmul, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """(B*H,L,D) and the weights (B*H,L,S), after dropout as PyTorch returns them."""
    scores = matmul(q * math.sqrt(1.0 / q.shape[-1]), k.mT)
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    if dropout_p > 0.0:
        weights = F.dropout(weights, p=dropout_p)
    return matmul(weights, v), weights


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bool mask as what is added to the scores: minus infinity where it is true."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def _one_more(mask: Tensor | None) -> Tensor | None:
    """A position that everybody may look at, appended to S."""
    return None if mask is None else F.pad(mask, (0, 1))


def _merge(mask: Tensor | None, padding_BS: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """The sum of both masks, of shape (1 or B*H, 1 or L, S)."""
    if mask is not None and mask.dim() == 2:
        mask = mask.unsqueeze(0)
    if padding_BS is None:
        return mask
    padding = padding_BS[:, None, None, :].expand(-1, heads, -1, -1).flatten(0, 1)
    return padding if mask is None else mask + padding


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(f"multi_head_attention_forward: {message}")


def _check_sizes(query: Tensor, key: Tensor, value: Tensor, embed: int, heads: int, separate: bool) -> None:
    dims = (query.dim(), key.dim(), value.dim())
    _need(dims in ((2, 2, 2), (3, 3, 3)), f"query, key and value are all 2-D or all 3-D, not {dims}-D")
    _need(query.shape[-1] == embed, f"query has {query.shape[-1]} features, expected {embed}")
    _need(embed % heads == 0, f"embed_dim {embed} is not divisible by num_heads {heads}")
    shapes = f"key {tuple(key.shape)} and value {tuple(value.shape)}"
    # Separate weights may take key and value of different widths, never of different lengths.
    _need(key.shape[:-1] == value.shape[:-1], f"{shapes} differ in positions or batch")
    _need(separate or key.shape == value.shape, f"{shapes} differ")
    _need(query.shape[1:-1] == key.shape[1:-1], f"query {tuple(query.shape)} and {shapes} differ in batch")


def _check_masks(
    query: Tensor, source: int, heads: int, padding: Tensor | None, mask: Tensor | None, is_causal: bool
) -> None:
    """Sizes are compared, for broadcasting would let a wrong mask pass in silence."""
    _need(not is_causal or mask is not None, "is_causal is a hint about attn_mask: give the mask too")
    for name, given in (("key_padding_mask", padding), ("attn_mask", mask)):
        _need(
            given is None or given.dtype == torch.bool or given.is_floating_point(),
            f"{name} is bool or floating, not {None if given is None else given.dtype}",
        )
    length, batch = query.shape[0], query.shape[1:-1]
    if padding is not None:
        expected = (*batch, source)
        _need(padding.shape == expected, f"key_padding_mask is {tuple(padding.shape)}, expected {expected}")
    if mask is not None:
        one, many = (length, source), (math.prod(batch) * heads, length, source)
        _need(mask.shape in (one, many), f"attn_mask is {tuple(mask.shape)}, expected {one} or {many}")
    if padding is not None and mask is not None and padding.dtype != mask.dtype:
        warnings.warn(
            "Support for mismatched key_padding_mask and attn_mask is deprecated. Use same type for both.",
            stacklevel=3,
        )


def _check_statics(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    static_k: Tensor | None,
    static_v: Tensor | None,
) -> None:
    _need((bias_k is None) == (bias_v is None), "bias_k and bias_v come together or not at all")
    _need(
        bias_k is None or (static_k is None and static_v is None), "a bias cannot join a static key or value"
    )
    for name, x in (("static_k", k), ("static_v", v)):
        _need(
            (x.shape[0], x.shape[2]) == (q.shape[0], q.shape[2]),
            f"{name} is {tuple(x.shape)}, expected ({q.shape[0]}, S, {q.shape[2]})",
        )
