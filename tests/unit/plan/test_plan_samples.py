"""What timed jobs say of a worker: known rates are found again."""

from __future__ import annotations

import pytest

from tempo.plan.machine import OPS
from tempo.plan.samples import Sample, figures_of

TRIP, UP, DOWN = 1e-3, 1e9, 2e9
RATES = {op: 1e12 * (at + 1) for at, op in enumerate(OPS)}
OTHERS = {f"{op}, sent as bfloat16": 9e12 * (at + 1) for at, op in enumerate(OPS)}


def job(rate, sent, received, flops):
    computed = flops / (RATES | OTHERS)[rate] if rate else 0.0
    return Sample(rate, sent, received, flops, TRIP + sent / UP + received / DOWN + computed)


def jobs(rates, *, itemsize=4):
    for rate in rates:
        for inner in (1024, 4096, 16384):
            for held in (0, 2 * 512 * inner * itemsize):
                yield job(rate, held, 512 * 512 * 4, 2 * 512 * 512 * inner)


def test_link_and_rates_are_told_apart():
    samples = [job(None, 32768, 16384, 0), job("product", 8 << 20, 1 << 20, 1 << 28), *jobs(RATES)]
    alone = figures_of("w", samples)
    both = figures_of("w", [*samples, *jobs(OTHERS, itemsize=2)])
    for found, rates in ((alone, RATES), (both, RATES | OTHERS)):
        assert found.round_trip_seconds == pytest.approx(TRIP, rel=1e-6)
        assert found.up_bytes_per_second == pytest.approx(UP, rel=1e-6)
        assert found.down_bytes_per_second == pytest.approx(DOWN, rel=1e-6)
        assert found.flops_per_second == pytest.approx(rates, rel=1e-6)


def test_a_product_that_is_lost_in_the_link_has_a_finite_rate():
    slow = [Sample("product, rounded to tf32", 0, 1 << 20, 1 << 20, 1e-4)] * 2
    found = figures_of("w", [job(None, 32768, 16384, 0), *jobs(RATES), *slow])
    assert found.flops_per_second["product, rounded to tf32"] == pytest.approx((1 << 20) / 1e-5)
