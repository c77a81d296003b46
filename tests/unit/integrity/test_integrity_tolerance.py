"""How far an honest reply may lie, and no further."""

import itertools

import pytest
import torch

from tempo.integrity import product_tolerance
from tempo.integrity.tolerance import BF16_UNIT, DEVIATIONS, UNIT_ROUNDOFF, rounding
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


# ---- less than float32 ---------------------------------------------------------------------------

F32, BF16 = torch.float32, torch.bfloat16


def test_what_each_arithmetic_rounds():
    """Frozen: 10 explicit bits of TF32, cut off at worst; 7 of bfloat16, to nearest."""
    tf32, bf16 = rounding(F32, F32, Arithmetic.TF32), rounding(F32, F32, Arithmetic.BF16)
    assert (tf32.unit, tf32.worst, tf32.bias) == (2.0**-11, 2.0**-10, 2.0**-10)
    assert (bf16.unit, bf16.worst, bf16.bias) == (2.0**-8, 2.0**-8, 0.0)
    assert torch.finfo(BF16).eps / 2 == BF16_UNIT == bf16.unit
    for left, right, summed in [
        (BF16, BF16, 2.0**-23),
        (BF16, F32, 2.0**-24),
        (F32, BF16, 2.0**-24),
        (F32, F32, 2.0**-24),
        (torch.float64, torch.float64, 2.0**-53),
    ]:
        exact = rounding(left, right, Arithmetic.FP32)
        assert (exact.unit, exact.worst, exact.bias, exact.summed) == (0.0, 0.0, 0.0, summed)


def rounded(arithmetic, spread, expected, k=768, n=64, probe_norm=9.0):
    one = torch.ones(1, dtype=torch.float64)
    return product_tolerance(
        3 * one,
        5 * one,
        inner=k,
        outer=n,
        rounding=rounding(F32, F32, arithmetic),
        dtype=F32,
        probe_norm=probe_norm,
        spread=torch.tensor([[spread, 4 * spread]], dtype=torch.float64),
        expected=torch.tensor([[expected, -expected]], dtype=torch.float64),
    )


@pytest.mark.parametrize("arithmetic", [Arithmetic.TF32, Arithmetic.BF16])
def test_the_formulas_for_rounded_operands(arithmetic):
    """Against a second writing of the docstring's bounds, probe by probe."""
    u, w, bias = {
        Arithmetic.TF32: (2.0**-11, 2.0**-10, 2.0**-10),
        Arithmetic.BF16: (2.0**-8, 2.0**-8, 0.0),
    }[arithmetic]
    k, n, v, s = 768, 64, 2.0**-53, 2.0**-23
    t = rounded(arithmetic, 0.25, 0.5)
    sums = k**0.5 * s * 15 + (k**0.5 + 2 * n**0.5) * v * 15
    for probe, root in ((0, 0.5), (1, 1.0)):
        expected = 6 * sums + 6 * u / 3**0.5 * root + bias * 0.5
        assert float(t.calibrated[0, probe]) == pytest.approx(expected, rel=1e-9)
    gamma = k * s / (1 - k * s)
    sound = 9 * ((1 + w) ** 2 * (1 + gamma) - 1 + (k + 2 * n) * v) * 15
    assert float(t.sound) == pytest.approx(sound, rel=1e-9)


def test_rounded_operands_need_their_spread():
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="spread"):
        product_tolerance(
            one,
            one,
            inner=64,
            outer=64,
            rounding=rounding(F32, F32, Arithmetic.BF16),
            dtype=F32,
            probe_norm=8.0,
        )


def test_the_formulas_for_a_rounded_result():
    t = tolerance(64, 64, probe_norm=8.0)
    squares, norms = (
        torch.tensor([[4.0, 9.0]], dtype=torch.float64),
        torch.tensor([[2.0]], dtype=torch.float64),
    )
    r = t.rounded(squares, norms, 8.0)
    assert float(r.sound) == pytest.approx(float(t.sound) + 8 * 2 * 2.0**-8)
    for probe, root in ((0, 2.0), (1, 3.0)):
        assert float(r.calibrated[0, probe]) == pytest.approx(
            float(t.calibrated) + 6 * 2.0**-8 / 3**0.5 * root
        )


def test_a_result_that_is_no_number_allows_nothing():
    nan = torch.tensor([[float("nan")]], dtype=torch.float64)
    r = tolerance(64, 64).rounded(nan, nan, 8.0)
    assert not bool(torch.zeros(1, dtype=torch.float64) <= r.calibrated)
