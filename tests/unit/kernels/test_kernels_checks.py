"""Projections and contractions of the checks, and the ranking of random words, for every kind of pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.kernels import Sums, contract, norms, project, ranking, survey
from tempo.kernels.native import SETS, Native

few = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16


def available():
    found = []
    for name in SETS:
        try:
            Native(name)
        except OSError:
            continue
        found.append(name)
    return found


every_pass = pytest.mark.parametrize("name", [*available(), "plain"])
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([31, 63, 64, 65, 127, 129, 300]))


@st.composite
def matrices(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows, width, dtype = draw(SIZES), draw(SIZES), draw(st.sampled_from([F32, F64, BF16]))
    t = torch.randn(rows + 1, width + 5, dtype=F64, generator=generator).to(dtype)
    match draw(st.sampled_from(["contiguous", "unaligned", "column major", "expanded"])):
        case "contiguous":
            return t[1:, 5:].contiguous(), generator
        case "unaligned":
            offset = draw(st.integers(0, 5))
            return t[1:, offset : offset + width], generator
        case "column major":
            return t[1:, 5:].mT.contiguous().mT, generator
    return t[:1, 5:].expand(rows, width), generator


def near(ours, exact, magnitudes, terms):
    """Sums of `terms` products in any order: gamma_terms times the sum of magnitudes."""
    assert ours.dtype == F64
    assert ours.shape == exact.shape
    u = 2.0**-53
    assert bool(((ours - exact).abs() <= 2 * (terms + 2) * u * magnitudes).all())


@every_pass
@few
@given(matrices(), st.integers(0, 8), st.sampled_from([1, 2]))
def test_projections_and_norms(serve, name, case, probes, threads):
    a, generator = case
    v = torch.randn(a.shape[1], probes, dtype=F64, generator=generator)
    before = a.clone()
    with serve(name, threads):
        out, sizes = project(a, v)
        alone = norms(a)
    wide = a.double()
    near(out, wide @ v, wide.abs() @ v.abs(), a.shape[1])
    near(alone, sizes, sizes, a.shape[1])
    near(sizes, wide.square().sum(1).sqrt(), wide.square().sum(1).sqrt(), a.shape[1])
    assert torch.equal(a, before)


@every_pass
@few
@given(matrices(), st.integers(0, 8), st.sampled_from([1, 2]))
def test_contractions_and_squares(serve, name, case, probes, threads):
    a, generator = case
    q = torch.randn(a.shape[0], probes, dtype=F64, generator=generator)
    with serve(name, threads):
        out, squares = contract(a, q)
    wide = a.double()
    near(out, wide.mT @ q, wide.abs().mT @ q.abs(), a.shape[0])
    near(squares, wide.square().sum(0), wide.square().sum(0), a.shape[0])


@every_pass
@few
@given(matrices(), st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), max_size=4))
def test_one_reading_gives_all_that_is_asked_of_it(serve, name, case, asked):
    """Any number of sums of either kind, together."""
    a, generator = case
    along, down = [], []
    for is_down, squared, probes in asked:
        length = a.shape[0] if is_down else a.shape[1]
        sums = Sums(torch.randn(length, probes, dtype=F64, generator=generator), squared)
        (down if is_down else along).append(sums)
    before = a.clone()
    with serve(name, 2):
        found = survey(a, along, down)
    wide = a.double()
    for sums, out in zip(along, found.along, strict=True):
        of = wide.square() if sums.squared else wide
        near(out, of @ sums.probes, of.abs() @ sums.probes.abs(), a.shape[1])
    for sums, out in zip(down, found.down, strict=True):
        of = wide.square() if sums.squared else wide
        near(out[0], of.mT @ sums.probes, of.abs().mT @ sums.probes.abs(), a.shape[0])
    assert found.norms.shape == (a.shape[0] * bool(along),)
    assert found.squares.shape == (1 * bool(down), a.shape[1])
    if along:
        near(found.norms, wide.square().sum(1).sqrt(), wide.square().sum(1).sqrt(), a.shape[1])
    if down:
        near(found.squares[0], wide.square().sum(0), wide.square().sum(0), a.shape[0])
    assert torch.equal(a, before)


@every_pass
@pytest.mark.parametrize("threads", [1, 2])
def test_a_reading_of_many_pieces(serve, name, threads):
    """Longer than what a thread takes at a time, in every width of a row's end."""
    g = torch.Generator().manual_seed(0)
    for rows, width, dtype in ((3001, 257, F32), (517, 2050, BF16), (40, 70001, F32), (2000, 130, F64)):
        a = torch.randn(rows, width, generator=g).to(dtype)
        v, q = torch.randn(width, 3, dtype=F64, generator=g), torch.randn(rows, 2, dtype=F64, generator=g)
        with serve(name, threads):
            found = survey(a, [Sums(v)], [Sums(q), Sums(q, squared=True)])
        wide = a.double()
        near(found.along[0], wide @ v, wide.abs() @ v.abs(), width)
        near(found.norms, wide.square().sum(1).sqrt(), wide.square().sum(1).sqrt(), width)
        near(found.down[0][0], wide.mT @ q, wide.abs().mT @ q.abs(), rows)
        near(found.down[1][0], wide.square().mT @ q, wide.square().mT @ q.abs(), rows)
        for p, columns in ((2, 2), (3, 1), (0, 1)):  # those that have a loop of their own
            few_v, few_q = v[:, :p], q[:, :columns]
            with serve(name, threads):
                crossed = survey(a, [Sums(few_v)], [Sums(few_q)])
            near(crossed.along[0], wide @ few_v, wide.abs() @ few_v.abs(), width)
            near(crossed.down[0][0], wide.mT @ few_q, wide.abs().mT @ few_q.abs(), rows)
            for ours, other, terms in [
                (crossed.norms, found.norms, width),
                (crossed.squares, found.squares, rows),
            ]:
                near(ours, other, other, terms)
        near(found.squares[0], wide.square().sum(0), wide.square().sum(0), rows)


