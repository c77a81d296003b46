"""What a worker does with a job: the product, in the arithmetic that the job allows.

On the CPU every product is one of float32 or float64, of operands rounded where that is allowed: the
reference. CUDA takes its tensor cores for the same products, and sums in float32 as well.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tempo.ops.arithmetic import Arithmetic, result_dtype
from tempo.ops.kind import Op
from tempo.ops.precision import precision
from tempo.ops.product import grad_w, grad_x, product

#: This torch multiplies bfloat16 into float32 on CUDA.
_WIDENS: Final = hasattr(torch.ops.aten.mm, "dtype") and hasattr(torch.ops.aten.bmm, "dtype")


def compute(
    op: Op,
    left: Tensor,
    right: Tensor,
    rows: tuple[int, ...],
    arithmetic: Arithmetic = Arithmetic.FP32,
) -> Tensor:
    """The result of a job, on whatever device its operands live. Raises UsageError as `result_dtype`."""
    dtype = result_dtype(op, left.dtype, right.dtype, arithmetic)
    left, right, tf32 = _prepare(left, right, dtype, arithmetic)
    # float32 sums of widened operands are rounded below; bfloat16 ones by the kernel itself.
    out = dtype if left.dtype == torch.bfloat16 else left.dtype
    with precision(tf32=tf32):
        match op:
            case Op.PRODUCT:
                result = product(left, right, rows, out)
            case Op.GRAD_X:
                result = grad_x(left, right, rows, out)
            case Op.GRAD_W:
                result = grad_w(left, right, rows, out)
    return result.to(dtype)


def _prepare(
    left: Tensor, right: Tensor, dtype: torch.dtype, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor, bool]:
    """Both operands in the dtype they are multiplied in, and whether in TF32."""
    cuda = left.device.type == "cuda"
    if arithmetic is Arithmetic.BF16:
        left, right = left.bfloat16(), right.bfloat16()
    narrow = left.dtype == right.dtype == torch.bfloat16
    if narrow and cuda and (dtype == torch.bfloat16 or _WIDENS):
        return left, right, False
    if torch.bfloat16 in (left.dtype, right.dtype):
        left, right = left.float(), right.float()
    # bfloat16 fits into TF32: such a product loses nothing there.
    return left, right, cuda and (narrow or arithmetic is Arithmetic.TF32)
