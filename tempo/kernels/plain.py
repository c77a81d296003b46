"""The passes every secret basis is made of, in plain PyTorch: their definition.

Each works on one axis of a tensor of any shape and strides and returns a contiguous tensor.

    take(t, index)[i]  = t[index[i]]                    a permutation of the axis
    scale_(t, s)[i]    = s[i] t[i]                      in place
    mix(t, b)          = (tail after main) t            blocks of orthonormal Hadamard H, length b

`main` mixes the consecutive blocks of b by H. Where b does not divide the length, `tail` mixes the last
b entries once more, overlapping its predecessor, so that no entry is left unmixed: by H D, where the
signs D of a bent function keep it from undoing main (H H = 1; H D H is flat). Both are orthonormal, so
`mix` is its own dual.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor


def take(t: Tensor, index: Tensor, axis: int) -> Tensor:
    return t.index_select(axis, index)


def scale_(t: Tensor, scale: Tensor, axis: int) -> Tensor:
    shape = [1] * t.ndim
    shape[axis] = -1
    return t.mul_(scale.to(t.dtype).view(shape))


@lru_cache(maxsize=32)
def hadamard(order: int, dtype: torch.dtype) -> Tensor:
    """Orthonormal Sylvester-Hadamard matrix. order: a power of two."""
    if order < 1 or order & (order - 1):
        raise ValueError(f"a Hadamard block has a power of two of entries, not {order}")
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < order:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return torch.div(h, order**0.5).to(dtype)


@lru_cache(maxsize=32)
def bent_signs(order: int, dtype: torch.dtype) -> Tensor:
    """(-1)^(x0 x1 + x2 x3 + ...) over the bits of 0 .. order - 1 (Rothaus, 1976): as far from every row
    of a Hadamard matrix as signs can be."""
    index = torch.arange(order)
    parity = torch.zeros_like(index)
    for bit in range(0, order.bit_length() - 2, 2):
        parity ^= (index >> bit) & (index >> (bit + 1)) & 1
    return (1 - 2 * parity).to(dtype)


def mix(t: Tensor, axis: int, block: int, *, inverse: bool = False) -> Tensor:
    axis %= t.ndim
    length = t.shape[axis]
    if t.numel() == 0 or block == 1:
        return t.contiguous()
    if block > length:
        raise ValueError(f"{length} entries are fewer than a block of {block}")
    # (outer, length, inner): every axis of every contiguous tensor looks like this.
    outer, inner = prod(t.shape[:axis]), prod(t.shape[axis + 1 :])
    flat = t.contiguous().view(outer, length, inner)
    h = hadamard(block, t.dtype)
    whole = length - length % block
    if whole == length:
        return _blocks(flat, h).view(t.shape)
    flat = flat.clone()
    main, tail = flat[:, :whole], flat[:, length - block :]
    signs = bent_signs(block, t.dtype).unsqueeze(1)
    if inverse:
        tail.copy_(signs * _blocks(tail, h))
        main.copy_(_blocks(main, h))
    else:
        main.copy_(_blocks(main, h))
        tail.copy_(_blocks(signs * tail, h))
    return flat.view(t.shape)


def _blocks(t: Tensor, h: Tensor) -> Tensor:
    """H on every consecutive block of t (outer, n blocks, inner)."""
    outer, length, inner = t.shape
    block = h.shape[0]
    if inner == 1:
        return (t.reshape(-1, block) @ h).view(outer, length, inner)
    return (h @ t.reshape(-1, block, inner)).view(outer, length, inner)
