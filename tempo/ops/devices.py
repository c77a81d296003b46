"""What a worker does with a job: the product, in the arithmetic that the job allows.

On the CPU every product is one of float32 or float64, of operands rounded where that is allowed: the
reference. CUDA takes its tensor cores for the same products, and sums in float32 as well.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Final

import torch
from torch import Tensor

from tempo.ops.arithmetic import Arithmetic, result_dtype
from tempo.ops.job import result_shape
from tempo.ops.kind import Op
from tempo.ops.precision import precision
from tempo.ops.product import grad_w, grad_x, product

#: This torch multiplies bfloat16 into float32 on CUDA.
_WIDENS: Final = hasattr(torch.ops.aten.mm, "dtype") and hasattr(torch.ops.aten.bmm, "dtype")


#: Makes a contiguous tensor of this shape and dtype, not initialised.
Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]


def compute(
    op: Op,
    left: Tensor,
    right: Tensor,
    rows: tuple[int, ...],
    arithmetic: Arithmetic = Arithmetic.FP32,
    empty: Allocate | None = None,
) -> Tensor:
    """The result of a job, on whatever device its operands live. empty: makes memory for it on a CPU, as
    `torch.empty`, which hands out pages that were never touched: they cost as much as the product of a
    narrow layer. Raises UsageError as `result_dtype`, and whatever `empty` does."""
    dtype = result_dtype(op, left.dtype, right.dtype, arithmetic)
    left, right, tf32 = _prepare(left, right, dtype, arithmetic)
    # float32 sums of widened operands are rounded below; bfloat16 ones by the kernel itself.
    out = dtype if left.dtype == torch.bfloat16 else left.dtype
    memory = None
    if empty is not None and out == dtype and left.device.type == "cpu":
        memory = empty(result_shape(op, tuple(left.shape), tuple(right.shape), rows), dtype)
    with precision(tf32=tf32):
        match op:
            case Op.PRODUCT:
                result = product(left, right, rows, out, memory)
            case Op.GRAD_X:
                result = grad_x(left, right, rows, out, memory)
            case Op.GRAD_W:
                result = grad_w(left, right, rows, out, memory)
    return result.to(dtype)


def _prepare(
    left: Tensor, right: Tensor, dtype: torch.dtype, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor, bool]:
    """Both operands in the dtype they are multiplied in, and whether in TF32."""
    cuda = left.device.type == "cuda"
    if arithmetic is Arithmetic.BF16:
        left, right = left.bfloat16(), right.bfloat16()
    narrow = left.dtype == right.dtype == torch.bfloat16
    if narrow and _multiplies_narrow(left.device.type, dtype):
        return left, right, False
    if torch.bfloat16 in (left.dtype, right.dtype):
        left, right = left.float(), right.float()
    # bfloat16 fits into TF32: such a product loses nothing there.
    return left, right, cuda and (narrow or arithmetic is Arithmetic.TF32)


def _multiplies_narrow(device: str, dtype: torch.dtype) -> bool:
    """Whether bfloat16 operands are multiplied as they are, into this dtype."""
    return device == "cuda" and (dtype == torch.bfloat16 or _WIDENS)


#: Shape and dtype of an operand.
Spec = tuple[tuple[int, ...], torch.dtype]


def temporary_bytes(
    op: Op, left: Spec, right: Spec, rows: tuple[int, ...], arithmetic: Arithmetic, *, device: str
) -> int:
    """Bytes that `compute` takes on such a device at most, besides operands and result: copies of
    operands in another dtype, and a result before it is rounded. Without what the library of a device
    takes for itself. device: as torch.device.type. Raises UsageError as `result_dtype`, `result_shape`.

    With n the elements of both operands, m those of the result, on the CPU:
        float32, rounded to bfloat16        2 n + 4 n: narrow copies, widened while those are there
        bfloat16 into bfloat16              4 n + 4 m: widened copies, the sums before they are rounded
    """
    dtype = result_dtype(op, left[1], right[1], arithmetic)
    specs = (left, right)
    rounded = arithmetic is Arithmetic.BF16  # its operands are float32
    narrow = sum(2 * prod(shape) for shape, _ in specs) if rounded else 0
    dtypes = [torch.bfloat16 if rounded else one for _, one in specs]
    if torch.bfloat16 not in dtypes or (dtypes[0] == dtypes[1] and _multiplies_narrow(device, dtype)):
        return narrow
    wide = sum(
        4 * prod(shape) for (shape, _), one in zip(specs, dtypes, strict=True) if one == torch.bfloat16
    )
    sums = 4 * prod(result_shape(op, left[0], right[0], rows)) if dtype == torch.bfloat16 else 0
    return max(narrow + wide, wide + sums)
