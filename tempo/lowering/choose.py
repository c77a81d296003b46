"""Which lowering a layer takes, from its shapes alone.

    layer                         lowering
    1x1, no padding               Conv1x1
    3x3, stride 1, dilation 1     Winograd: F(4,3) where its tiles hold fewer elements, else F(2,3)
    any other convolution         Im2col
    transposed convolution        ConvTransposed

Whether a layer is worth offloading is decided elsewhere (a depthwise convolution can be lowered, and stays
in the TEE all the same).
"""

from __future__ import annotations

from collections.abc import Sequence

from tempo.lowering.base import Lowering
from tempo.lowering.bmm import Bmm
from tempo.lowering.conv1x1 import Conv1x1
from tempo.lowering.im2col import Im2col
from tempo.lowering.linear import Linear, TransposedLinear
from tempo.lowering.shapes import ConvShape, Sizes, per_axis
from tempo.lowering.transposed import ConvTransposed
from tempo.lowering.winograd import F2, F4, Winograd


def lower_linear(x_shape: Sequence[int], w_shape: Sequence[int], *, transposed: bool = False) -> Lowering:
    """x (..., K) with w (N, K), or with w (K, N) if the layer stores its weight transposed."""
    return (TransposedLinear if transposed else Linear)(tuple(x_shape), tuple(w_shape))


def lower_matmul(x_shape: Sequence[int], w_shape: Sequence[int]) -> Lowering:
    """x (..., R, K) @ w (..., K, N). One matrix for the whole batch is a linear layer: a single group."""
    if len(w_shape) == 2:
        return TransposedLinear(tuple(x_shape), tuple(w_shape))
    return Bmm(tuple(x_shape), tuple(w_shape))


def lower_conv(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    smallest: int = 0,
    delicate: bool = True,
) -> Lowering:
    """A one- or two-dimensional convolution, its options as F.conv1d and F.conv2d take them.

    smallest: rows of a product that is worth having. Tiles are fewer than pixels, so where one lowering
    leaves too few the next is taken. delicate: lowerings whose maps amplify errors, F(4,3), may be taken.
    """
    conv = ConvShape.of(x_shape, w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if Conv1x1.lowers(conv):
        return Conv1x1(conv)
    if Winograd.lowers(conv):
        small, large = Winograd(conv, F2), Winograd(conv, F4)
        both = (large, small) if _elements(large) < _elements(small) else (small, large)
        for winograd in both if delicate else (small,):
            if winograd.shape.rows >= smallest or winograd.shape.rows == 0:
                return winograd
    return Im2col(conv)


def lower_conv_transposed(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    y_shape: Sequence[int],
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Lowering:
    """A one- or two-dimensional transposed convolution, its options as F.conv_transpose1d and 2d take them;
    y_shape as they return it."""
    dims = len(w_shape) - 2
    sizes = (
        per_axis(stride, dims, 1, "stride", 1),
        per_axis(padding, dims, 0, "padding", 0),
        per_axis(dilation, dims, 1, "dilation", 1),
    )
    return ConvTransposed(tuple(x_shape), tuple(w_shape), tuple(y_shape), *sizes, groups)


def _elements(winograd: Winograd) -> int:
    """Points of all tiles of one channel of one image."""
    return winograd.shape.groups * winograd.grid[0] * winograd.grid[1]
