"""Exact products modulo a small prime, on units that multiply floats.

    one half of each     c = l0 r0                            mod p
    two halves           c = l0 (r0 + r1) + l1 r0             mod p
                           = (l0 + l1) r0 + l0 r1             where that is the smaller sum

Factors are centred: integers of magnitude (p - 1) / 2 at most, 125 for p = 251. A float32 accumulator is
exact while the magnitudes of all terms add up to less than 2^24, whatever the order of the sum:

    2 * 512 * 125^2 = 16,000,000, beside what the reduction before left, at most 127

so two products are summed over 512 inner terms, or one over 1,024, and reduced modulo p in between.
(Residues of a byte for exact products: the idea of Ozaki's second scheme, Ozaki, Uchino, Imamura, 2025.)

Axes: H halves; G groups; M x I times I x N.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final, final

import torch
from torch import Tensor

from tempo.ops.precision import precision
from tempo.ops.residues import PRIMES

#: Inner terms between two reductions, of both products together.
TERMS: Final = 2 * 512
#: Largest magnitude of a factor, and of what a reduction leaves: it errs by one multiple of p at most, where
#: a quotient is close to a half.
FACTOR: Final = (max(PRIMES) - 1) // 2
_LEFT: Final = 127
if TERMS * FACTOR**2 + _LEFT >= 2**24:
    raise AssertionError("float32 sums of so many terms are not exact")

#: Elements of the sum of a tile, at most.
_TILE: Final = 1 << 21
#: Rows or columns of a tile: fewer are converted to floats too often, more take memory.
_SIDES: Final = (1 << 11, 1 << 12)
#: Floats of both factors of a tile at a time, about.
_FACTORS: Final = 1 << 22
#: Elements at a time and thread in passes over a sum: they stay in the cache from one pass to the next.
_SLAB: Final = 1 << 16

Sizes = tuple[int, int, int]


def centred(residues: Tensor, p: int) -> Tensor:
    """int8 of magnitude (p - 1) / 2 at most, congruent to these bytes. A byte that is not below p is taken
    modulo p: nobody gains by sending one, and to look for it would cost a pass over the operand."""
    half = p // 2
    above = residues.clamp(half, half + 1).sub_(half)  # 1 above the half, else 0: faster than a comparison
    return residues.sub(above, alpha=p).view(torch.int8)  # wrapped around 2^8 it is the signed byte


def float_product(left_HGMI: Tensor, right_HGIN: Tensor, p: int, out_GMN: Tensor) -> None:
    """The product in [0, p) into `out`; all uint8, of any strides. left and right have one or two halves."""
    inner = left_HGMI.shape[3]
    if not out_GMN.numel() or not inner:
        out_GMN.zero_()
        return
    step, tile = TERMS // len(left_HGMI), _tile(_sizes(out_GMN))
    work = _Workspace(left_HGMI, tile, p)
    with precision(tf32=False):
        for g, rows, columns in _tiles(_sizes(out_GMN), tile):
            to = out_GMN[g, rows, columns]
            acc = work.sums(_sizes(to))
            for first in range(0, inner, step):
                some = slice(first, first + step)
                work.add(acc, left_HGMI[:, g, rows, some], right_HGIN[:, g, some, columns], begin=not first)
            work.finish(acc, to)


def float_bytes(halves: int, shape: Sizes, inner: int) -> int:
    """Bytes that `float_product` takes at most, besides operands and result. shape: of the result."""
    if not prod(shape) or not inner:
        return 0
    groups, m, n = _tile(shape)
    terms = min(TERMS, halves * inner)
    # Beside the workspace the bytes of one half of a factor, compared and centred.
    converted = 2 * groups * max(m, n) * (terms // halves)
    return 4 * (groups * ((m + n) * terms + m * n) + _slab_elements(tile=(groups, m, n))) + converted


@final
class _Workspace:
    """Floats for the factors and the sum of one tile, used again for the next."""

    def __init__(self, left_HGMI: Tensor, tile: Sizes, p: int) -> None:
        groups, m, n = tile
        terms = min(TERMS, len(left_HGMI) * left_HGMI.shape[3])
        sizes = (groups * m * terms, groups * n * terms, groups * m * n, _slab_elements(tile))
        floats = [torch.empty(size, dtype=torch.float32, device=left_HGMI.device) for size in sizes]
        self._left, self._right, self._sums, self._quotients = floats
        self._p = p

    def sums(self, shape: Sizes) -> Tensor:
        """Not initialised."""
        return self._sums[: prod(shape)].view(shape)

    def add(self, acc: Tensor, left_HGMI: Tensor, right_HGIN: Tensor, *, begin: bool) -> None:
        """acc = the product over these inner terms, beside what it was unless they begin it; reduced."""
        a_GMJ, lefts = _laid_out(self._left, left_HGMI, axis=2)
        b_GJN, rights = _laid_out(self._right, right_HGIN, axis=1)
        # Of the right factor the halves change places: l0 meets r1, and l1 meets r0.
        for to, half in (*zip(lefts, left_HGMI, strict=True), *zip(rights[::-1], right_HGIN, strict=True)):
            to.copy_(centred(half, self._p))
        if len(lefts) == 2:  # l0 r0 is missing
            smaller = (lefts[1], lefts[0]) if lefts[0].numel() < rights[0].numel() else tuple(rights)
            self._reduce(smaller[0].add_(smaller[1]))
        if begin:
            torch.bmm(a_GMJ, b_GJN, out=acc)
        else:
            acc.baddbmm_(a_GMJ, b_GJN)
        self._reduce(acc)

    def finish(self, acc: Tensor, to: Tensor) -> None:
        """Write what is left of a sum as residues in [0, p)."""
        for slab, quotients, place in self._slabs(acc, to):
            place.copy_(slab.add_(torch.lt(slab, 0, out=quotients), alpha=self._p))

    def _reduce(self, numbers: Tensor) -> None:
        """To magnitude _LEFT at most, congruent modulo p; to that of a residue where two were added."""
        for slab, quotients, _ in self._slabs(numbers, numbers):
            torch.mul(slab, 1 / self._p, out=quotients)
            slab.sub_(quotients.round_(), alpha=self._p)

    def _slabs(self, numbers: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Parts of a tensor, floats for each, and the same parts of another."""
        if numbers.stride(1) < numbers.stride(2):
            numbers, beside = numbers.mT, beside.mT
        for matrix, other in zip(numbers, beside, strict=True):
            rows = max(1, _slab() // matrix.shape[1])
            for slab, place in zip(matrix.split(rows), other.split(rows), strict=True):
                yield slab, self._quotients[: slab.numel()].view(slab.shape), place


def _laid_out(memory: Tensor, factor: Tensor, *, axis: int) -> tuple[Tensor, list[Tensor]]:
    """A matrix for each group whose inner axis holds all halves one after another, and the place of each
    half in it; laid out as the factor is, so that converting does not transpose."""
    halves, shape = len(factor), list(factor.shape[1:])
    inner = shape[axis]
    shape[axis] *= halves
    flat = memory[: prod(shape)]
    if factor.stride(3) > factor.stride(2):
        whole = flat.view(shape[0], shape[2], shape[1]).mT
    else:
        whole = flat.view(shape)
    return whole, list(whole.split(inner, axis))


def _sizes(tensor: Tensor) -> Sizes:
    groups, m, n = tensor.shape
    return groups, m, n


def _tile(shape: Sizes) -> Sizes:
    """Groups, rows and columns of a tile, at most."""
    groups, m, n = shape
    least, most = _SIDES
    columns = min(n, max(least, min(most, _TILE // m)))
    rows = min(m, most, _TILE // columns)
    together = min(_TILE // (rows * columns), _FACTORS // ((rows + columns) * TERMS))
    return min(groups, max(1, together)), rows, columns


def _slab_elements(tile: Sizes) -> int:
    """Elements of a slab of a sum or a factor, at most."""
    return min(_slab(), max(prod(tile), max(tile[1:]) * TERMS))


def _slab() -> int:
    return _SLAB * torch.get_num_threads()


def _tiles(shape: Sizes, tile: Sizes) -> Iterator[tuple[slice, slice, slice]]:
    starts = [range(0, size, step) for size, step in zip(shape, tile, strict=True)]
    for g in starts[0]:
        for row in starts[1]:
            for column in starts[2]:
                yield slice(g, g + tile[0]), slice(row, row + tile[1]), slice(column, column + tile[2])
