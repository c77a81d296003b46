"""Integers to residues and back (Chinese remainders), and residues to shares.

    x_0, x_1 drawn,  x_2 = v - x_0 - x_1     mod each prime, of the whole numbers of an operand
    v = s - M round(s / M)                   M the product of the primes, s = sum_i c_i r_i of residues r_i,
                                             c_i the number below M that is 1 mod p_i and 0 mod the others

All of it in floats, which vectorise, and all of it exact. Floors of quotients by p: a quotient v / p that is
no integer is 1/p or more below the next, its rounding at most 2^-24 |v| / p < 1/p for |v| <= 2^23, so the
floor is right. Three bytes add up to 765 at most, so s < 5 * 765 M < 2^51.4 and M round(s / M) are exact in
float64. The quotient is below 2^12, so it is off by 2^-42 at most, where |v| <= (M - 1) / 2 leaves
1 / (2 M) > 2^-40.5 to the next half. Axes: P primes.
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
#: Of each prime: 1 modulo it, 0 modulo the others.
_WEIGHT: Final = tuple(_M // p * pow(_M // p, -1, p) for p in PRIMES)
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
    """The last share, uint8 (P, *shape): residues of whole numbers (float32, |v| <= 2^23 - 510) less the one
    or two shares drawn before."""
    out = torch.empty((len(PRIMES), *values.shape), dtype=torch.uint8)
    flat, rows = values.reshape(-1), out.view(len(PRIMES), -1)
    others = [share.view(len(PRIMES), -1) for share in drawn]
    for lo, hi in _pieces(flat.numel()):
        for i, p in enumerate(PRIMES):
            left = flat[lo:hi] - others[0][i, lo:hi]
            for share in others[1:]:
                left -= share[i, lo:hi]
            rows[i, lo:hi] = _modulo(left, p)
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
        total = flat[lo:hi].zero_()
        for i, weight in enumerate(_WEIGHT):
            summed = rows[0][i, lo:hi].to(torch.int16)
            for row in rows[1:]:
                summed += row[i, lo:hi]
            total.add_(summed.double(), alpha=weight)
        total.sub_((total / _M).round_(), alpha=_M)
    return out


def _modulo(v: Tensor, p: int) -> Tensor:
    """v mod p, in [0, p), of whole numbers in float32."""
    return torch.sub(v, torch.div(v, p).floor_(), alpha=p)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    for lo in range(0, count, _PIECE):
        yield lo, min(lo + _PIECE, count)
