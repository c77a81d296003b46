"""Layers as one batched product, and the way back."""

from tempo.lowering.base import Lowering, ProductShape
from tempo.lowering.bmm import Bmm
from tempo.lowering.choose import lower_conv, lower_conv_transposed, lower_linear, lower_matmul
from tempo.lowering.conv1x1 import Conv1x1
from tempo.lowering.im2col import Im2col
from tempo.lowering.linear import Linear, TransposedLinear
from tempo.lowering.shapes import ConvShape
from tempo.lowering.transposed import ConvTransposed
from tempo.lowering.winograd import Winograd

__all__ = [
    "Bmm",
    "Conv1x1",
    "ConvShape",
    "ConvTransposed",
    "Im2col",
    "Linear",
    "Lowering",
    "ProductShape",
    "TransposedLinear",
    "Winograd",
    "lower_conv",
    "lower_conv_transposed",
    "lower_linear",
    "lower_matmul",
]
