"""Jobs on shares: the same three products as in `job.py`, on residues instead of floats.

An integer tensor V is split by its owner into shares, V = v_0 + v_1 + v_2 modulo each prime, and a worker is
sent some of them: two of three (replicated sharing, Araki et al., 2016), or one of two where the other
operand is public. What it returns, with * the product of the operation:

    two halves of each operand    y = l0 * (r0 + r1) + l1 * r0      mod p, for every prime p
    one half of each              y = l0 * r0

    sum over the workers i = 0, 1, 2 of  x_i (w_i + w_i+1) + x_i+1 w_i  =  (sum of all x) (sum of all w)

A half is sent as its residues, or as the seed that the worker expands to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final, NoReturn, final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.ops.int8 import int_bytes, int_product, multiplies_bytes
from tempo.ops.job import Job, Shape, result_shape
from tempo.ops.kind import Op
from tempo.ops.modular import float_bytes, float_product
from tempo.ops.product import spans
from tempo.ops.residues import KEY_BYTES, PRIMES, expand_into

#: Halves of an operand of a job: all three shares together would be the operand.
MAX_HALVES: Final = 2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Seed:
    """Stands for `expand(key, shape)`. Neither printed nor pickled: whoever has two of these and the
    share that was sent has the operand."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise UsageError(f"a seed has {KEY_BYTES} bytes, not {len(self.key)}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seed is not pickled: it stands for a share of an operand")


#: uint8 (P, *shape), contiguous. A byte that is not below its prime counts as what it is modulo the prime.
Residues = Tensor
#: What a share is sent as.
Half = Seed | Residues


@dataclass(frozen=True, slots=True, eq=False)
class RingOperand:
    """One or two shares of an integer tensor, as a worker sees it.

    id: unique within a session, among operands of all kinds. shape: of the integer tensor, (T, features) or
    (G, N, K). halves: empty when only a worker still holds them. keep: as of `Operand`.
    """

    id: int
    shape: Shape
    halves: tuple[Half, ...] = field(repr=False)
    keep: bool = False

    def __post_init__(self) -> None:
        residues = (len(PRIMES), *self.shape)
        if len(self.halves) > MAX_HALVES:
            raise UsageError(
                f"a worker gets at most {MAX_HALVES} shares of an operand, not {len(self.halves)}"
            )
        for half in self.halves:
            if isinstance(half, Tensor) and (half.dtype != torch.uint8 or tuple(half.shape) != residues):
                raise UsageError(
                    f"a share of {self.shape} is uint8 {residues}, not {half.dtype} {tuple(half.shape)}"
                )

    @property
    def here(self) -> bool:
        """The sender has it and can ship it."""
        return bool(self.halves)

    @property
    def nbytes(self) -> int:
        """Bytes that shipping it takes."""
        sizes = (KEY_BYTES if isinstance(half, Seed) else half.nbytes for half in self.halves)
        return sum(sizes)

    def expanded(self) -> Tensor:
        """What the worker computes with: uint8 (H, P, *shape), with H the number of halves."""
        out = torch.empty((len(self.halves), len(PRIMES), *self.shape), dtype=torch.uint8)
        for place, half in zip(out, self.halves, strict=True):
            if isinstance(half, Seed):
                expand_into(half.key, place)
            else:
                place.copy_(half.detach())
        return out


@dataclass(frozen=True, slots=True, eq=False)
class RingJob:
    """Both operands have the same number of halves. Its result is uint8 (P, *that of the integers)."""

    op: Op
    left: RingOperand
    right: RingOperand
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({len(operand.halves) for operand in self.operands if operand.here}) > 1:
            raise UsageError("both operands of a job have one share or both have two")

    @property
    def operands(self) -> tuple[RingOperand, RingOperand]:
        return (self.left, self.right)

    @property
    def result_shape(self) -> Shape:
        return (len(PRIMES), *result_shape(self.op, self.left.shape, self.right.shape, self.rows))

    @property
    def result_dtype(self) -> torch.dtype:
        return torch.uint8

    @property
    def result_nbytes(self) -> int:
        return prod(self.result_shape)

    @property
    def flops(self) -> int:
        """Multiplications and additions of all residues. Two products each, unless one half is in sight."""
        features = self.right.shape[-2] if self.op is Op.PRODUCT else self.right.shape[-1]
        products = 1 if 1 in (len(self.left.halves), len(self.right.halves)) else 2
        return 2 * products * len(PRIMES) * self.left.shape[0] * self.left.shape[1] * features


#: What a worker is asked for.
AnyJob = Job | RingJob


def ring_compute(op: Op, left: Tensor, right: Tensor, rows: Sequence[int]) -> Tensor:
    """The result of a ring job, uint8 (P, *result), of operands as `RingOperand.expanded` gives them, on
    whatever device they live. Raises UsageError for operands with different numbers of halves, or shapes
    that do not fit."""
    if len(left) != len(right):
        raise UsageError(f"operands of {len(left)} and {len(right)} halves do not go together")
    shape = result_shape(op, tuple(left.shape[2:]), tuple(right.shape[2:]), tuple(rows))
    out = torch.empty((len(PRIMES), *shape), dtype=torch.uint8, device=left.device)
    multiply = int_product if multiplies_bytes(left.device) else float_product
    for factors_l, factors_r, to in _groups(op, left, right, rows, out):
        for prime, l_HGMI, r_HGIN, to_GMN in zip(PRIMES, factors_l, factors_r, to, strict=True):
            multiply(l_HGMI, r_HGIN, prime, to_GMN)
    return out


def ring_temporary_bytes(
    op: Op, left: Shape, right: Shape, rows: Sequence[int], halves: int, *, device: torch.device
) -> int:
    """Bytes that `ring_compute` takes on such a device at most, besides operands and result."""
    longest, features = max(rows, default=0), right[-1]
    match op:
        case Op.PRODUCT:
            shape, inner = (longest, right[1]), features
        case Op.GRAD_X:
            shape, inner = (longest, features), right[1]
        case Op.GRAD_W:
            shape, inner = (left[1], features), longest
    groups = len(rows) if _equal(rows) else 1
    if multiplies_bytes(device):
        return int_bytes(halves, (groups, *shape), inner, device.type)
    return float_bytes(halves, (groups, *shape), inner)


def _groups(
    op: Op, left: Tensor, right: Tensor, rows: Sequence[int], out: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of matrices: factors (P, H, G, M, I) and (P, H, G, I, N), and their place in the result,
    (P, G, M, N). All groups at once where they are equally long, else one by one."""
    left_PHTF, right_PH = left.transpose(0, 1), right.transpose(0, 1)
    count = len(rows) if _equal(rows) else 1
    for number, (lo, hi) in enumerate([(0, sum(rows))] if _equal(rows) else spans(rows)):
        groups, grouped = slice(number, number + count), (count, (hi - lo) // count)
        l_PHGRF = left_PHTF[:, :, lo:hi].unflatten(2, grouped)
        if op is Op.GRAD_W:
            yield l_PHGRF.mT, right_PH[:, :, lo:hi].unflatten(2, grouped), out[:, groups]
        else:
            r_PHGNK = right_PH[:, :, groups]
            r_PHGIJ = r_PHGNK.mT if op is Op.PRODUCT else r_PHGNK
            yield l_PHGRF, r_PHGIJ, out[:, lo:hi].unflatten(1, grouped)


def _equal(rows: Sequence[int]) -> bool:
    return len(set(rows)) == 1
