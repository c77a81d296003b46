"""Exact products modulo a small prime on units that multiply bytes: tensor cores of GPUs, and of CPUs that
have them (AMX, VNNI).

The same sums as in `modular.py`, in int32. It is exact while the magnitudes of all terms stay below 2^31:

    2 * 65536 * 125^2 = 2,048,000,000

so two products are summed over 65,536 inner terms, or one over 131,072, and reduced modulo p in between.
The unit takes a left factor by rows and a right one by columns, with more than 16 rows and sizes that are
multiples of 8: factors are centred into such matrices, padded with zeros.

Axes as in `modular.py`; J the inner axis of all halves, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
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

#: What rows of the left factor, and the other sizes, are padded to a multiple of.
_ROWS_OF: Final = 32
_OF: Final = 8
#: Elements of a sum at a time, about, and its rows at least.
_SUM: Final = {"cpu": 1 << 21, "cuda": 1 << 26}
_LEAST_ROWS: Final = 512
#: Elements at a time in passes over factors and sums; on the CPU for each thread, so that they stay in its
#: cache between passes.
_SLAB: Final = {"cpu": 1 << 16, "cuda": 1 << 24}


@lru_cache(maxsize=64)
def multiplies_bytes(device: torch.device) -> bool:
    """The device has such a unit, and it sums without saturating. Tried once for all connections."""
    fast = device.type == "cuda" or (device.type == "cpu" and _cpu_has_unit())
    if not fast or not hasattr(torch, "_int_mm"):
        return False
    try:
        # A CPU without the unit would add pairs of products in 16 bits, which these exceed.
        largest = torch.full((_ROWS_OF, 4096), FACTOR, dtype=torch.int8, device=device)
        exact = [torch._int_mm(largest, (sign * largest).mT) == sign * 4096 * FACTOR**2 for sign in (1, -1)]
        return all(bool(one.all()) for one in exact)
    except RuntimeError:  # a card without such cores
        return False


def _cpu_has_unit() -> bool:
    asked = (getattr(torch.cpu, name, None) for name in ("_is_vnni_supported", "_is_amx_tile_supported"))
    return torch.backends.mkldnn.is_available() and any(ask is not None and ask() for ask in asked)


def int_product(left_HGMI: Tensor, right_HGIN: Tensor, p: int, out_GMN: Tensor) -> None:
    """As `float_product`."""
    inner, step = left_HGMI.shape[3], TERMS // len(left_HGMI)
    if not out_GMN.numel() or not inner:
        out_GMN.zero_()
        return
    for g, to_MN in enumerate(out_GMN):
        left_HMI, right_HIN = left_HGMI[:, g], right_HGIN[:, g]
        for first in range(0, inner, step):
            some = slice(first, first + step)
            _add(left_HMI[..., some], right_HIN[:, some], p, to_MN, begin=not first)


def int_bytes(halves: int, shape: Sizes, inner: int, device: str) -> int:
    """Bytes that `int_product` takes at most, besides operands and result. shape: of the result."""
    _, m, n = shape
    if not prod(shape) or not inner:
        return 0
    terms = halves * _padded(min(inner, TERMS // halves), _OF)
    rows, columns = _padded(m, _ROWS_OF), _padded(n, _OF)
    # A slab is a row at least. Of a sum it takes the quotient in float64 and int32, of a factor less.
    most = max(m * n, max(m, n) * min(inner, TERMS // halves))
    slab = 12 * min(most, max(_slab(device), m, n, inner))
    return (rows + columns) * terms + 4 * min(rows, _sum_rows(n, device)) * columns + slab


def _add(left_HMI: Tensor, right_HIN: Tensor, p: int, to_MN: Tensor, *, begin: bool) -> None:
    """to = the product over these inner terms, beside what it was unless they begin it, in [0, p)."""
    left_is_less = left_HMI.numel() < right_HIN.numel()
    a_MJ = _factor(left_HMI, p, _ROWS_OF, add=left_is_less)
    b_NJ = _factor(right_HIN.mT, p, _OF, add=not left_is_less)
    m, n = to_MN.shape
    step = _sum_rows(n, to_MN.device.type)
    for first in range(0, m, step):
        to = to_MN[first : first + step]
        sums = torch._int_mm(a_MJ[first : first + step], b_NJ.mT)[: len(to), :n]
        for slab, place in _slabs(sums, to):
            _reduce(slab if begin else slab.remainder_(p).add_(place), p)
            place.copy_(slab)


def _factor(halves: Tensor, p: int, multiple: int, *, add: bool) -> Tensor:
    """(h0, h1) side by side, or (h0 + h1, h0), each padded with zeros to a multiple of columns."""
    count, rows, columns = halves.shape
    each = _padded(columns, _OF)
    whole = torch.zeros(_padded(rows, multiple), count * each, dtype=torch.int8, device=halves.device)
    first, *rest = (place[:rows, :columns] for place in whole.split(each, 1))
    for half, place in _slabs(halves[0], rest[0] if rest and add else first):
        place.copy_(centred(half, p))
    for second in rest:
        known = second if add else first
        for half, one, place in _slabs(halves[1], known, first if add else second):
            place.copy_(_centred_sum(one, centred(half, p), p) if add else centred(half, p))
    return whole


def _slabs(matrix: Tensor, *beside: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of a matrix that lie together in its memory, and the same parts of others."""
    axis = 0 if matrix.stride(0) >= matrix.stride(1) else 1
    size = max(1, _slab(matrix.device.type) // max(1, matrix.shape[1 - axis]))
    yield from zip(*(each.split(size, axis) for each in (matrix, *beside)), strict=True)


def _reduce(sums: Tensor, p: int) -> None:
    """To [0, p), in place. The half keeps the quotient of a multiple of p away from the step of the floor."""
    if sums.device.type == "cpu":
        sums.sub_(sums.double().add_(0.5).mul_(1 / p).floor_().to(torch.int32), alpha=p)
    else:
        sums.remainder_(p)


def _sum_rows(columns: int, device: str) -> int:
    return _padded(max(_LEAST_ROWS, _SUM[device] // max(1, columns)), _ROWS_OF)


def _slab(device: str) -> int:
    return _SLAB[device] * (torch.get_num_threads() if device == "cpu" else 1)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _centred_sum(one: Tensor, other: Tensor, p: int) -> Tensor:
    """The centred residue of the sum of two, as int16."""
    total, half = one.to(torch.int16).add_(other), p // 2
    total.sub_(total.clamp(half, half + 1).sub_(half), alpha=p)
    return total.sub_(total.clamp(-half - 1, -half).add_(half), alpha=p)