@every_pass
def test_an_error_of_float32_is_outside_what_these_tests_allow(serve, name):
    g = torch.Generator().manual_seed(0)
    a, v = torch.randn(70, 130, generator=g), torch.randn(130, 2, dtype=F64, generator=g)
    with serve(name):
        out, _ = project(a, v)
    magnitudes = a.double().abs() @ v.abs()
    near(out, a.double() @ v, magnitudes, 130)
    with pytest.raises(AssertionError):
        near((a @ v.float()).double(), a.double() @ v, magnitudes, 130)


@pytest.mark.security
@every_pass
@pytest.mark.parametrize("dtype", [F32, F64, BF16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_every_probe(serve, name, dtype, bad):
    """If one were lost, a worker could hide what it likes behind it: the check would pass."""
    for rows, width in ((1, 1), (5, 3), (70, 130), (66, 64)):
        g = torch.Generator().manual_seed(rows)
        for probes, columns in ((1, 1), (2, 2), (3, 3), (3, 1), (4, 4), (7, 7)):
            a = torch.randn(rows, width, dtype=F64, generator=g).to(dtype)
            r, f = int(torch.randint(rows, (), generator=g)), int(torch.randint(width, (), generator=g))
            a[r, f] = bad
            v = torch.randn(width, probes, dtype=F64, generator=g)
            q = torch.randn(rows, columns, dtype=F64, generator=g)
            with serve(name, 2):
                out, sizes = project(a, v)
                sums, squares = contract(a, q)
                both = survey(a, [Sums(v)], [Sums(q)])
            for apart, together in [
                (out, both.along[0]),
                (sizes, both.norms),
                (sums, both.down[0][0]),
                (squares, both.squares[0]),
            ]:
                assert torch.equal(apart.isfinite(), together.isfinite())
            others_r, others_f = torch.arange(rows) != r, torch.arange(width) != f
            assert not bool(out[r].isfinite().any() or sums[f].isfinite().any())
            assert not bool(sizes[r].isfinite() or squares[f].isfinite())
            assert bool(out[others_r].isfinite().all() and sizes[others_r].isfinite().all())
            assert bool(sums[others_f].isfinite().all() and squares[others_f].isfinite().all())


@every_pass
def test_denormal_entries_count(serve, name):
    for dtype, smallest in ((F32, 2.0**-149), (BF16, 2.0**-133)):
        a = torch.full((3, 9), smallest, dtype=dtype)
        with serve(name):
            out, sizes = project(a, torch.ones(9, 1, dtype=F64))
            sums, squares = contract(a, torch.ones(3, 1, dtype=F64))
        assert out.flatten().tolist() == [9 * smallest] * 3
        assert sizes.tolist() == [3 * smallest] * 3
        assert sums.flatten().tolist() == [3 * smallest] * 9
        assert squares.tolist() == [3 * smallest**2] * 9


@every_pass
def test_checks_refuse_what_they_would_misread(serve, name):
    a, v = torch.zeros(4, 6), torch.zeros(6, 2, dtype=F64)
    q = torch.zeros(4, 2, dtype=F64)
    with serve(name):
        for bad in (a.half(), a.int(), a[0], a[None], a.to("meta"), a.cfloat()):
            with pytest.raises(ValueError, match="a matrix of"):
                project(bad, v)
            with pytest.raises(ValueError, match="a matrix of"):
                contract(bad, q)
        for bad in (v.float(), v[:5], v[:, 0]):
            with pytest.raises(ValueError, match="probes are float64"):
                project(a, bad)
        for bad in (q.float(), q[:3], q[:, 0]):
            with pytest.raises(ValueError, match="probes are float64"):
                contract(a, bad)


# ---- ranking -----------------------------------------------------------------------------------


def words_of(count, seed):
    raw = torch.randint(0, 256, (count * 8,), generator=torch.Generator().manual_seed(seed))
    return raw.to(torch.uint8).view(torch.int64)


@every_pass
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 8191, 8192, 16383, 16384])
def test_ranking_is_the_order_of_the_words(serve, name, count):
    for seed in range(3):
        words = words_of(count, seed)
        with serve(name):
            index = ranking(words)
            strided = ranking(torch.stack([words, words]).mT[:, 0])
        assert index.dtype == torch.int32
        assert torch.equal(index.long(), words.argsort())
        assert torch.equal(strided, index)


@every_pass
@pytest.mark.parametrize("count", [2, 3, 100, 1500])
def test_words_that_share_their_leading_bits_still_give_their_order(serve, name, count):
    low = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for first in (0, -(2**63), 2**63 - 1 - count, -1 - count, -(count // 2)):
        words = low + first
        with serve(name):
            assert torch.equal(ranking(words).long(), words.argsort())


@every_pass
@pytest.mark.parametrize("count", [2, 3, 64, 1000])
def test_equal_words_give_a_permutation_all_the_same(serve, name, count):
    for words in (torch.zeros(count, dtype=torch.int64), words_of(count, 1) // 2**60, words_of(count, 2) % 2):
        with serve(name):
            index = ranking(words)
        assert sorted(index.tolist()) == list(range(count))
        assert bool((words[index.long()].diff() >= 0).all())


@every_pass
def test_ranking_refuses_other_words(serve, name):
    with serve(name):
        for bad in (torch.zeros(4), torch.zeros(4, dtype=torch.int32), torch.zeros(2, 2, dtype=torch.int64)):
            with pytest.raises(ValueError, match="int64"):
                ranking(bad)
