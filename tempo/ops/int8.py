"""Exact products modulo a small prime on tensor cores that multiply bytes (CUDA).

The same sums as in `modular.py`, in int32. It is exact while the magnitudes of all terms stay below 2^31:

    2 * 65536 * 125^2 = 2,048,000,000

so two products are summed over 65,536 inner terms, or one over 131,072, and reduced modulo p in between.
The unit takes a left factor by rows and a right one by columns, with more than 16 rows and sizes that are
multiples of 8: factors are centred into such matrices, padded with zeros.

Axes as in `modular.py`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Final

import torch
from torch import Tensor

from tempo.ops.modular import FACTOR, Sizes, centred

#: Inner terms between two reductions, of both products together.
TERMS: Final = 2 * 65536
if TERMS * FACTOR**2 >= 2**31:
    raise AssertionError("int32 sums of so many terms are not exact")

#: Rows of a sum at a time.
_ROWS: Final = 1 << 14
#: What rows of the left factor, and the other sizes, are padded to a multiple of.
_ROWS_OF: Final = 32
_OF: Final = 8


@lru_cache(maxsize=64)
def multiplies_bytes(device: torch.device) -> bool:
    """Tried once for all connections."""
    if device.type != "cuda" or not hasattr(torch, "_int_mm"):
        return False
    try:
        ones = torch.ones(_ROWS_OF, _ROWS_OF, dtype=torch.int8, device=device)
        return bool((torch._int_mm(ones, ones.mT) == _ROWS_OF).all())
    except RuntimeError:  # a card without such cores
        return False


def int_product(left_HGMI: Tensor, right_HGIN: Tensor, p: int, out_GMN: Tensor) -> None:
    """As `float_product`."""
    inner, step = left_HGMI.shape[3], TERMS // len(left_HGMI)
    if not out_GMN.numel() or not inner:
        out_GMN.zero_()
        return
    for g, to_MN in enumerate(out_GMN):
        left_HMI, right_HIN = left_HGMI[:, g], right_HGIN[:, g]
        for first in range(0, inner, step):
            _add(left_HMI[..., first : first + step], right_HIN[:, first : first + step], p, to_MN, not first)


def int_bytes(halves: int, shape: Sizes, inner: int) -> int:
    """Bytes that `int_product` takes at most, besides operands and result. shape: of the result."""
    _, m, n = shape
    if not prod(shape) or not inner:
        return 0
    rows, columns = _padded(min(m, _ROWS), _ROWS_OF), _padded(n, _OF)
    terms = halves * _padded(min(inner, TERMS // halves), _OF)
    # Both factors, the copies in which a half is centred (two of bytes, two of int16 where halves are added),
    # and a sum with its remainder.
    factors, passing = (_padded(m, _ROWS_OF) + columns) * terms, 6 * max(m, n) * (terms // halves)
    return factors + passing + 8 * rows * columns


def _add(left_HMI: Tensor, right_HIN: Tensor, p: int, to_MN: Tensor, begin: bool) -> None:
    """to = the product over these inner terms, beside what it was unless they begin it, in [0, p)."""
    lefts = [centred(half, p) for half in left_HMI]
    rights = [centred(half, p) for half in right_HIN]
    if len(rights) == 2:  # l0 meets r0 + r1, and l1 meets r0
        rights = [_centred_sum(rights[0], rights[1], p), rights[0]]
    inner = _padded(left_HMI.shape[2], _OF)
    a_MJ = _by_rows(lefts, inner, _ROWS_OF)
    b_NJ = _by_rows([half.mT for half in rights], inner, _OF)
    del lefts, rights
    m, n = to_MN.shape
    for first in range(0, m, _ROWS):
        to = to_MN[first : first + _ROWS]
        sums = torch._int_mm(a_MJ[first : first + _ROWS], b_NJ.mT)[: len(to), :n]
        to.copy_((sums if begin else sums.remainder_(p).add_(to)).remainder_(p))


def _by_rows(halves: list[Tensor], inner: int, multiple: int) -> Tensor:
    """Halves side by side, each padded to `inner` columns, and together to a multiple of rows."""
    rows, columns = halves[0].shape
    whole = halves[0].new_zeros(_padded(rows, multiple), len(halves) * inner)
    for half, place in zip(halves, whole.split(inner, 1), strict=True):
        place[:rows, :columns] = half
    return whole


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _centred_sum(one: Tensor, other: Tensor, p: int) -> Tensor:
    """The centred residue of the sum of two."""
    total = one.to(torch.int16).add_(other)
    total.sub_((total > p // 2).to(torch.int16), alpha=p)
    return total.add_((total < -(p // 2)).to(torch.int16), alpha=p).to(torch.int8)
