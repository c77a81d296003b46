"""Products of integer matrices with vectors modulo Q = 2^61 - 1, exactly, by way of float64.

    v = sum_j v_j 2^(l j),  0 <= v_j < 2^l          limbs of l bits
    A v mod Q = sum_j 2^(l j) (A v_j) mod Q

A v_j is a sum of whole numbers. If sum_f |A_rf| <= B and l = floor(53 - log2 B), every partial sum is below
2^53 in whatever order it is taken, fused or not, and float64 is exact. Multiplying by 2^(l j) modulo
2^61 - 1 turns 61 bits round. Nothing else is multiplied, so int64 never overflows: sums of two numbers below
2^61 are the largest there are.

Axes: R rows, F features, L limbs.
"""

from __future__ import annotations

from math import floor, log2
from typing import Final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.kernels import contract, project
from tempo.kernels.pieces import pieces
from tempo.secrecy.keys import Stream

#: A prime: what differs modulo nothing differs modulo it with all but 2^-61.
BITS: Final = 61
Q: Final = (1 << BITS) - 1
#: Significant bits of float64.
_EXACT: Final = 53
#: Results of jobs are taken apart here: |v| <= 2^38.5 as high * 2^20 + low.
_CUT: Final = 20


def draw(stream: Stream, length: int) -> Tensor:
    """Uniform in [0, Q), int64: 61 bits, drawn again where they are Q."""
    v = stream.words(length) & Q
    while bool((again := v == Q).any()):
        v[again] = stream.words(int(again.sum())) & Q
    return v


def rows_times(a_RF: Tensor, v_F: Tensor, bound: float) -> Tensor:
    """A v mod Q, int64 (R,). A: whole numbers in float32 or float64. bound: of sum_f |A_rf|, any row."""
    limbs_FL, bits = _limbs(v_F, bound)
    return _joined(project(a_RF, limbs_FL)[0], bits)


def columns_times(a_RF: Tensor, v_R: Tensor, bound: float) -> Tensor:
    """A^T v mod Q, int64 (F,). bound: of sum_r |A_rf|, any column."""
    limbs_RL, bits = _limbs(v_R, bound)
    return _joined(contract(a_RF, limbs_RL)[0], bits)


def results_times(y_RF: Tensor, v_F: Tensor, largest: int) -> Tensor:
    """Y v mod Q, int64 (R,), of integers up to `largest` in float64: too long for limbs that are worth
    having, so in two parts."""
    rows, width = y_RF.shape
    out = torch.empty(rows, dtype=torch.int64)
    for lo, hi in pieces(0, rows, width):
        high_RF = (y_RF[lo:hi] * 2.0**-_CUT).round_()
        low_RF = torch.sub(y_RF[lo:hi], high_RF, alpha=1 << _CUT)  # within 2^19
        high = rows_times(high_RF, v_F, width * (largest / (1 << _CUT) + 1))
        low = rows_times(low_RF, v_F, width * float(1 << (_CUT - 1)))
        out[lo:hi] = _sum(_turned(high, _CUT), low)
    return out


def _limbs(v: Tensor, bound: float) -> tuple[Tensor, int]:
    """float64 (n, L), and the bits of a limb. Raises UsageError where not one bit is left for it."""
    bits = min(floor(_EXACT - log2(bound)) if bound > 1 else _EXACT, BITS)
    if bits < 1:
        raise UsageError(f"sums up to {bound:.3g} are too long to be checked: send fewer features at once")
    mask = (1 << bits) - 1
    parts = [((v >> shift) & mask).double() for shift in range(0, BITS, bits)]
    return torch.stack(parts, 1), bits


def _joined(sums_RL: Tensor, bits: int) -> Tensor:
    """Sums of limbs to their value modulo Q."""
    total = torch.zeros(len(sums_RL), dtype=torch.int64)
    for j, sums_R in enumerate(sums_RL.unbind(1)):
        # Whole numbers of at most 53 bits: negative ones are brought up by Q once.
        part = sums_R.to(torch.int64)
        part += (part >> 63) & Q
        total = _sum(total, _turned(part, bits * j))
    return total


def _turned(v: Tensor, by: int) -> Tensor:
    """2^by v mod Q, for v in [0, Q): the upper bits come back in below."""
    by %= BITS
    # What a shift to the left drops beyond 64 bits is in the other half.
    return v if by == 0 else _low((v << by) & Q | (v >> (BITS - by)))


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """(a + b) mod Q, both in [0, Q)."""
    return _low(a + b)


def _low(v: Tensor) -> Tensor:
    """v mod Q, for v in [0, 2 Q)."""
    return torch.where(v >= Q, v - Q, v)
