"""Integers to residues and back (Chinese remainders), and residues to shares.

    r_i = v mod p_i                          of the whole numbers of an operand, |v| <= 2^23
    x_0, x_1 drawn,  x_2 = r - x_0 - x_1     mod each prime
    v = sum_i M_i t_i - M q                  M the product of the primes, M_i = M / p_i,
                                             t_i = r_i M_i^-1 mod p_i,  q = round(sum_i M_i t_i / M)

All of it in floats, which vectorise, and all of it exact. Floors of quotients by p: a quotient v / p that is
no integer is 1/p or more below the next, its rounding at most 2^-24 v / p < 1/p for v <= 2^23, so the floor
is right. Sums of M_i t_i are below P M < 2^42, exact in float64; so is q M; and the quotient is off by 2^-49,
where |v| <= (M - 1) / 2 leaves 1 / (2 M) > 2^-41 to the next half. Axes: P primes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.ops import PRIMES

_M: Final = prod(PRIMES)
#: Of each prime: the factor of t, and what t counts.
_INVERSE: Final = tuple(pow(_M // p, -1, p) for p in PRIMES)
_WEIGHT: Final = tuple(_M // p for p in PRIMES)
#: Elements at a time: temporaries stay in the cache.
_PIECE: Final = 1 << 16


def residues_of(values: Tensor) -> Tensor:
    """uint8 (P, *shape) of whole numbers in float32, |v| <= 2^23."""
    out = torch.empty((len(PRIMES), *values.shape), dtype=torch.uint8)
    flat, rows = values.reshape(-1), out.view(len(PRIMES), -1)
    for lo, hi in _pieces(flat.numel()):
        for row, p in zip(rows, PRIMES, strict=True):
            row[lo:hi] = _modulo(flat[lo:hi], p)
    return out


def remaining(values: Tensor, drawn: Sequence[Tensor]) -> Tensor:
    """The last share, uint8 (P, *shape): residues of whole numbers (float32, |v| <= 2^23) less the shares
    drawn before, which are reduced. One or two of them."""
    out = torch.empty((len(PRIMES), *values.shape), dtype=torch.uint8)
    flat, rows = values.reshape(-1), out.view(len(PRIMES), -1)
    others = [share.view(len(PRIMES), -1) for share in drawn]
    for lo, hi in _pieces(flat.numel()):
        for i, p in enumerate(PRIMES):
            left = _modulo(flat[lo:hi], p).to(torch.int16)
            for share in others:
                left -= share[i, lo:hi]
                left += (left >> 15) & p  # without a branch: p where it is negative
            rows[i, lo:hi] = left
    return out


def whole(replies: Sequence[Tensor]) -> Tensor:
    """The integers whose residues are the sums of these, float64: uint8 (P, *shape) each, two or three of
    them. Bytes that are not reduced count as what they are modulo their prime.
    Raises UsageError where the shapes are not those of residues."""
    shape = replies[0].shape
    if any(r.shape != shape or r.dtype != torch.uint8 for r in replies) or shape[0] != len(PRIMES):
        raise UsageError(f"replies are uint8 of one shape with {len(PRIMES)} primes as their first axis")
    out = torch.empty(shape[1:], dtype=torch.float64)
    flat, rows = out.view(-1), [reply.reshape(len(PRIMES), -1) for reply in replies]
    for lo, hi in _pieces(flat.numel()):
        total = torch.zeros(hi - lo, dtype=torch.float64)
        for i, p in enumerate(PRIMES):
            # At most 3 * 255 * 250 < 2^18.
            summed = rows[0][i, lo:hi].float()
            for row in rows[1:]:
                summed += row[i, lo:hi]
            total.add_(_modulo(summed.mul_(_INVERSE[i]), p).double(), alpha=_WEIGHT[i])
        flat[lo:hi] = total.sub_((total / _M).round_(), alpha=_M)
    return out


def _modulo(v: Tensor, p: int) -> Tensor:
    """v mod p, in [0, p), of whole numbers in float32."""
    return torch.sub(v, torch.div(v, p).floor_(), alpha=p)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    for lo in range(0, count, _PIECE):
        yield lo, min(lo + _PIECE, count)
