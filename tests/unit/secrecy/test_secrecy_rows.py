"""Which rows are sent, in which shard, and the centre that is taken off them."""

import hashlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import (
    Selection,
    apportion,
    largest,
    negligible,
    row_norms,
    row_norms_and_sums,
    unfit,
    union,
)
from tempo.secrecy.seal import draw_centre

few = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


@st.composite
def masks(draw, most_groups=4, most_rows=90):
    groups, rows = draw(st.integers(1, most_groups)), draw(st.integers(0, most_rows))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    share = torch.tensor([[draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))] for _ in range(groups)])
    return torch.rand(groups, rows, generator=generator) < share


# ---- selections --------------------------------------------------------------------------------


@few
@given(masks())
def test_a_selection_is_its_mask(mask):
    where = Selection.where(mask)
    assert torch.equal(where.mask(), mask)
    assert where.counts == tuple(mask.sum(1).tolist())
    assert where.empty == (not mask.any())
    for index, row in zip(where.index, mask, strict=True):
        if index is None:
            assert bool(row.all())
        else:
            assert torch.equal(index, row.nonzero().flatten())


def test_everything():
    where = Selection.everything(3, 5)
    assert where.counts == (5, 5, 5)
    assert bool(where.mask().all())
    assert Selection.everything(2, 0).empty


@few
@given(masks())
def test_put_undoes_take_and_touches_nothing_else(mask):
    where, (groups, rows) = Selection.where(mask), mask.shape
    t = torch.randn(groups, rows, 3, generator=torch.Generator().manual_seed(0))
    before, out = t.clone(), torch.full_like(t, 7.0)
    for g in range(groups):
        taken = where.take(t, g)
        assert torch.equal(taken, t[g][mask[g]])
        where.put(out, g, taken)
    assert torch.equal(t, before)
    assert torch.equal(out, torch.where(mask[..., None], t, torch.tensor(7.0)))


@few
@given(st.data())
def test_union_is_rows_of_either(data):
    a = data.draw(masks())
    b = torch.rand(a.shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) < 0.4
    assert torch.equal(union(Selection.where(a), Selection.where(b)).mask(), a | b)
    assert torch.equal(union(Selection.where(b), Selection.where(a)).mask(), a | b)
    assert torch.equal(union(Selection.where(a), Selection.where(a)).mask(), a)


@few
@given(masks(), st.integers(1, 6), st.integers(0, 70))
def test_shards_partition_the_rows(mask, width, smallest):
    where = Selection.where(mask)
    shards, home = where.shards([1.0] * width, smallest)
    assert len(shards) <= width
    together = torch.stack([s.mask() for s in [*shards.values(), home]]).int().sum(0)
    assert torch.equal(together, mask.int()), "a row is lost or sent twice"
    for shard in shards.values():
        assert not shard.empty
        assert shard.total == where.total
        # The rule that keeps a block of rows from being too small to hide anything.
        assert all(count == 0 or count >= smallest for count in shard.counts)
    for g, count in enumerate(where.counts):
        at_home = home.counts[g]
        assert at_home == (count if count < max(smallest, 1) else 0), "home gets exactly what is too few"
        sizes = [s.counts[g] for s in shards.values() if s.counts[g]]
        # Equal weights give equal shares.
        assert not sizes or max(sizes) - min(sizes) <= 1
        if count >= max(smallest, 1):
            assert len(sizes) == min(width, count // max(smallest, 1))


def test_shards_keep_the_order_of_rows():
    shards, home = Selection.where(torch.rand(2, 300) < 0.9).shards([1.0] * 3, 64)
    for g in range(2):
        joined = torch.cat([s.index[g] for s in shards.values() if s.index[g] is not None])
        assert torch.equal(joined, joined.sort().values)
    assert home.empty


# ---- rows that must not be sent ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 5), (3, 0, 4), (2, 4, 0), (1, 3000, 100)])
def test_row_norms(shape, dtype):
    t = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    before = t.clone()
    norms = row_norms(t)
    assert norms.dtype == torch.float64
    torch.testing.assert_close(norms, t.double().square().sum(-1).sqrt(), rtol=1e-12, atol=0)
    assert torch.equal(t, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 7, 5), (0, 4, 4), (3, 0, 4), (2, 4, 0), (1, 0, 0), (2, 3000, 100)]
)
def test_norms_and_sums_from_one_reading(shape, dtype):
    t = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    for each in (t, t.mT.contiguous().mT):
        norms, sums = row_norms_and_sums(each)
        torch.testing.assert_close(norms, row_norms(t), rtol=1e-12, atol=0)
        assert sums.dtype == torch.float64
        torch.testing.assert_close(sums, t.double().sum(1), rtol=0, atol=1e-11)


