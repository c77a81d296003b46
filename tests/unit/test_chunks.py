"""Into how many chunks rows are cut: bounds that hold for all sizes, and the choices for some."""

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempo.chunks import cut
from tempo.secrecy.rows import apportion

LEAST = 2048
sizes = st.integers(1, 1 << 14)
speeds = st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=8)


@given(
    st.lists(st.integers(0, 1 << 19), min_size=1, max_size=36),
    sizes,
    sizes,
    speeds,
    st.sampled_from([1 << 10, 1 << 13, 1 << 16]),
    st.booleans(),
)
def test_bounds(counts, k, n, speeds, chunk, dw):
    got = cut(counts, k, n, speeds, chunk=chunk, dw=dw)
    again = cut(counts, k, n, speeds, chunk=chunk, dw=dw)
    assert got == again, "a run can be repeated"
    assert len(got.weights) == len(got.lanes)
    assert set(got.lanes) == set(range(len(speeds)))
    for lane, speed in enumerate(speeds):
        mine = [weight for weight, at in zip(got.weights, got.lanes) if at == lane]
        assert sum(mine) == pytest.approx(speed), "each worker's share follows its speed"
        rows = max(counts) * speed / sum(speeds)
        elements = sum(counts) * speed / sum(speeds) / len(mine)
        if len(mine) > 1:
            by_size = elements * max(k, n) > (1 << 25) * (len(mine) - 1) / len(mine) * 0.99
            assert (rows / len(mine) >= LEAST and elements * (k + n) >= 1 << 19) or by_size
            assert len(mine) <= 8 or by_size
        assert elements * max(k, n) <= 1 << 25, "an operand of a chunk fits"
    assert got.lanes[: len(speeds)] == list(range(len(speeds))), "every worker is fed before any is fed again"


@given(st.integers(1 << 13, 1 << 20), speeds)
def test_rows_of_a_chunk_stay_above_the_floor(rows, speeds):
    """After rounding, too: no chunk permutes fewer rows than 2048, unless a share is smaller."""
    got = cut([rows], 768, 3072, speeds, chunk=8192, dw=True)
    parts = apportion(rows, got.weights, 64, got.grain)
    assert sum(parts) == rows
    for lane, speed in enumerate(speeds):
        mine = [part for part, at in zip(parts, got.lanes) if at == lane]
        if len(mine) > 1:
            assert min(mine) >= LEAST
    ragged = [part for part in parts if part % got.grain]
    assert len(ragged) <= 1


def chunks(rows, k, n, workers=1, dw=True):
    return len(cut([rows], k, n, [1.0] * workers, chunk=8192, dw=dw).weights) // workers


def test_large_operations_are_cut_and_small_ones_are_not():
    assert chunks(25088, 768, 3072) == round(sqrt(25088 / 614.4)) == 6
    assert chunks(25088, 768, 3072, workers=2) == 5 or chunks(25088, 768, 3072, workers=2) == 4
    assert chunks(65536, 4096, 4096) == 8, "no operand of more than 2^25 elements"
    assert chunks(65536, 256, 256, dw=False) == 8
    assert chunks(4096, 768, 3072) == 1
    assert chunks(0, 768, 3072) == 1
    assert chunks(60_000, 8, 8) == 1, "too little to pay for a message"


def test_a_partial_dw_weighs_against_more_chunks():
    """In elements: the choice costs no more than one chunk fewer or one more."""
    for rows, k, n in [(25088, 768, 3072), (32768, 2048, 2048), (16384, 1024, 1024), (32768, 1024, 4096)]:

        def cost(c, rows=rows, k=k, n=n):
            return rows * (k + n) / c + c * n * k

        c = chunks(rows, k, n)
        assert 1 < c < 8, "none of the bounds decides"
        assert cost(c) <= 1.01 * min(cost(c - 1), cost(c + 1))


def test_long_chunks_are_multiples_of_the_schemes():
    got = cut([1 << 20], 64, 64, [1.0], chunk=8192, dw=False)
    assert got.grain == 8192
    assert all(part % 8192 == 0 for part in apportion(1 << 20, got.weights, 64, got.grain))


@given(
    st.integers(0, 5000),
    st.lists(st.floats(0.1, 10), min_size=1, max_size=9),
    st.integers(1, 70),
    st.sampled_from([1, 64, 256]),
)
def test_parts_with_a_grain_are_all_of_it(count, weights, smallest, grain):
    parts = apportion(count, weights, smallest, grain)
    assert sum(parts) == (count if count >= smallest else 0)
    assert all(part == 0 or part >= smallest for part in parts)
