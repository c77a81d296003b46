"""Every lowering against the layer it stands for: outputs, both gradients, each adjoint and its map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tempo.lowering import (
    ConvShape,
    Im2col,
    Lowering,
    Winograd,
    lower_conv,
    lower_conv_transposed,
    lower_linear,
    lower_matmul,
)
from tempo.lowering.winograd import F2, F4

few = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

Layer = Callable[[Tensor, Tensor], Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def near(ours: Tensor, plain: Tensor, what: str) -> None:
    assert ours.shape == plain.shape, what
    if plain.numel():
        error, scale = (ours - plain).abs().max().item(), plain.abs().max().item()
        assert error <= 1e-10 * scale, f"{what}: {error} against {scale}"


def agrees(lowering: Lowering, layer: Layer, x: Tensor, w: Tensor) -> None:
    """Both gradients through the lowering's own maps and the products of DESIGN.md, from float64 autograd."""
    size = lowering.shape
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = layer(x, w)
    dy = randn(*y.shape, seed=2)
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    with torch.no_grad():
        x_GRK, w_GNK, dy_GRN = lowering.lower_x(x), lowering.lower_w(w), lowering.lower_dy(dy)
        assert x_GRK.shape == (size.groups, size.rows, size.k)
        assert w_GNK.shape == (size.groups, size.n, size.k)
        assert dy_GRN.shape == (size.groups, size.rows, size.n)
        ours = lowering.raise_y(torch.bmm(x_GRK, w_GNK.mT))
        near(ours, y, "y")
        assert ours.is_contiguous()
        near(lowering.raise_dx(torch.bmm(dy_GRN, w_GNK)), dx, "dx")
        near(lowering.raise_dw(torch.bmm(dy_GRN.mT, x_GRK)), dw, "dw")
        adjoint(lowering.lower_x, lowering.raise_dx, x, randn(*x_GRK.shape, seed=3))
        adjoint(lowering.lower_w, lowering.raise_dw, w, randn(*w_GNK.shape, seed=4))
        adjoint(lowering.lower_dy, lowering.raise_y, dy, randn(*dy_GRN.shape, seed=5))


def adjoint(
    forward: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], u: Tensor, v: Tensor
) -> None:
    """<A u, v> = <u, A^T v>."""
    there, again = forward(u), back(v)
    assert there.shape == v.shape
    assert again.shape == u.shape
    scale = there.norm() * v.norm() + again.norm() * u.norm()
    assert abs((there * v).sum() - (u * again).sum()) <= 1e-12 * scale


def laid_out(t: Tensor, layout: str) -> Tensor:
    """The same numbers, as memory that user code may hand over."""
    match layout:
        case "channels last" if t.dim() == 4:
            return t.contiguous(memory_format=torch.channels_last)
        case "transposed":
            return t.transpose(0, -1).contiguous().transpose(0, -1)
        case "strided":
            return torch.stack([t, t], dim=-1)[..., 0]
        case _:
            return t


layouts = st.sampled_from(["contiguous", "channels last", "transposed", "strided"])
sizes = st.integers(1, 5)


@few
@given(
    lead=st.lists(st.integers(0, 4), max_size=3), k=sizes, n=sizes, layout=layouts, transposed=st.booleans()
)
def test_linear(lead: list[int], k: int, n: int, layout: str, transposed: bool) -> None:
    x, w = laid_out(randn(*lead, k), layout), randn(*((k, n) if transposed else (n, k)), seed=1)
    lowering = lower_linear(x.shape, w.shape, transposed=transposed)
    agrees(lowering, (lambda x, w: x @ w) if transposed else F.linear, x, w)


