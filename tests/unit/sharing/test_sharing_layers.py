"""Every kind of layer on shares against plain PyTorch in float64, entry by entry within the derived bound."""

import pytest
import torch
import torch.nn.functional as F

from tempo.fleet import DeviceWorker
from tempo.lowering import Bmm, Conv1x1, ConvShape, Im2col, Linear, TransposedLinear, Winograd
from tempo.lowering.winograd import F2
from tempo.nn.autograd import Call, offloaded
from tempo.numerics import _RAISE, fixed_error
from tempo.secrecy.fixed import fixed_rows, fixed_weight, power_of_two


def conv(x, w, **options):
    return ConvShape.of(x, w, **options)


CASES = {
    "linear": (Linear((5, 20, 70), (90, 70)), F.linear),
    "linear, weight transposed": (TransposedLinear((96, 70), (70, 80)), torch.matmul),
    "1x1": (Conv1x1(conv((2, 66, 8, 8), (72, 66, 1, 1))), F.conv2d),
    "1x1, strided": (
        Conv1x1(conv((3, 66, 9, 9), (72, 66, 1, 1), stride=2)),
        lambda x, w: F.conv2d(x, w, stride=2),
    ),
    "3x3 by im2col": (
        Im2col(conv((2, 16, 9, 9), (70, 16, 3, 3), padding=1)),
        lambda x, w: F.conv2d(x, w, padding=1),
    ),
    "grouped": (
        Im2col(conv((2, 32, 8, 8), (128, 16, 3, 3), groups=2, stride=2, padding=1)),
        lambda x, w: F.conv2d(x, w, groups=2, stride=2, padding=1),
    ),
    "one-dimensional": (
        Im2col(conv((2, 16, 50), (70, 16, 5), dilation=2)),
        lambda x, w: F.conv1d(x, w, dilation=2),
    ),
    "bmm": (Bmm((3, 64, 50), (3, 50, 70)), torch.matmul),
    "bmm, broadcast": (Bmm((2, 3, 64, 50), (3, 50, 70)), torch.matmul),
}


def bounds(lowering, x, w, dy):
    """Largest error of each entry of y, dx, dw: bounds of the lowered results, raised. Raising adds up with
    coefficients of one."""
    y, dx, dw = points(lowering, x, w, dy)
    return lowering.raise_y(y), lowering.raise_dx(dx), lowering.raise_dw(dw)


def points(lowering, x, w, dy):
    """Largest error of each entry of Y, dX, dW."""
    x_GRK, w_GNK, dy_GRN = lowering.lower_x(x), lowering.lower_w(w), lowering.lower_dy(dy)
    groups, r, k = x_GRK.shape
    n, rows = w_GNK.shape[1], (r,) * groups
    wi = fixed_weight(w_GNK)
    xi = fixed_rows(x_GRK.reshape(-1, k), rows, wi.rows, summed=True)
    di = fixed_rows(dy_GRN.reshape(-1, n), rows, wi.columns, others=xi.columns, summed=True)
    ex, ed = xi.exponents[::r], di.exponents[::r]

    def whole(error_G, exponents_G, shape):
        return (error_G * power_of_two(-exponents_G)).view(-1, 1, 1).expand(groups, *shape).contiguous()

    y = whole(fixed_error(k, xi.rows, wi.rows), ex + wi.exponents, (r, n))
    dx = whole(fixed_error(n, di.rows, wi.columns), ed + wi.exponents, (r, k))
    dw = whole(fixed_error(r, di.columns, xi.columns), ed + ex, (n, k))
    return y, dx, dw


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_layers_equal_plain_pytorch_within_the_bound(name, dtype, bench, devices):
    lowering, reference = CASES[name]
    torch.manual_seed(0)
    shapes = (
        (lowering.x_shape, lowering.w_shape)
        if hasattr(lowering, "x_shape")
        else (lowering.conv.x_shape, lowering.conv.w_shape)
    )
    x, w = (torch.randn(shape, dtype=dtype) for shape in shapes)
    made = bench(*devices(3))
    ours = x.clone().requires_grad_(), torch.nn.Parameter(w.clone())
    y, reason = offloaded(Call(made.engine, lowering, lambda want_x, want_w: None), *ours)
    assert reason is None
    dy = torch.randn_like(y)
    y.backward(dy)
    exact = x.double().clone().requires_grad_(), w.double().clone().requires_grad_()
    y_exact = reference(*exact)
    y_exact.backward(dy.double())
    unit = 2.0**-23 if dtype == torch.float32 else 2.0**-50
    for got, true, bound in zip(
        (y, ours[0].grad, ours[1].grad),
        (y_exact, exact[0].grad, exact[1].grad),
        bounds(lowering, x, w, dy),
        strict=True,
    ):
        got, true = got.detach(), true.detach()
        # Sums of windows are taken in the layer's dtype, with a few roundings each.
        allowed = bound + 16 * unit * true.abs().amax()
        assert got.shape == true.shape
        assert got.dtype == dtype
        assert bool(((got - true).abs() <= allowed).all())
        # The bound is no blank cheque: it is far below the entries themselves.
        assert float(bound.max()) < 2e-3 * float(true.abs().max())
    counts = [made.stats.count(f"encoded_{operand}") for operand in ("x", "w", "dy")]
    assert counts == [1, 1, 1]
    assert made.stats.count("products") == 3
    assert made.stats.count("checks") == 3
    assert made.told == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_winograd_equals_plain_pytorch_within_the_bound(size, dtype, bench, devices):
    """F(2,3), whose maps have coefficients of both signs: bounds are those of the points, in the 2-norm,
    times the norm of the maps. With odd sizes some points of border tiles count for nothing."""
    torch.manual_seed(0)
    x, w = torch.randn(4, 32, *size, dtype=dtype), torch.randn(70, 32, 3, 3, dtype=dtype)
    lowering = Winograd(conv(tuple(x.shape), tuple(w.shape), padding=1), F2)
    made = bench(*devices(3))
    ours = x.clone().requires_grad_(), torch.nn.Parameter(w.clone())
    y, reason = offloaded(Call(made.engine, lowering, lambda *_: None), *ours)
    assert reason is None
    dy = torch.randn_like(y)
    y.backward(dy)
    exact = x.double().clone().requires_grad_(), w.double().clone().requires_grad_()
    y_exact = F.conv2d(*exact, padding=1)
    y_exact.backward(dy.double())
    for got, true, bound, raised in zip(
        (y, ours[0].grad, ours[1].grad),
        (y_exact, exact[0].grad, exact[1].grad),
        points(lowering, x, w, dy),
        _RAISE[lowering.name],
        strict=True,
    ):
        error = float((got.detach() - true.detach()).norm())
        rounded = 64 * torch.finfo(dtype).eps * float(true.detach().norm())
        assert error <= raised * float(bound.norm()) + rounded
        assert error < 1e-4 * float(true.detach().norm())