def test_row_norms_of_float32_neither_over_nor_underflow():
    t = torch.tensor([[[3e38, 3e38], [1e-40, 0.0], [0.0, 0.0], [1.0, float("nan")], [float("inf"), 0.0]]])
    norms = row_norms(t)[0]
    assert norms[0] == pytest.approx(3e38 * 2**0.5)
    assert 0 < norms[1] < 2e-40
    assert norms[2] == 0
    assert norms[3].isnan()
    assert norms[4].isinf()


@pytest.mark.security
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_rows_and_rows_that_rounding_blurs_are_negligible(dtype):
    eps = 16 * torch.finfo(dtype).eps
    norms = torch.tensor([[1.0, 0.0, eps, eps / 2, 2 * eps, 0.5], [0.0] * 6, [1e-20, 0, 1e-20, 0, 1e-19, 0]])
    norms = norms.double()
    norms[0] = torch.tensor([1.0, 0.0, eps, eps / 2, 2 * eps, 0.5], dtype=torch.float64)
    assert negligible(norms, dtype).tolist() == [
        [False, True, True, True, False, False],
        [True] * 6,
        [False, True, False, True, False, True],
    ]
    assert negligible(torch.zeros(2, 0, dtype=torch.float64), dtype).shape == (2, 0)


def test_a_row_that_is_not_a_number_is_not_silently_dropped():
    nan = float("nan")
    norms = torch.tensor([[1.0, nan, 0.0]], dtype=torch.float64)
    assert not negligible(norms, torch.float32)[0, 1]
    assert largest(norms) != largest(norms)
    assert largest(torch.zeros(0, 3)) == 0.0


TINY, HUGE = 1e-30, 1e30


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ((float("nan"), 1.0), "finite"),
        ((1.0, float("nan")), "finite"),
        ((1.0, 1.0, float("nan")), "finite"),
        ((float("inf"), 1.0), "finite"),
        ((1.0, float("inf")), "finite"),
        ((0.0, float("inf")), "finite"),
        ((float("nan"), 0.0), "finite"),
        ((HUGE, 1.0), "large"),
        ((1e20, 1e20), "large"),
        ((TINY, 1.0), "small"),
        ((1e-20, 1e-20), "small"),
        ((1.0, 1.0, TINY), "small"),
        ((float("inf"), TINY), "finite"),
    ],
)
def test_what_is_unfit_to_send_in_float32(sizes, word):
    assert word in unfit(*sizes, dtype=torch.float32)


@pytest.mark.parametrize(
    "sizes",
    [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0, 1.0), (1e-14, 1e-14), (1e14, 1e14), (1e-20, 1e20)],
)
def test_what_is_fit_to_send(sizes):
    assert unfit(*sizes, dtype=torch.float32) is None
    assert unfit(*sizes, dtype=torch.float64) is None


def test_float64_has_limits_of_its_own():
    assert unfit(HUGE, TINY, dtype=torch.float64) is None
    assert unfit(1e200, 1e100, dtype=torch.float64)
    assert unfit(1e-200, 1e-100, dtype=torch.float64)


# ---- the centre --------------------------------------------------------------------------------


def sample(count, k, offset, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, k, generator=g, dtype=dtype) + offset


