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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final, NoReturn, final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.ops.job import Shape, result_shape
from tempo.ops.kind import Op
from tempo.ops.product import grad_w, grad_x, product
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
    """Both operands have the same number of halves. The result is uint8 (P, *result_shape of the integers)."""

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


def ring_compute(op: Op, left: Tensor, right: Tensor, rows: Sequence[int]) -> Tensor:
    """The result of a ring job, uint8 (P, *result), of operands as `RingOperand.expanded` gives them.
    Raises UsageError for operands with different numbers of halves."""
    if len(left) != len(right):
        raise UsageError(f"operands of {len(left)} and {len(right)} halves do not go together")
    each = [
        _plain(op, l_P, r_P, rows, p)
        for l_P, r_P, p in zip(left.unbind(1), right.unbind(1), PRIMES, strict=True)
    ]
    return torch.stack(each)


_PLAIN: Final[dict[Op, Callable[[Tensor, Tensor, Sequence[int]], Tensor]]] = {
    Op.PRODUCT: product,
    Op.GRAD_X: grad_x,
    Op.GRAD_W: grad_w,
}


def _plain(op: Op, left: Tensor, right: Tensor, rows: Sequence[int], p: int) -> Tensor:
    """One prime, in float64: exact below 2^53."""
    times, left, right = _PLAIN[op], left.double(), right.double()
    if len(left) == 1:
        return times(left[0], right[0], rows).remainder(p).to(torch.uint8)
    whole = times(left[0], right.sum(0), rows) + times(left[1], right[0], rows)
    return whole.remainder(p).to(torch.uint8)
