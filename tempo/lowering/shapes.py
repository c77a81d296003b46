"""The shapes of a convolution, read once and checked; what every convolution's lowering is built from.

Axes: B batch, C in-channels, N out-channels, H W input pixels, I J output pixels.
A one-dimensional convolution is a two-dimensional one of height 1; an unbatched input is a batch of 1.

    I = floor((H + top + bottom - dilation (kernel - 1) - 1) / stride) + 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import final

from torch import Tensor

from tempo.errors import UnsupportedError, UsageError

Shape = tuple[int, ...]
#: One number for all axes, one per axis, or PyTorch's words for a padding.
Sizes = int | Sequence[int]
Pair = tuple[int, int]


def expect(tensor: Tensor, shape: Shape, what: str) -> Tensor:
    """The tensor itself, if it has the shape that the lowering was built for."""
    if tuple(tensor.shape) != shape:
        raise UsageError(
            f"{what} has shape {tuple(tensor.shape)}, but this lowering was built for {shape}: "
            "build one for each shape"
        )
    return tensor


@final
@dataclass(frozen=True, slots=True)
class ConvShape:
    """A convolution as two-dimensional sizes, beside the shapes of the tensors as the user has them."""

    x_shape: Shape
    w_shape: Shape
    batch: int
    c: int
    n: int
    size: Pair
    kernel: Pair
    stride: Pair
    #: (top, left) and (bottom, right): they differ for "same" with an even kernel.
    before: Pair
    after: Pair
    dilation: Pair
    groups: int

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        w_shape: Sequence[int],
        *,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> ConvShape:
        x, w = tuple(x_shape), tuple(w_shape)
        dims = len(w) - 2
        if dims == 3:
            raise UnsupportedError(f"A 3d convolution (weight {w})", "leave the layer in the TEE")
        if dims not in (1, 2) or len(x) not in (dims + 1, dims + 2):
            raise UsageError(f"no convolution takes an input of shape {x} and a weight of shape {w}")
        batch, c = (1, x[0]) if len(x) == dims + 1 else (x[0], x[1])
        if groups < 1 or c != w[1] * groups or w[0] % groups:
            raise UsageError(
                f"input {x} has {c} channels and weight {w} takes {w[1]} in each of {groups} groups "
                f"and gives {w[0]}: in-channels must be {w[1]} x groups, out-channels divisible by groups"
            )
        strides = per_axis(stride, dims, 1, "stride", 1)
        dilations = per_axis(dilation, dims, 1, "dilation", 1)
        kernel, size = _flat(w[2:], 1), _flat(x[-dims:], 1)
        if isinstance(padding, str):
            before, after = _named_padding(padding, kernel, strides, dilations)
        else:
            before = after = per_axis(padding, dims, 0, "padding", 0)
        self = cls(x, w, batch, c, w[0], size, kernel, strides, before, after, dilations, groups)
        if min(batch, c - 1, w[0] - 1, *(k - 1 for k in kernel), *(s - 1 for s in self.out)) < 0:
            raise UsageError(
                f"input {x} with weight {w}, padding {padding}, dilation {dilation} has no output pixel: "
                "the kernel must fit into the padded input"
            )
        return self

    @property
    def out(self) -> Pair:
        """(I, J)."""
        spans = (
            (size + lo + hi - d * (k - 1) - 1) // s + 1
            for size, lo, hi, d, k, s in zip(
                self.size, self.before, self.after, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        i, j = spans
        return i, j

    @property
    def rows(self) -> int:
        """Output pixels of the whole batch."""
        return self.batch * prod(self.out)

    @property
    def y_shape(self) -> Shape:
        dims = len(self.w_shape) - 2
        return (*self.x_shape[: -dims - 1], self.n, *self.out[-dims:])

    @property
    def flops(self) -> int:
        return 2 * self.rows * prod(self.w_shape)

    def image(self, x: Tensor) -> Tensor:
        """x of the layer as (B, C, H, W)."""
        return expect(x, self.x_shape, "the input").reshape(self.batch, self.c, *self.size)

    def out_image(self, dy: Tensor) -> Tensor:
        """dy of the layer as (B, N, I, J)."""
        return expect(dy, self.y_shape, "the output's gradient").reshape(self.batch, self.n, *self.out)

    def weight(self, w: Tensor) -> Tensor:
        """w of the layer as (N, C / groups, kernel height, kernel width)."""
        return expect(w, self.w_shape, "the weight").reshape(self.n, self.w_shape[1], *self.kernel)


def _flat(sizes: Shape, of_height_1: int) -> Pair:
    return (of_height_1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def per_axis(value: Sizes, dims: int, of_height_1: int, what: str, least: int) -> Pair:
    """One number for both axes, or one each; with one axis, `of_height_1` for the other. Raises
    UsageError."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    # PyTorch takes a tuple of one for any number of axes.
    values = values * dims if len(values) == 1 else values
    if len(values) != dims or min(values) < least:
        raise UsageError(f"{what}={value!r}: expected one number, or {dims}, of at least {least}")
    return _flat(values, of_height_1)


def _named_padding(padding: str, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        raise UsageError(f"padding={padding!r}: expected numbers, 'same' or 'valid'")
    if stride != (1, 1):
        raise UsageError("padding='same' needs stride 1: give the padding in numbers")
    # Where the total is odd, PyTorch pads the far side by one more.
    total = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1))
    before = (total[0] // 2, total[1] // 2)
    return before, (total[0] - before[0], total[1] - before[1])