@pytest.mark.security
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 70, 1000, 5000])
def test_the_centre_is_never_the_exact_mean(count, dtype):
    x = sample(count, 64, 5.0, dtype=dtype)
    where = Selection.everything(1, count)
    centres = [draw_centre(key_of(0), (i,), x, where) for i in range(10)]
    for c in centres:
        assert c.shape == (1, 1, 64)
        assert c.dtype == dtype
        away = (c - x.mean(1, keepdim=True)).abs()
        assert bool((away > 0).all()), "a coordinate is centred exactly"
        # Centred rows are not confined to a plane: their mean is far from zero beside rounding.
        centred = (x - c).double()
        assert centred.mean(1).norm() > 1e-3 * centred.norm(dim=-1).mean()
    assert len({tuple(c.flatten().tolist()) for c in centres}) == 10, "one label, one noise"


@pytest.mark.parametrize("offset", [0.0, 3.0, 100.0])
def test_the_centre_is_close_to_the_mean(offset):
    x = sample(4000, 64, offset)
    c = draw_centre(key_of(1), (0,), x, Selection.everything(1, 4000))
    away = (c - x.mean(1, keepdim=True)).norm() / 8
    # A tenth of the deviation, the error of a mean of 1,000 rows, a share of the offset.
    assert away < 0.15 + 0.05 * offset
    if offset:
        assert (x - c).norm() < 0.6 * x.norm()


@pytest.mark.security
@pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, 1e6])
def test_rows_that_are_all_alike_are_not_centred_to_zero(value):
    x = torch.full((1, 100, 64), value, dtype=torch.float64)
    centred = x - draw_centre(key_of(2), (0,), x, Selection.everything(1, 100))
    assert centred.norm(dim=-1).min() > 1e-3 * abs(value) * 8
    assert bool((centred.abs() > 0).all())


@pytest.mark.security
@pytest.mark.parametrize("size", [1e-27, 1e-24, 1e-20, 1e18, 1e20, 1e25])
def test_the_centre_works_wherever_an_operand_may_be_sent(size):
    # Regression: squares over- and underflowed in float32, and left an infinite or an exact centre.
    x = sample(70, 64, 2.0, dtype=torch.float32) * size
    alike = torch.full_like(x, size)
    for t in (x, alike):
        assert unfit(largest(row_norms(t)), 1.0, dtype=t.dtype) is None
        c = draw_centre(key_of(3), (0,), t, Selection.everything(1, 70))
        assert bool(c.isfinite().all())
        away = ((c - t.mean(1, keepdim=True)) / size).abs()
        assert bool((away > 0).sum() > 60)
        assert away.max() < 2


def test_the_centre_of_each_group_is_its_own_and_of_chosen_rows_only():
    x = torch.stack([torch.zeros(100, 64), torch.full((100, 64), 50.0), torch.full((100, 64), 9.0)]).double()
    x += sample(100, 64, 0.0)
    x[1, 50:] = 1e9
    mask = torch.ones(3, 100, dtype=torch.bool)
    mask[1, 50:] = False
    mask[2] = False
    c = draw_centre(key_of(4), (0,), x, Selection.where(mask))
    assert c[0].abs().max() < 2
    assert (c[1] - 50).abs().max() < 10
    assert torch.equal(c[2], torch.zeros(1, 64).double())


def test_the_operand_is_left_alone():
    x = sample(100, 8, 1.0)
    before = x.clone()
    draw_centre(key_of(5), (0,), x, Selection.everything(1, 100))
    assert torch.equal(x, before)


@few
@given(
    st.integers(0, 3000), st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.sampled_from([1, 16, 64])
)
def test_shares_follow_the_weights(count, weights, smallest):
    parts = apportion(count, weights, smallest)
    assert sum(parts) == (count if count >= smallest else 0)
    assert all(part == 0 or part >= smallest for part in parts)
    if len(parts) * smallest * 200 < count:  # far from every floor
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - count * weight / sum(weights)) <= len(parts) * smallest


def test_the_slowest_worker_goes_first_where_rows_are_few():
    assert apportion(130, [1.0, 9.0, 5.0], 64) == [0, 66, 64]
    assert apportion(1000, [3.0, 1.0], 64) == [750, 250]
    assert apportion(63, [1.0], 64) == [0]