@few
@given(
    batch=st.lists(st.integers(0, 3), max_size=3),
    x_ones=st.lists(st.booleans(), min_size=3, max_size=3),
    w_ones=st.lists(st.booleans(), min_size=3, max_size=3),
    cut=st.integers(-3, 3),
    size=st.tuples(sizes, sizes, sizes),
    layout=layouts,
)
def test_matmul(
    batch: list[int],
    x_ones: list[bool],
    w_ones: list[bool],
    cut: int,
    size: tuple[int, int, int],
    layout: str,
) -> None:
    r, k, n = size
    x_batch = [1 if one else b for b, one in zip(batch, x_ones, strict=False)][max(0, -cut) :]
    w_batch = [1 if one else b for b, one in zip(batch, w_ones, strict=False)][max(0, cut) :]
    x, w = laid_out(randn(*x_batch, r, k), layout), laid_out(randn(*w_batch, k, n, seed=1), layout)
    agrees(lower_matmul(x.shape, w.shape), torch.matmul, x, w)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict[str, object]]:
    dims = draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(dims)]
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    padding: object = tuple(draw(st.integers(0, 3)) for _ in range(dims))
    match draw(st.integers(0, 7)):
        case 0:
            padding, stride = "same", (1,) * dims
        case 1:
            padding = "valid"
        case 2:
            padding, stride = draw(st.integers(0, 3)), (1,) * dims
    size = [d * (k - 1) + 1 + draw(st.integers(0, 5)) for d, k in zip(dilation, kernel, strict=True)]
    lead = draw(st.sampled_from([[], [0], [1], [2]]))
    x = laid_out(randn(*lead, c * groups, *size), draw(layouts))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, laid_out(randn(n * groups, c, *kernel, seed=1), draw(layouts)), options


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@few
@given(case=convolutions())
def test_convolution(case: tuple[Tensor, Tensor, dict[str, object]]) -> None:
    x, w, options = case
    plain = F.conv1d if w.dim() == 3 else F.conv2d

    def layer(x: Tensor, w: Tensor) -> Tensor:
        return plain(x, w, None, **options)

    agrees(lower_conv(x.shape, w.shape, **options), layer, x, w)
    agrees(Im2col(ConvShape.of(x.shape, w.shape, **options)), layer, x, w)


@few
@given(
    transforms=st.sampled_from([F2, F4]),
    lead=st.sampled_from([[], [0], [1], [3]]),
    channels=st.tuples(sizes, sizes),
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    padding=st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.just("same")),
    layout=layouts,
)
def test_winograd(transforms, lead, channels, size, padding, layout) -> None:
    x, w = laid_out(randn(*lead, channels[0], *size), layout), randn(channels[1], channels[0], 3, 3, seed=1)
    lowering = Winograd(ConvShape.of(x.shape, w.shape, padding=padding), transforms)
    agrees(lowering, lambda x, w: F.conv2d(x, w, padding=padding), x, w)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((2, 3, 32, 32), (8, 3, 7, 7), {"stride": 2, "padding": 3}),
        ((2, 16, 14, 14), (32, 16, 1, 1), {"stride": 2}),
        ((2, 16, 14, 14), (32, 16, 3, 3), {"stride": 2, "padding": 1}),
        ((2, 16, 7, 7), (8, 16, 3, 3), {"padding": 1}),
        ((2, 16, 15, 9), (16, 4, 3, 3), {"padding": 1, "groups": 4}),
        ((2, 8, 10, 10), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
        ((2, 3, 32, 32), (24, 3, 16, 16), {"stride": 16}),
        ((2, 12, 50), (16, 12, 3), {"stride": 2, "padding": 1}),
        ((2, 4, 9, 9), (6, 4, 1, 1), {"padding": 2}),
    ],
    ids=["stem", "shortcut", "down", "resnet", "resnext", "depthwise", "patches", "audio", "padded 1x1"],
)
def test_layers_of_known_networks(x_shape, w_shape, options) -> None:
    plain = F.conv1d if len(w_shape) == 3 else F.conv2d
    lowering = lower_conv(x_shape, w_shape, **options)
    agrees(lowering, lambda x, w: plain(x, w, None, **options), randn(*x_shape), randn(*w_shape, seed=1))


@few
@given(
    dims=st.sampled_from([1, 2]),
    batch=st.integers(0, 3),
    groups=st.integers(1, 3),
    channels=st.tuples(sizes, sizes),
    data=st.data(),
    layout=layouts,
)
def test_transposed_convolutions(dims, batch, groups, channels, data, layout) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return data.draw(st.tuples(*[st.integers(low, high)] * dims))

    kernel, stride, dilation, size = each(1, 4), each(1, 3), each(1, 2), each(1, 6)
    padding = tuple(data.draw(st.integers(0, min(2, d * (k - 1)))) for d, k in zip(dilation, kernel))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    c, n = channels
    x = laid_out(randn(*([batch] if batch else []), groups * c, *size), layout)
    w = laid_out(randn(groups * c, n, *kernel, seed=1), layout)
    plain = F.conv_transpose1d if dims == 1 else F.conv_transpose2d
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def layer(x: Tensor, w: Tensor) -> Tensor:
        return plain(x, w, None, output_padding=extra, **options)

    try:
        y_shape = layer(x.detach(), w.detach()).shape
    except RuntimeError:  # PyTorch refuses: an output without pixels
        return
    lowering = lower_conv_transposed(x.shape, w.shape, y_shape, **options)
    assert lowering.name == "conv transposed"
    agrees(lowering, layer, x, w)
