"""Results of a session against float64, within the bound of docs/numerics.md, section 3; and its owner."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tempo import Config
from tempo.engine import Engine
from tempo.fleet import DeviceWorker, Fleet, FleetSettings
from tempo.integrity import Verifier
from tempo.lowering import lower_conv, lower_linear, lower_matmul
from tempo.numerics import GROWTH, ROUNDED_GROWTH, amplification, loss_tolerance, result_tolerance
from tempo.secrecy.form import FULL
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk
from tempo.secrecy.weights import Weights
from tempo.stats import Stats

CONFIG = Config()
LAYERS = {
    "linear": (lower_linear, (300, 128), (96, 128), {}),
    "linear, long": (lower_linear, (200, 1024), (64, 1024), {}),
    "linear, weight transposed": (lower_matmul, (4, 70, 96), (96, 80), {}),
    "bmm": (lower_matmul, (3, 100, 72), (3, 72, 64), {}),
    "conv 1x1": (lower_conv, (4, 64, 9, 9), (96, 64, 1, 1), {"stride": 1}),
    "winograd F(2,3)": (lower_conv, (20, 64, 6, 6), (64, 64, 3, 3), {"padding": 1, "smallest": 128}),
    "winograd F(4,3)": (lower_conv, (8, 64, 14, 14), (64, 64, 3, 3), {"padding": 1}),
    "im2col": (lower_conv, (4, 32, 11, 11), (64, 32, 3, 3), {"stride": 2, "padding": 1}),
    "im2col, groups": (lower_conv, (6, 128, 8, 8), (128, 64, 5, 5), {"padding": 2, "groups": 2}),
}


def run(name, scheme, precision=FULL):
    """(error, exact operand norms) of y, dx, dw of one layer in float32 through an engine; and the norms of
    the lowered results relative to those."""
    lower, x_shape, w_shape, options = LAYERS[name]
    g = torch.Generator().manual_seed(0)
    x = torch.randn(x_shape, generator=g) + 0.5
    w = torch.randn(w_shape, generator=g) / math.sqrt(math.prod(w_shape[1:]))
    lowering = lower(x_shape, w_shape, **options)
    key, ids, stats = SessionKey(), itertools.count(1), Stats()
    sch = CONFIG.with_options(scheme=scheme).make_scheme()
    with Fleet([DeviceWorker("cpu", name="w")], FleetSettings()) as fleet, torch.no_grad():
        verifier = Verifier(key, CONFIG.repetitions)
        desk = Desk(key, sch, verifier, stats, ids, itertools.count(1), fleet.release, precision)
        engine = Engine(
            desk,
            fleet,
            Weights(key, sch, ids, fleet.release, CONFIG.weight_uses, desk.pool),
            key_shift=True,
            local_fallback=False,
        )
        y, ticket = engine.forward(lowering, x, w, train_w=True)
        assert ticket.reason is None
        dy = torch.randn(y.shape, generator=g)
        dx, dw = engine.backward(ticket, lowering, x, w, dy, want_x=True, want_w=True)
    assert stats.count("checks") == 3
    assert stats.count("checks_failed") == 0
    x_GRK, w_GNK, dy_GRN = (
        f(t.double()) for f, t in ((lowering.lower_x, x), (lowering.lower_w, w), (lowering.lower_dy, dy))
    )
    lowered = (x_GRK @ w_GNK.mT, dy_GRN @ w_GNK, dy_GRN.mT @ x_GRK)
    maps = (lowering.raise_y, lowering.raise_dx, lowering.raise_dw)
    exact = [raised(t) for raised, t in zip(maps, lowered)]
    norms = (x_GRK.norm() * w_GNK.norm(), dy_GRN.norm() * w_GNK.norm(), dy_GRN.norm() * x_GRK.norm())
    sizes = tuple(float(t.norm() / n) for t, n in zip(lowered, norms))
    errors = [(float((a - b).norm()), float(n)) for a, b, n in zip((y, dx, dw), exact, norms)]
    return lowering, errors, sizes


def bound(lowering, **options):
    s = lowering.shape
    inner = max(s.k, s.n, s.rows)
    return result_tolerance(
        lowering,
        inner=inner,
        spread=CONFIG.spread,
        rounds=CONFIG.rounds,
        row_rounds=CONFIG.row_rounds,
        dtype=torch.float32,
        **options,
    )


@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
@pytest.mark.parametrize("name", LAYERS)
def test_float32_results_stay_within_the_derived_bound(name, scheme):
    lowering, errors, _ = run(name, scheme)
    assert lowering.name == name.split(", long")[0].split(", groups")[0]
    for (error, norm), allowed in zip(errors, bound(lowering), strict=True):
        assert 0 < error <= allowed * norm


@pytest.mark.parametrize("name", ["linear", "conv 1x1", "im2col"])
def test_a_result_in_bfloat16_is_outside_of_it(name):
    """The bound has teeth: one rounding of an operand to bfloat16 breaks it."""
    lower, x_shape, w_shape, options = LAYERS[name]
    lowering = lower(x_shape, w_shape, **options)
    x, w = torch.randn(x_shape).double(), torch.randn(w_shape).double()
    x_GRK, w_GNK = lowering.lower_x(x), lowering.lower_w(w)
    rough = x_GRK.bfloat16().double() @ w_GNK.mT
    error = float((rough - x_GRK @ w_GNK.mT).norm())
    assert error > bound(lowering)[0] * float(x_GRK.norm() * w_GNK.norm())


@pytest.mark.parametrize(
    "options", [{"wire": "bf16"}, {"arithmetic": "bf16"}, {"arithmetic": "tf32"}], ids=str
)
@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
@pytest.mark.parametrize("name", LAYERS)
def test_rounded_results_stay_within_the_derived_bound(name, scheme, options):
    precision = Config(**options).precision
    lowering, errors, sizes = run(name, scheme, precision)
    allowed = bound(lowering, precision=precision, sizes=sizes)
    for (error, norm), most in zip(errors, allowed, strict=True):
        assert 0 < error <= most * norm
    print(
        f"{name}, {scheme}, {options}: " + ", ".join(f"{e / n / s:.1e}" for (e, n), s in zip(errors, sizes))
    )


def test_the_bound_of_bfloat16_has_teeth():
    """A result from operands of two significant bits, let alone none at all, is outside."""
    precision = Config(wire="bf16").precision
    lowering, _, sizes = run("linear", "mixing", precision)
    allowed = bound(lowering, precision=precision, sizes=sizes)[0]
    g = torch.Generator().manual_seed(1)
    x, w = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((300, 128), (96, 128)))
    y, size = x @ w.mT, float(x.norm() * w.norm())
    (a, i), (b, j) = torch.frexp(x), torch.frexp(w)
    coarse = torch.ldexp((4 * a).floor() / 4, i) @ torch.ldexp((4 * b).floor() / 4, j).mT
    print(float((coarse - y).norm()) / size, float(y.norm()) / size, allowed)
    assert float((coarse - y).norm()) > allowed * size
    assert float(y.norm()) > 3 * allowed * size


def test_the_bound_follows_the_settings():
    lowering = lower_linear((300, 128), (96, 128))
    delicate = lower_conv((8, 64, 14, 14), (64, 64, 3, 3), padding=1)
    by = {
        name: bound(lowering, precision=Config(**options).precision)
        for name, options in {
            "fp32": {},
            "tf32": {"arithmetic": "tf32"},
            "bf16": {"arithmetic": "bf16"},
            "wire": {"wire": "bf16"},
        }.items()
    }
    assert by["fp32"] == bound(lowering)
    for a, b in itertools.pairwise(("fp32", "tf32", "bf16")):
        assert all(x < y for x, y in zip(by[a], by[b]))
    assert by["wire"][0] > by["bf16"][0], "its results are rounded as well"
    assert by["wire"][2] == pytest.approx(by["bf16"][2]), "all but dW"
    assert bound(delicate, precision=Config(wire="bf16").precision) == bound(delicate)


def test_amplification_is_the_mean_square_of_the_coefficients():
    q = 2**0.5
    s = torch.exp((torch.rand(400_000, dtype=torch.float64) * 2 - 1) * math.log(q))
    one = float(((s**2).mean() * (s**-2).mean()).sqrt())
    assert amplification(q, 2) == pytest.approx(one**3, rel=5e-3)
    assert amplification(q, 2) == pytest.approx(1.27, rel=5e-3)


def test_loss_tolerance_follows_the_worst_so_far():
    u = 2.0**-24
    allowed = loss_tolerance([2.0, 1.0, 0.5], [2.0, 1.0 + 1e-6, 0.5])
    assert allowed == pytest.approx(
        [GROWTH * u * 2.0, GROWTH * (1e-6 + u), GROWTH * (1e-6 + u * 0.5)], rel=1e-6
    )
    with pytest.raises(ValueError):
        loss_tolerance([1.0], [1.0, 2.0])


def test_loss_tolerance_in_less_than_float32():
    plain, rough, b = [2.0, 1.0, 0.5], [2.0, 1.0 + 1e-3, 0.5], 2.0**-8
    for options in ({"wire": "bf16"}, {"arithmetic": "bf16"}):
        assert loss_tolerance(plain, rough, Config(**options).precision) == pytest.approx(
            [b * 2.0, ROUNDED_GROWTH * 1e-3 + b, ROUNDED_GROWTH * 1e-3 + b * 0.5], rel=1e-6
        )
    assert loss_tolerance(plain, rough, Config(arithmetic="tf32").precision) == pytest.approx(
        [b / 2, (ROUNDED_GROWTH * 1e-3 + b) / 4, (ROUNDED_GROWTH * 1e-3 + b * 0.5) / 4], rel=1e-6
    )
