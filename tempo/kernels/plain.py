"""The passes in plain PyTorch: their definition, and what serves where there are no native ones.

    along(t, axis, [a, ...])   each Axis on its stretch of one axis of t, any shape and strides
    transform                  Y = E_rows (X - before) E_features^T + after
    survey                     sums over either axis and norms, in float64: what the checks need

    mix(t, b)  = (tail after main) t            blocks of orthonormal Hadamard H, length b

`main` mixes the consecutive blocks of b by H. Where b does not divide the length, `tail` mixes the last
b entries once more, overlapping its predecessor, so that no entry is left unmixed: by H D, where the
signs D of a bent function keep it from undoing main (H H = 1; H D H is flat). Both are orthonormal, so
`mix` is its own dual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from tempo.kernels.axis import Axis, Monomial
from tempo.kernels.pieces import pieces
from tempo.kernels.survey import Sums, Survey
from tempo.kernels.transform import Transform


def along(t: Tensor, axis: int, stretches: Sequence[Axis]) -> Tensor:
    """A new contiguous tensor. Raises ValueError where the lengths differ."""
    length = sum(a.length for a in stretches)
    if t.shape[axis] != length:
        raise ValueError(f"axis {axis} has {t.shape[axis]} entries, the basis {length}")
    if len(stretches) == 1:
        return _apply(t, axis, stretches[0])
    parts = t.split([a.length for a in stretches], axis)
    return torch.cat([_apply(p, axis, a) for p, a in zip(parts, stretches, strict=True)], axis)


def transform(task: Transform) -> None:
    source = task.source
    if task.target.dtype != torch.bfloat16 and source.dtype == torch.bfloat16:
        source = source.to(task.target.dtype)
    x = source if task.source_rows is None else source.index_select(0, task.source_rows)
    x = x if task.before is None else x - task.before
    y = along(along(x, 0, task.rows), 1, [task.features])
    y = y if task.after is None else y + task.after
    if task.target_rows is None:
        task.target.copy_(y)
    else:
        task.target.index_copy_(0, task.target_rows, y.to(task.target.dtype))


def survey(a: Tensor, rows: Sequence[int], along: Sequence[Sums], down: Sequence[Sums]) -> Survey:
    """a (T, F), rows[g] of them in group g, or (G, R, F)."""
    found = Survey.empty(rows, a.shape[-1], along, down)
    for t in (*found.down, found.squares):
        t.zero_()
    first = 0
    for g, count in enumerate(rows):
        a_RF, last = a[g] if a.ndim == 3 else a[first : first + count], first + count
        for lo, hi in pieces(0, count, a.shape[-1]):
            piece, here = a_RF[lo:hi].double(), slice(first + lo, first + hi)
            square = piece.square()
            for sums, out in zip(along, found.along, strict=True):
                probes = sums.probes if sums.probes.ndim == 2 else sums.probes[g]
                torch.mm(square if sums.squared else piece, probes, out=out[here])
            for sums, out in zip(down, found.down, strict=True):
                probes = sums.probes if len(sums.probes) == count else sums.probes[first:last]
                out[g].addmm_((square if sums.squared else piece).mT, probes[lo:hi])
            if along:
                torch.linalg.vector_norm(piece, dim=1, out=found.norms[here])
            if down:
                found.squares[g].add_(square.sum(0))
        first = last
    return found


def _apply(t: Tensor, axis: int, a: Axis) -> Tensor:
    if a.enter is not None:
        t = _gather(t, a.enter, axis)
    for r in range(a.rounds):
        t = mix(t, axis, a.block, inverse=a.inverse)
        if r < a.rounds - 1:
            t = _gather(t, a.middle[r], axis)
    if a.leave is not None:
        out = torch.empty_like(t, memory_format=torch.contiguous_format)
        return out.index_copy_(axis, a.leave.index.long(), _scaled(t, a.leave.scale, axis))
    return t.clone(memory_format=torch.contiguous_format) if a.enter is None and not a.rounds else t


def _gather(t: Tensor, m: Monomial, axis: int) -> Tensor:
    return t.index_select(axis, m.index).mul_(_broadcast(m.scale, t, axis))


def _scaled(t: Tensor, scale: Tensor, axis: int) -> Tensor:
    return t * _broadcast(scale, t, axis)


def _broadcast(scale: Tensor, t: Tensor, axis: int) -> Tensor:
    shape = [1] * t.ndim
    shape[axis] = -1
    return scale.to(t.dtype).view(shape)


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
