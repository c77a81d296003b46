"""Fixed point: one encoding of X, W and dY for three exact products, whatever the operands hold."""

import pytest
import torch

from tempo.numerics import fixed_error
from tempo.ops import grad_w, grad_x, product
from tempo.secrecy.fixed import (
    HALF,
    LARGEST,
    fixed_rows,
    fixed_weight,
    power_of_two,
    require_exact,
    values_of,
)

G, R, K, N = 2, 96, 80, 112
ROWS = (R,) * G


def wild(shape, dtype, kind, generator):
    """Operands of very different shape: even, with outliers, sparse, constant, tiny, huge."""
    t = torch.randn(shape, generator=generator, dtype=torch.float64)
    match kind:
        case "outlier entry":
            t.view(-1)[7] = 1e4
        case "outlier row":
            t.view(-1, shape[-1])[3] *= 1e3
        case "outlier column":
            t[..., 5] *= 1e3
        case "sparse":
            t *= torch.rand(shape, generator=generator) < 0.02
        case "constant":
            t.fill_(0.37)
        case "tiny":
            t *= 1e-20
        case "huge":
            t *= 1e15
    return t.to(dtype)


KINDS = ("even", "outlier entry", "outlier row", "outlier column", "sparse", "constant", "tiny", "huge")


def encoded(kinds, dtype, *, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, w, dy = (
        wild(shape, dtype, kind, g)
        for shape, kind in zip(((G * R, K), (G, N, K), (G * R, N)), kinds, strict=True)
    )
    w_int = fixed_weight(w)
    x_int = fixed_rows(x, ROWS, w_int.rows, summed=True)
    dy_int = fixed_rows(dy, ROWS, w_int.columns, others=x_int.columns, summed=True)
    return (x, w, dy), (x_int, w_int, dy_int)


def each(g):
    return g.repeat_interleave(R)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_all_three_products_stay_in_range_and_within_the_bound(kind, other, dtype):
    (x, w, dy), (xi, wi, di) = encoded((kind, other, kind), dtype)
    for operand in (xi, wi, di):
        assert torch.equal(operand.values, operand.values.round())
        assert float(operand.rows.max()) <= LARGEST
    cases = (
        (product, xi, wi, x, w, fixed_error(K, xi.rows, wi.rows), xi.exponents + each(wi.exponents)),
        (grad_x, di, wi, dy, w, fixed_error(N, di.rows, wi.columns), di.exponents + each(wi.exponents)),
        (
            grad_w,
            di,
            xi,
            dy,
            x,
            fixed_error(R, di.columns, xi.columns),
            (di.exponents + xi.exponents)[::R, None].expand(G, N),
        ),
    )
    for times, left, right, a, b, bound_G, exponents in cases:
        # float64 adds up whole numbers below 2^53 exactly, and magnitudes too: nothing cancels unseen.
        whole = times(left.values.double(), right.values.double(), ROWS)
        assert float(times(left.values.double().abs(), right.values.double().abs(), ROWS).max()) <= HALF
        exact = times(a.double(), b.double(), ROWS)
        bound = bound_G.view(G, 1, 1) if times is grad_w else each(bound_G)[:, None]
        bound = bound * power_of_two(-exponents).unsqueeze(-1)
        slack = 1e-12 * times(a.double().abs(), b.double().abs(), ROWS)  # of the reference
        error = (values_of(whole, exponents, torch.float64) - exact).abs()
        assert bool((error <= bound + slack).all())


def test_the_bound_is_tight():
    """Every entry of X lies half way between two integers, rounded up, and W is constant: all roundings
    of X add up."""
    w = torch.full((1, N, K), 0.25)
    wi = fixed_weight(w)
    probe = fixed_rows(torch.full((R, K), 0.9), (R,), wi.rows, summed=True)
    scale = float(power_of_two(probe.exponents[:1]))
    # Half to even: one half above an odd number is rounded up.
    x = torch.full((R, K), (2 * round(0.45 * scale) + 1 + 0.5) / scale)
    xi = fixed_rows(x, (R,), wi.rows, summed=True)
    assert int(xi.exponents[0]) == int(probe.exponents[0])
    error = product(xi.values.double(), wi.values.double(), (R,)) * power_of_two(
        -(xi.exponents + wi.exponents)
    ).unsqueeze(-1) - product(x.double(), w.double(), (R,))
    bound = float(fixed_error(K, torch.zeros(1), wi.rows)[0] * power_of_two(-xi.exponents - wi.exponents)[0])
    assert 0.99 * bound < float(error.abs().max()) <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_left_of_even_operands(dtype):
    """Normal operands of a common size come back with four digits and more, all three products."""
    (x, w, dy), (xi, wi, di) = encoded(("even",) * 3, dtype)
    for times, left, right, a, b, exponents in (
        (product, xi, wi, x, w, xi.exponents + each(wi.exponents)),
        (grad_x, di, wi, dy, w, di.exponents + each(wi.exponents)),
        (grad_w, di, xi, dy, x, (di.exponents + xi.exponents)[::R, None].expand(G, N)),
    ):
        exact = times(a.double(), b.double(), ROWS)
        got = values_of(times(left.values.double(), right.values.double(), ROWS), exponents, torch.float64)
        assert float((got - exact).norm() / exact.norm()) < 3e-5


def test_rows_that_are_not_added_up_have_scales_of_their_own():
    w = fixed_weight(torch.randn(1, N, K))
    x = torch.randn(R, K) * torch.logspace(-6, 6, R)[:, None]
    own = fixed_rows(x, (R,), w.rows)
    assert own.columns is None
    got = own.values.double() * power_of_two(-own.exponents)[:, None]
    assert float(((got - x).norm(dim=1) / x.norm(dim=1)).max()) < 1e-4
    assert int(own.exponents.max() - own.exponents.min()) > 30
    common = fixed_rows(x, (R,), w.rows, summed=True)
    assert len(set(common.exponents.tolist())) == 1


def test_zeros_are_whole_numbers_too():
    w = fixed_weight(torch.randn(1, N, K))
    x = fixed_rows(torch.zeros(R, K), (R,), w.rows, summed=True)
    dy = fixed_rows(torch.zeros(R, N), (R,), w.columns, others=x.columns, summed=True)
    assert not x.values.any()
    assert not dy.values.any()


def test_what_could_leave_the_range_is_refused():
    at, beyond = torch.tensor([HALF**0.5 * 0.999]), torch.tensor([HALF**0.5 * 1.01])
    require_exact(at, at)
    with pytest.raises(OverflowError, match="beyond"):
        require_exact(at, beyond)
    with pytest.raises(OverflowError):
        require_exact(torch.tensor([float("nan")]), at)


def test_powers_of_two_are_exact():
    e = torch.arange(-1022, 1024)
    assert [float(p) for p in power_of_two(e)] == [2.0 ** int(i) for i in e]
