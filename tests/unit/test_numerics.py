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
from tempo.numerics import GROWTH, amplification, loss_tolerance, result_tolerance
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


def run(name, scheme):
    """(error, exact operand norms) of y, dx, dw of one layer in float32 through an engine."""
    lower, x_shape, w_shape, options = LAYERS[name]
    g = torch.Generator().manual_seed(0)
    x = torch.randn(x_shape, generator=g) + 0.5
    w = torch.randn(w_shape, generator=g) / math.sqrt(math.prod(w_shape[1:]))
    lowering = lower(x_shape, w_shape, **options)
    key, ids, stats = SessionKey(), itertools.count(1), Stats()
    sch = CONFIG.with_options(scheme=scheme).make_scheme()
    with Fleet([DeviceWorker("cpu", name="w")], FleetSettings()) as fleet, torch.no_grad():
        desk = Desk(key, sch, Verifier(key, CONFIG.probes), stats, ids, itertools.count(1), fleet.release)
        engine = Engine(
            desk,
            fleet,
            Weights(key, sch, ids, fleet.release, CONFIG.weight_uses),
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
    exact = (
        lowering.raise_y(x_GRK @ w_GNK.mT),
        lowering.raise_dx(dy_GRN @ w_GNK),
        lowering.raise_dw(dy_GRN.mT @ x_GRK),
    )
    norms = (x_GRK.norm() * w_GNK.norm(), dy_GRN.norm() * w_GNK.norm(), dy_GRN.norm() * x_GRK.norm())
    return lowering, [(float((a - b).norm()), float(n)) for a, b, n in zip((y, dx, dw), exact, norms)]


def bound(lowering):
    s = lowering.shape
    inner = max(s.k, s.n, s.rows)
    return result_tolerance(
        lowering, inner=inner, spread=CONFIG.spread, rounds=CONFIG.rounds, dtype=torch.float32
    )


@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
@pytest.mark.parametrize("name", LAYERS)
def test_float32_results_stay_within_the_derived_bound(name, scheme):
    lowering, errors = run(name, scheme)
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
