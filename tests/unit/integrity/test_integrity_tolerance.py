"""How far an honest reply may lie, and no further."""

import itertools

import pytest
import torch

from tempo.integrity import product_tolerance
from tempo.integrity.tolerance import DEVIATIONS, UNIT_ROUNDOFF, rounding
from tempo.ops import Arithmetic

DTYPES = [torch.float32, torch.float64]


def tolerance(inner, outer, dtype=torch.float32, left=1.0, right=1.0, probe_norm=None):
    return product_tolerance(
        torch.tensor([left], dtype=torch.float64),
        torch.tensor([right], dtype=torch.float64),
        inner=inner,
        outer=outer,
        rounding=rounding(dtype, dtype, Arithmetic.FP32),
        dtype=dtype,
        probe_norm=outer**0.5 if probe_norm is None else probe_norm,
    )


def test_unit_roundoffs_are_those_of_ieee():
    assert {dtype: torch.finfo(dtype).eps / 2 for dtype in DTYPES} == UNIT_ROUNDOFF
    assert DEVIATIONS == 6.0, "changing it changes every claim of docs/numerics.md"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_formulas(dtype):
    """Frozen against a second writing of the docstring's bounds."""
    u, v, tiny = torch.finfo(dtype).eps / 2, 2.0**-53, torch.finfo(dtype).tiny
    for k, n, a, b, r in [(64, 128, 3.0, 5.0, 12.0), (4096, 768, 1e-3, 1e4, 30.0), (1, 1, 1.0, 1.0, 1.0)]:
        t = tolerance(k, n, dtype, a, b, r)
        flushed = tiny * n**0.5 * (k + k**0.5 * (a + b))
        calibrated = 6 * ((k**0.5 * u + (k**0.5 + 2 * n**0.5) * v) * a * b + flushed)
        sound = r * ((k * u / (1 - k * u) + (k + 2 * n) * v) * a * b + flushed)
        assert float(t.calibrated) == pytest.approx(min(calibrated, sound), rel=1e-12)
        assert float(t.sound) == pytest.approx(sound, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tolerance_is_relative(dtype):
    """It follows the size of the row and of its partner, so that large rows cannot hide small lies."""
    one = tolerance(256, 256, dtype)
    for scale in (1e-6, 1e-3, 1e3, 1e6):
        scaled = tolerance(256, 256, dtype, left=scale)
        assert float(scaled.calibrated / one.calibrated) == pytest.approx(scale, rel=1e-9)
        assert float(scaled.sound / one.sound) == pytest.approx(scale, rel=1e-9)


def test_a_float32_entry_of_typical_size_is_far_above_the_tolerance():
    """Rows of a K = N = 1024 product of normal numbers: an entry has deviation sqrt(K)."""
    t = tolerance(1024, 1024, left=32.0, right=1024.0)
    assert float(t.calibrated) < 0.02 * 32


@pytest.mark.parametrize("dtype", DTYPES)
def test_calibrated_is_within_sound_for_every_product_that_is_sent(dtype):
    for inner, outer in itertools.product([64, 65, 100, 768, 3072, 65_536, 10**6], repeat=2):
        t = tolerance(inner, outer, dtype)
        assert float(t.calibrated) <= float(t.sound), (inner, outer)


def test_calibrated_is_within_sound_for_the_smallest_products():
    for inner, outer in itertools.product(range(1, 7), repeat=2):
        t = tolerance(inner, outer)
        assert float(t.calibrated) <= float(t.sound), (inner, outer)


def test_where_the_bound_of_rounding_breaks_down_the_calibrated_tier_still_refuses():
    t = tolerance(2**25, 64)
    assert float(t.sound) == float("inf")
    assert 0 < float(t.calibrated) < 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_rows_are_allowed_flushed_dust_only(dtype):
    t = tolerance(64, 64, dtype, left=0.0)
    assert 0 < float(t.calibrated) < 1e6 * torch.finfo(dtype).tiny


def test_rows_are_judged_one_by_one():
    norms = torch.tensor([1e-12, 1.0, 1e12], dtype=torch.float64)
    t = product_tolerance(
        norms,
        torch.ones(3, dtype=torch.float64),
        inner=64,
        outer=64,
        rounding=rounding(torch.float32, torch.float32, Arithmetic.FP32),
        dtype=torch.float32,
        probe_norm=8.0,
    )
    torch.testing.assert_close((t.calibrated / t.calibrated[1]).flatten(), norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_arithmetic_that_nobody_declared_has_no_tolerance(dtype):
    with pytest.raises(KeyError):
        tolerance(64, 64, dtype)


def test_a_size_that_is_no_number_allows_nothing():
    t = tolerance(64, 64, left=float("nan"))
    assert not bool(torch.zeros(1, dtype=torch.float64) <= t.calibrated)
