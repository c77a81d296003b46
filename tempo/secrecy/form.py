"""In which numbers the operands of one operation are sent: wire dtype and arithmetic, by operand.

Rows are mixed in blocks, so what rounding does to a row is relative to the largest row of its block. One
that is EVEN times smaller loses as many times the precision. Rows that differ by more are sent in float32
and multiplied in float32.

    setting           even rows              uneven rows
    wire bf16         bfloat16               float32
    arithmetic tf32   float32, may be TF32   float32
    arithmetic bf16   float32, may be bf16   float32

W goes as X does: a small row less the centre (tempo/secrecy/seal.py) is as large as the centre, and must
not drown in the rounding of its product with W. dY has no centre: where it is uneven it goes in float32
beside the X' and W' that the worker has. Layers whose maps amplify errors (Winograd F(4,3)) meet no
bfloat16: TF32 at most. float64 is never narrowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.lowering.base import Lowering
from tempo.ops import Arithmetic
from tempo.secrecy.rows import Selection

#: Rows of a group that differ by more than this factor are sent in float32 (DESIGN.md, Scales).
EVEN: Final = 30.0


@final
@dataclass(frozen=True, slots=True)
class Form:
    """Of the rows of one operand: the dtype they are sent in, and what a worker may round them to."""

    dtype: torch.dtype
    arithmetic: Arithmetic = Arithmetic.FP32


@final
@dataclass(frozen=True, slots=True)
class Precision:
    """Of a session: the dtype that float32 operands and results cross the boundary in, and what a
    worker may round float32 operands to."""

    wire: torch.dtype = torch.float32
    arithmetic: Arithmetic = Arithmetic.FP32

    @property
    def full(self) -> bool:
        """Nothing is ever rounded below float32."""
        return self.wire == torch.float32 and self.arithmetic is Arithmetic.FP32

    def rows(self, lowering: Lowering, norms_GR: Tensor, sent: Selection, dtype: torch.dtype) -> Form:
        """For X or dY of which the rows `sent` go out. norms_GR: of all rows. dtype: of the operand."""
        best = self.best(dtype, delicate=lowering.delicate)
        full = Form(dtype)
        return best if best == full or even(norms_GR, sent) else full

    def best(self, dtype: torch.dtype, *, delicate: bool) -> Form:
        """For the most even of rows. delicate: the layer's maps amplify errors."""
        if dtype != torch.float32:
            return Form(dtype)
        if not delicate:
            # What is sent as bfloat16 is multiplied as sent.
            return Form(self.wire) if self.wire != dtype else Form(dtype, self.arithmetic)
        coarse = self.arithmetic is not Arithmetic.FP32 and self.wire == dtype
        return Form(dtype, Arithmetic.TF32 if coarse else Arithmetic.FP32)


#: Nothing is rounded.
FULL: Final = Precision()


def even(norms_GR: Tensor, sent: Selection) -> bool:
    """The rows that are sent differ by EVEN times at most, group by group."""
    for norms_R, index, count in zip(norms_GR, sent.index, sent.counts, strict=True):
        if count:
            norms = norms_R if index is None else norms_R[index]
            if not bool(norms.amax() <= EVEN * norms.amin()):
                return False
    return True
