"""Residues as the integers that they stand for, as anyone computes them: the primes are public.

    v = sum_i M_i (r_i M_i^-1 mod p_i)  mod M,  centred to [-(M-1)/2, (M-1)/2]      (Chinese remainders)

One worker of `shares` holds one share or two of an operand. What they add up to is uniform whatever the
operand is, and that is all that there is to attack. Sums below 5 * 2^39.5 are exact in float64.
"""

from __future__ import annotations

from math import prod
from typing import Final

import torch
from torch import Tensor

from tempo.ops import PRIMES

_M: Final = prod(PRIMES)


def integers(residues_PF: Tensor) -> Tensor:
    """float64, of uint8 residues with the primes as their first axis; bytes need not be reduced."""
    total = torch.zeros(residues_PF.shape[1:], dtype=torch.float64)
    for row, p in zip(residues_PF, PRIMES, strict=True):
        weight = _M // p
        total += (row.to(torch.int64) * pow(weight, -1, p) % p).double() * weight
    total -= (total / _M).floor() * _M
    return torch.where(total > (_M - 1) // 2, total - _M, total)


def held(shares_HPF: Tensor) -> Tensor:
    """What the shares of one worker, uint8 with halves as their first axis, add up to."""
    summed = shares_HPF.to(torch.int64).sum(0)
    modulus = torch.tensor(PRIMES).view(-1, *[1] * (summed.ndim - 1))
    return integers((summed % modulus).to(torch.uint8))
