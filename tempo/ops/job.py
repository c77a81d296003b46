"""A job: one operation on two operands, as data that may cross the trust boundary.

An operand is named by an id. The sender ships its tensor, or refers to one that the worker kept
from an earlier job. Which pair an operation takes:

    op        left   right   result
    PRODUCT   X_TK   W_GNK   Y_TN
    GRAD_X    dY_TN  W_GNK   dX_TK
    GRAD_W    dY_TN  X_TK    dW_GNK
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.ops.arithmetic import Arithmetic, result_dtype
from tempo.ops.kind import Op

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """A tensor as the worker sees it.

    id: unique within a session. tensor: contiguous, or None when only a worker still holds it.
    keep: the worker stores it under its id for later jobs, until it is released.
    """

    id: int
    shape: Shape
    dtype: torch.dtype
    tensor: Tensor | None = field(repr=False)
    keep: bool = False

    @property
    def here(self) -> bool:
        """The sender has it and can ship it."""
        return self.tensor is not None

    @property
    def nbytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """arithmetic: what the worker may round float32 operands to."""

    op: Op
    left: Operand
    right: Operand
    rows: tuple[int, ...]
    arithmetic: Arithmetic = Arithmetic.FP32

    @property
    def operands(self) -> tuple[Operand, Operand]:
        return (self.left, self.right)

    @property
    def result_shape(self) -> Shape:
        return result_shape(self.op, self.left.shape, self.right.shape, self.rows)

    @property
    def result_dtype(self) -> torch.dtype:
        return result_dtype(self.op, self.left.dtype, self.right.dtype, self.arithmetic)

    @property
    def result_nbytes(self) -> int:
        count = self.result_dtype.itemsize
        for size in self.result_shape:
            count *= size
        return count

    @property
    def flops(self) -> int:
        """Multiplications and additions: 2 T N K, whatever the operation."""
        inner_or_outer = self.right.shape[-1] if self.op is not Op.PRODUCT else self.right.shape[-2]
        return 2 * self.left.shape[0] * self.left.shape[1] * inner_or_outer


def result_shape(op: Op, left: Shape, right: Shape, rows: tuple[int, ...]) -> Shape:
    """Shape of the result. Raises UsageError where the operands do not fit each other: both sides
    of the boundary ask here before they touch a byte."""

    def refuse(why: str) -> UsageError:
        return UsageError(f"{op.value} of {left} and {right} over rows {rows[:8]}: {why}")

    if any(size < 0 for size in (*left, *right, *rows)):
        raise refuse("sizes are never negative")
    if len(left) != 2 or left[0] != sum(rows) or not rows:
        raise refuse("the left operand is (T, features) with T the sum of the rows of all groups")
    if op is Op.GRAD_W:
        if len(right) != 2 or right[0] != left[0]:
            raise refuse("the right operand is (T, K) with the same T")
        return (len(rows), left[1], right[1])
    if len(right) != 3 or right[0] != len(rows):
        raise refuse("the right operand is (G, N, K) with a group for each entry of rows")
    inner, outer = (right[2], right[1]) if op is Op.PRODUCT else (right[1], right[2])
    if left[1] != inner:
        raise refuse(f"the left operand has {left[1]} features, the right one takes {inner}")
    return (left[0], outer)
