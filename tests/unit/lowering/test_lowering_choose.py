"""Which lowering a layer gets, what it says of itself, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tempo.errors import UnsupportedError, UsageError
from tempo.lowering import Bmm, ConvShape, ProductShape, lower_conv, lower_linear, lower_matmul


@pytest.mark.parametrize(
    ("x", "w", "options", "name", "shape"),
    [
        ((2, 8, 14, 14), (16, 8, 1, 1), {}, "conv 1x1", (1, 392, 8, 16)),
        ((2, 8, 14, 14), (16, 8, 1, 1), {"stride": 2}, "conv 1x1", (1, 98, 8, 16)),
        ((8, 14, 14), (16, 8, 1, 1), {"stride": (2, 1)}, "conv 1x1", (1, 98, 8, 16)),
        ((2, 8, 14, 14), (16, 8, 1, 1), {"padding": 1}, "im2col", (1, 512, 8, 16)),
        # Output 14: 36 x 16 tiles against 16 x 49. Output 2: 36 against 16. Output 6: 144 either way.
        ((2, 8, 14, 14), (16, 8, 3, 3), {"padding": 1}, "winograd F(4,3)", (36, 32, 8, 16)),
        ((2, 8, 4, 4), (16, 8, 3, 3), {}, "winograd F(2,3)", (16, 2, 8, 16)),
        ((2, 8, 8, 8), (16, 8, 3, 3), {"padding": "valid"}, "winograd F(2,3)", (16, 18, 8, 16)),
        ((2, 8, 14, 14), (16, 8, 3, 3), {"stride": 2, "padding": 1}, "im2col", (1, 98, 72, 16)),
        ((2, 8, 14, 14), (16, 8, 3, 3), {"padding": 2, "dilation": 2}, "im2col", (1, 392, 72, 16)),
        ((2, 8, 14, 14), (16, 2, 3, 3), {"padding": 1, "groups": 4}, "im2col", (4, 392, 18, 4)),
        ((2, 8, 14, 14), (16, 8, 5, 3), {}, "im2col", (1, 240, 120, 16)),
        ((2, 8, 20), (16, 8, 1), {}, "conv 1x1", (1, 40, 8, 16)),
        ((2, 8, 20), (16, 8, 3), {"padding": "same"}, "im2col", (1, 40, 24, 16)),
        ((0, 8, 14, 14), (16, 8, 3, 3), {"padding": 1}, "winograd F(4,3)", (36, 0, 8, 16)),
    ],
)
def test_choice(x, w, options, name, shape) -> None:
    lowering = lower_conv(x, w, **options)
    assert lowering.name == name
    assert lowering.shape == ProductShape(*shape)
    plain = F.conv1d if len(w) == 3 else F.conv2d
    assert (
        lowering.raise_y(torch.empty(shape[0], shape[1], shape[3])).shape
        == plain(torch.empty(x), torch.empty(w), None, **options).shape
    )


def test_choice_of_products() -> None:
    assert lower_linear((2, 5, 8), (16, 8)).shape == ProductShape(1, 10, 8, 16)
    assert lower_linear((2, 5, 8), (8, 16), transposed=True).shape == ProductShape(1, 10, 8, 16)
    assert lower_matmul((2, 5, 8), (8, 16)).shape == ProductShape(1, 10, 8, 16)
    assert lower_matmul((2, 3, 5, 8), (2, 1, 8, 7)).shape == ProductShape(6, 5, 8, 7)


CONVOLUTIONS = [
    ((2, 8, 14, 14), (16, 8, 1, 1), {"stride": 2}),
    ((2, 8, 14, 14), (16, 8, 3, 3), {"padding": 1}),
    ((8, 14, 14), (16, 8, 3, 3), {}),
    ((2, 3, 14, 11), (16, 3, 5, 5), {"stride": 2, "dilation": (1, 2)}),
    ((2, 8, 14, 14), (16, 2, 3, 3), {"groups": 4, "padding": 1}),
    ((2, 8, 20), (16, 8, 3), {"padding": "same"}),
    ((2, 8, 20), (16, 4, 4), {"stride": 2, "groups": 2}),
]


def counted(layer, x: torch.Tensor, w: torch.Tensor) -> tuple[int, int, int]:
    """Flops of the forward pass, of dx and of dw, as PyTorch counts them."""
    totals = []
    for wants_dx, wants_dw in ((False, False), (True, False), (False, True)):
        a, b = x.detach().requires_grad_(wants_dx), w.detach().requires_grad_(wants_dw)
        y = layer(a, b)
        with FlopCounterMode(display=False) as counter:
            if y.requires_grad:
                y.backward(torch.ones_like(y))
            else:
                layer(a, b)
        totals.append(counter.get_total_flops())
    return totals[0], totals[1], totals[2]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
def test_flops_of_convolutions(x_shape, w_shape, options) -> None:
    plain = F.conv1d if len(w_shape) == 3 else F.conv2d
    forward, dx, dw = counted(
        lambda x, w: plain(x, w, None, **options), torch.randn(x_shape), torch.randn(w_shape)
    )
    assert lower_conv(x_shape, w_shape, **options).flops == forward == dx
    # PyTorch 2.13 counts dw of a grouped convolution as if it were not grouped.
    assert forward == dw // options.get("groups", 1)


@pytest.mark.parametrize(
    ("lowering", "layer", "x_shape", "w_shape"),
    [
        (lower_linear((2, 5, 8), (16, 8)), F.linear, (2, 5, 8), (16, 8)),
        (lower_linear((5, 8), (8, 16), transposed=True), torch.mm, (5, 8), (8, 16)),
        (lower_matmul((2, 1, 5, 8), (3, 8, 7)), torch.matmul, (2, 1, 5, 8), (3, 8, 7)),
        (lower_matmul((2, 5, 8), (8, 7)), torch.matmul, (2, 5, 8), (8, 7)),
    ],
    ids=["linear", "transposed", "bmm", "one matrix"],
)
def test_flops_of_products(lowering, layer, x_shape, w_shape) -> None:
    assert counted(layer, torch.randn(x_shape), torch.randn(w_shape)) == (lowering.flops,) * 3


@pytest.mark.parametrize(
    ("x", "w", "options", "says"),
    [
        ((2, 8, 9, 9), (16, 4, 3, 3), {}, "has 8 channels and weight"),
        ((2, 8, 9, 9), (15, 4, 3, 3), {"groups": 2}, "divisible by groups"),
        ((2, 8, 9), (16, 8, 3, 3), {}, "has 2 channels and weight"),
        ((9, 9), (16, 8, 3, 3), {}, "no convolution takes"),
        ((2, 8, 2, 9), (16, 8, 3, 3), {}, "must fit into the padded input"),
        ((2, 8, 9, 9), (16, 8, 3, 3), {"padding": -1}, "padding=-1"),
        ((2, 8, 9, 9), (16, 8, 3, 3), {"stride": 0}, "stride=0"),
        ((2, 8, 9, 9), (16, 8, 3, 3), {"dilation": (1, 2, 3)}, "expected one number, or 2"),
        ((2, 8, 9, 9), (16, 8, 3, 3), {"padding": "reflect"}, "'same' or 'valid'"),
        ((2, 8, 9, 9), (16, 8, 3, 3), {"padding": "same", "stride": 2}, "needs stride 1"),
    ],
)
def test_bad_convolutions(x, w, options, says) -> None:
    with pytest.raises(UsageError, match=says):
        lower_conv(x, w, **options)


def test_bad_products() -> None:
    with pytest.raises(UsageError, match="has 8 features"):
        lower_linear((2, 8), (8, 16))
    with pytest.raises(UsageError, match="a matrix"):
        lower_linear((2, 8), (8,))
    with pytest.raises(UsageError, match="takes matrices"):
        lower_matmul((8,), (2, 8, 3))
    with pytest.raises(UsageError, match="8 columns, 7 rows"):
        lower_matmul((2, 5, 8), (2, 7, 3))
    with pytest.raises(UsageError, match="do not broadcast"):
        lower_matmul((2, 5, 8), (3, 8, 3))


def test_3d_is_unsupported_and_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="Instead: leave the layer in the TEE"):
        lower_conv((2, 3, 4, 4, 4), (8, 3, 3, 3, 3))


def test_another_shape_than_it_was_built_for_is_refused() -> None:
    """Same number of elements, other axes: a reshape alone would let it pass."""
    for lowering, x in (
        (lower_linear((4, 6), (3, 6)), torch.randn(6, 4)),
        (lower_conv((2, 3, 8, 8), (4, 3, 3, 3)), torch.randn(3, 2, 8, 8)),
        (lower_conv((2, 3, 8, 8), (4, 3, 1, 1)), torch.randn(2, 3, 4, 16)),
        (Bmm((2, 3, 4), (2, 4, 5)), torch.randn(3, 2, 4)),
    ):
        with pytest.raises(UsageError, match="built for"):
            lowering.lower_x(x)


def test_a_lowering_is_a_value() -> None:
    ours, same = lower_conv((2, 3, 8, 8), (4, 3, 3, 3)), lower_conv((2, 3, 8, 8), (4, 3, 3, 3))
    assert ours == same
    assert hash(ours) == hash(same)
    assert ConvShape.of((2, 3, 8, 8), (4, 3, 3, 3)) != ConvShape.of((2, 3, 8, 8), (4, 3, 3, 3), padding=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.conv = None
