"""In which numbers a product is computed: dtypes of operands and result, and what a worker may round.

    operands             what is multiplied            summed in   PRODUCT, GRAD_X   GRAD_W
    float64              as sent                       float64     float64           float64
    float32              as sent, or rounded to        float32     float32           float32
                         the arithmetic allowed
    bfloat16             as sent (exact in float32)    float32     bfloat16          float32
    float32, bfloat16    as sent                       float32     float32           float32

A bfloat16 result is rounded once, from the float32 sum. dW stays in float32: it has N K entries beside
the 2 T (K + N) of the rows that cross in a step, it is a partial sum that the master adds to others, and
its check is closer than that of a rounded result up to some 20,000 rows (docs/numerics.md, section 5).
"""

from __future__ import annotations

from enum import Enum

import torch

from tempo.errors import UsageError
from tempo.ops.kind import Op


class Arithmetic(Enum):
    """What a worker may round float32 operands to before it multiplies them. Permission, not duty: a
    better product always passes. Sums are taken in float32."""

    FP32 = "fp32"  # nothing
    TF32 = "tf32"  # 10 explicit bits of mantissa
    BF16 = "bf16"  # 7

    def stricter(self, other: Arithmetic) -> Arithmetic:
        """What both allow."""
        order = list(Arithmetic)
        return min(self, other, key=order.index)


def result_dtype(op: Op, left: torch.dtype, right: torch.dtype, arithmetic: Arithmetic) -> torch.dtype:
    """Dtype of the result: master, worker and verifier ask here. Raises UsageError for operands that do
    not go together, or an arithmetic that is not for them."""
    if left != right and {left, right} != {torch.float32, torch.bfloat16}:
        raise UsageError(
            f"operands of one job share a dtype or are float32 and bfloat16, not {left}, {right}"
        )
    if arithmetic is not Arithmetic.FP32 and not left == right == torch.float32:
        raise UsageError(
            f"arithmetic {arithmetic.value} is for float32 operands, these are {left}, {right}: ask for fp32"
        )
    dtype = torch.promote_types(left, right)
    return torch.float32 if op is Op.GRAD_W and dtype == torch.bfloat16 else dtype