def test_in_pieces_the_result_is_the_same(bench, devices, monkeypatch):
    """Rows cut among two workers of each owner, and in chunks."""
    monkeypatch.setattr("tempo.chunks._LEAST_ROWS", 64)
    monkeypatch.setattr("tempo.chunks._LEAST", 1)
    monkeypatch.setattr("tempo.chunks._GRAIN", 16)
    torch.manual_seed(1)
    x, w = torch.randn(900, 70, dtype=torch.float64), torch.randn(90, 70, dtype=torch.float64)
    made = bench(*[own + more for own, more in zip(devices(3), named(3), strict=True)])
    ours = x.clone().requires_grad_(), torch.nn.Parameter(w.clone())
    y, _ = offloaded(Call(made.engine, Linear((900, 70), (90, 70)), lambda *_: None), *ours)
    dy = torch.randn_like(y)
    y.backward(dy)
    for got, true in ((y.detach(), x @ w.T), (ours[0].grad, dy @ w), (ours[1].grad, dy.T @ x)):
        assert float((got - true).norm() / true.norm()) < 1e-4
    assert made.stats.count("checks") > 6


def named(owners):
    return [[DeviceWorker("cpu", name=f"more-{i}")] for i in range(owners)]


@pytest.mark.parametrize("want", ["x", "w"])
def test_one_gradient_alone(want, bench, devices):
    x, w = torch.randn(80, 70, requires_grad=want == "x"), torch.nn.Parameter(torch.randn(90, 70))
    w.requires_grad_(want == "w")
    made = bench(*devices(3))
    y, _ = offloaded(Call(made.engine, Linear((80, 70), (90, 70)), lambda *_: None), x, w)
    y.sum().backward()
    got = x.grad if want == "x" else w.grad
    true = torch.ones(80, 90) @ w if want == "x" else torch.ones(90, 80) @ x
    assert float((got - true).detach().norm() / true.detach().norm()) < 1e-4


def test_a_second_backward_shares_anew(bench, devices):
    x, w = torch.randn(80, 70, requires_grad=True), torch.nn.Parameter(torch.randn(90, 70))
    made = bench(*devices(3))
    y, _ = offloaded(Call(made.engine, Linear((80, 70), (90, 70)), lambda *_: None), x, w)
    y.sum().backward(retain_graph=True)
    first, w.grad = w.grad.clone(), None
    y.sum().backward()
    assert float((w.grad - first).norm() / first.norm()) < 1e-4
    assert made.stats.count("encoded_x") == 2


def test_without_key_shift_x_is_shared_again(bench, devices):
    x, w = torch.randn(80, 70, requires_grad=True), torch.nn.Parameter(torch.randn(90, 70))
    made = bench(*devices(3), shift=False)
    y, _ = offloaded(Call(made.engine, Linear((80, 70), (90, 70)), lambda *_: None), x, w)
    y.sum().backward()
    true = torch.ones(90, 80) @ x.detach()
    assert float((w.grad - true).norm() / true.norm()) < 1e-4
    assert made.stats.count("encoded_x") == 2


def test_lone_rows_do_not_take_the_precision_of_the_rest(bench, devices):
    torch.manual_seed(2)
    x, w, dy = (torch.randn(s, dtype=torch.float64) for s in ((300, 70), (90, 70), (300, 90)))
    x[7] *= 1e5
    dy[[9, 250]] *= 1e5
    made = bench(*devices(3))
    ours = x.clone().requires_grad_(), torch.nn.Parameter(w.clone())
    y, _ = offloaded(Call(made.engine, Linear((300, 70), (90, 70)), lambda *_: None), *ours)
    y.backward(dy)
    for got, true in ((y.detach(), x @ w.T), (ours[0].grad, dy @ w)):
        by_row = (got - true).norm(dim=1) / true.norm(dim=1)
        assert float(by_row.max()) < 1e-4
        assert float(by_row[[7, 9, 250]].min()) < 1e-12  # those that the master computed
    true = dy.T @ x
    assert float((ours[1].grad - true).norm() / true.norm()) < 1e-4


def test_values_that_no_scale_fits_stay_at_home(bench, devices):
    made = bench(*devices(3))
    for bad in (float("nan"), float("inf"), 1e30):
        x = torch.randn(80, 70)
        x[3, 4] = bad
        call = Call(made.engine, Linear((80, 70), (90, 70)), lambda *_: None)
        _, reason = offloaded(call, x, torch.nn.Parameter(torch.randn(90, 70)))
        assert reason == "values not finite or too large to send"
    assert made.stats.count("checks") == 0
