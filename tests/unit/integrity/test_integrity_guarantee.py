"""integrity = t: how many probes it takes, and what is promised for them. Both sides of every promise."""

import math

import pytest
import torch

import tempo
from tempo.errors import UsageError
from tempo.integrity import Verifier
from tempo.integrity.freivalds import judge, prove
from tempo.integrity.guarantee import (
    LEAST_MISS,
    STATED_MISS,
    STATED_SIZE,
    guarantee,
    missed,
    probes_for,
    size_found,
)
from tempo.ops import Arithmetic, Job, Op, Operand, compute
from tempo.secrecy.keys import SessionKey

FP32, BF16 = torch.float32, torch.bfloat16
FULL = Arithmetic.FP32


def stated(left=FP32, right=FP32, arithmetic=FULL, inner=768, outer=512, probes=2, miss=1e-3, op=Op.PRODUCT):
    return guarantee(op, left, right, arithmetic, inner=inner, outer=outer, probes=probes, miss=miss)


@pytest.mark.parametrize("probes", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("t", [0.5, 1e-2, 1e-3, 1e-6, 1e-12])
def test_the_size_that_is_found_is_the_one_that_is_missed_with_t(t, probes):
    size = size_found(t, probes)
    assert missed(size, probes) == pytest.approx(t, rel=1e-3)
    assert missed(1.1 * size, probes) < t < missed(0.9 * size, probes)


def test_the_approximation_for_small_t_is_on_the_safe_side_and_joins():
    assert size_found(0.999e-6, 1) == pytest.approx(size_found(1.001e-6, 1), rel=3e-3)
    assert missed(size_found(1e-9, 1), 1) <= 1e-9 * (1 + 1e-6)


def test_a_miss_is_measured():
    """|D . r| <= T for standard normal r: the formula against draws."""
    g = torch.Generator().manual_seed(0)
    for size in (0.5, 2.0, 8.0):
        d = torch.randn(50, generator=g, dtype=torch.float64)
        d *= size / d.norm()
        r = torch.randn(50, 2, 40_000, generator=g, dtype=torch.float64)
        passed = (torch.einsum("n,npt->pt", d, r).abs() <= 1).all(0).double().mean()
        deviation = (missed(size, 2) / 40_000) ** 0.5
        assert abs(float(passed) - missed(size, 2)) < 5 * deviation


def test_probes_are_as_few_as_do():
    assert [probes_for(t) for t in (0.5, 1e-2, 1e-3, 1e-6, 1e-9, LEAST_MISS)] == [1, 2, 3, 6, 9, 11]
    for t in (0.3, 1e-2, 1e-4, 1e-7, LEAST_MISS):
        probes = probes_for(t)
        assert missed(STATED_SIZE, probes) <= t * (1 + 1e-9)
        assert probes == 1 or missed(STATED_SIZE, probes - 1) > t
    for t in (0.0, -1.0, 1.0, 2.0, 1e-13, float("nan")):
        with pytest.raises(UsageError, match="probability"):
            probes_for(t)


def test_the_formula_for_operands_that_are_multiplied_as_sent():
    """Against a second writing: 6 sqrt(K) u sizes of a probe, and the round-off of the check."""
    for dtype, u in ((FP32, 2.0**-24), (torch.float64, 2.0**-53)):
        found = stated(dtype, dtype, inner=1000, outer=300)
        summed = 6 * (1000**0.5 * u + (1000**0.5 + 2 * 300**0.5) * 2.0**-53)
        assert found.of_norms == pytest.approx(size_found(1e-3, 2) * summed, rel=1e-6)
        assert found.of_row == pytest.approx(1000**0.5 * found.of_norms, rel=1e-9)


def test_more_probes_or_a_larger_t_find_smaller_lies():
    for form in ((FP32, FP32, FULL), (FP32, FP32, Arithmetic.TF32), (BF16, BF16, FULL)):
        by_probes = [stated(*form, probes=p).of_row for p in (2, 3, 4, 8)]
        assert by_probes == sorted(by_probes, reverse=True)
        by_miss = [stated(*form, miss=t, probes=4).of_row for t in (1e-6, 1e-3, 1e-1)]
        assert by_miss == sorted(by_miss, reverse=True)
    rough = [stated(FP32, FP32, a).of_row for a in (FULL, Arithmetic.TF32, Arithmetic.BF16)]
    assert rough == sorted(rough)


def test_the_tail_of_what_a_tolerance_is_made_of():
    """sum_n c_n^2 r_n^2 > phi(x)^2 ||c||^2 with exp(-x) at most, also where one entry is all of c."""
    g = torch.Generator().manual_seed(1)
    for c in (torch.tensor([1.0]), torch.ones(100) / 10, torch.tensor([3.0, 1.0]) / 10**0.5):
        sums = (c * torch.randn(200_000, len(c), generator=g)).square().sum(1)
        for x in (0.5, 1.0, 3.0, 6.0):
            share = float((sums > 1 + 2 * x**0.5 + 2 * x).double().mean())
            assert share <= math.exp(-x)


def passed(job, reply, probes, trials=2000):
    found = judge(prove(Verifier(SessionKey(), probes * trials), [job])[job], reply)
    within = found.within.view(found.small.numel(), trials, probes).all(2) & found.small.unsqueeze(1)
    return int(within.all(0).sum()) / trials


def job_of(x, w):
    pair = [Operand(i, tuple(t.shape), t.dtype, t) for i, t in enumerate((x, w))]
    return Job(Op.PRODUCT, *pair, (len(x),))


@pytest.mark.security
@pytest.mark.parametrize("entries", [1, 128])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_a_lie_just_above_the_promise_is_found(dtype, entries):
    """Attack: the liar moves one row by what is promised to be found, all of it in `entries` entries. In
    bfloat16 one entry alone is worst: the tolerance then grows with the very probe that finds the lie."""
    g, probes, t = torch.Generator().manual_seed(2), 4, 0.05
    x = torch.randn(1, 96, generator=g).to(dtype)
    w = torch.randn(1, 128, 96, generator=g).to(dtype)
    job, true = job_of(x, w), compute(Op.PRODUCT, x, w, (1,))
    promised = stated(dtype, dtype, inner=96, outer=128, probes=probes, miss=t)
    norms = float(x.double().norm() * w.double().norm())
    assert promised.of_norms < 1
    d = torch.zeros(1, 128, dtype=torch.float64)
    d[:, :entries] = torch.randn(1, entries, generator=g, dtype=torch.float64)
    d *= promised.of_norms * norms / d.norm()
    assert passed(job, (true.double() + d).to(dtype), probes) <= t + 4 * (t / 2000) ** 0.5
    assert passed(job, true, probes) == 1.0
    # Far below the promise it does pass: the promise is not an empty one.
    assert passed(job, (true.double() + d / 2000).to(dtype), probes) > 0.5


# ---- the setting ------------------------------------------------------------------------------------


def test_the_setting_chooses_probes():
    assert (tempo.Config().repetitions, tempo.Config().miss) == (2, STATED_MISS)
    assert (tempo.Config(probes=5).repetitions, tempo.Config(probes=5).miss) == (5, STATED_MISS)
    assert (tempo.Config(integrity=1e-6).repetitions, tempo.Config(integrity=1e-6).miss) == (6, 1e-6)
    assert tempo.Config(integrity=1e-6).chosen() == {"scheme": "mixing", "integrity": 1e-6}


@pytest.mark.parametrize("t", [0.0, 1.0, -1e-3, 0.6, 1e-13, float("nan")])
def test_a_t_that_cannot_be(t):
    with pytest.raises(UsageError, match="setting integrity"):
        tempo.Config(integrity=t)


def test_both_settings_are_refused():
    for probes in (2, 3):
        with pytest.raises(UsageError, match="leave one of them out"):
            tempo.Config(integrity=1e-3, probes=probes)
    with pytest.raises(UsageError, match="setting probes"):
        tempo.Config(probes=17)


def test_the_report_states_what_is_found():
    model = torch.nn.Sequential(torch.nn.Linear(96, 80), torch.nn.Tanh(), torch.nn.Linear(80, 4))
    with tempo.Session("cpu", integrity=1e-4) as session:
        assert session.report().integrity == []
        session.protect(model)(torch.randn(200, 96)).square().mean().backward()
        report = session.report()
    by_op = {each.op: each for each in report.integrity}
    assert set(by_op) == {"product", "grad_w"}
    assert (by_op["product"].inner, by_op["product"].outer) == (96, 80)
    assert (by_op["grad_w"].inner, by_op["grad_w"].outer) == (200, 96)
    assert {(each.probes, each.miss, each.dtype) for each in report.integrity} == {(4, 1e-4, "float32")}
    assert by_op["product"] == stated(inner=96, outer=80, probes=4, miss=1e-4)
    assert "is missed with probability 0.0001 at most" in str(report)
    assert report.to_dict()["integrity"][0]["probes"] == 4
