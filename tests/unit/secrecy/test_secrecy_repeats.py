"""Repeated rows: found, kept in the TEE, and multiplied once there."""

import pytest
import torch
from test_secrecy_knobs import back, near, parameter, step
from test_secrecy_sent import House, key_of, randn

from tempo.ops import Op
from tempo.secrecy.hardening import Hardening
from tempo.secrecy.repeats import distinct, gradients, repeated, survey
from tempo.secrecy.rows import row_norms

X = randn(256, 80, seed=1)


def stream():
    return key_of("repeats").stream((1,))


def pooled(rows=256, classes=8, n=96, dtype=torch.float64):
    """What mean pooling makes of a gradient."""
    return randn(classes, n, seed=3).repeat_interleave(rows // classes, 0).to(dtype)


def share(t, sent=None):
    t = t[None] if t.ndim == 2 else t
    return repeated(survey(t, stream()), torch.ones(t.shape[:2], dtype=torch.bool) if sent is None else sent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_share_of_repeated_rows(dtype, scale):
    t = pooled(dtype=dtype) * scale
    shuffled = t[torch.randperm(256, generator=torch.Generator().manual_seed(1))]
    assert share(t) == share(shuffled) == 1 - 8 / 256
    half = torch.cat([shuffled[:128], (randn(128, 96) * scale).to(dtype)])
    kinds = len(half[:128].unique(dim=0))
    assert share(half) == 1 - (128 + kinds) / 256


def test_rows_that_differ_are_not_taken_for_equal():
    """Also by as little as a thousandth, and many of them."""
    for dtype in (torch.float32, torch.float64):
        assert share(randn(20_000, 64).to(dtype)) == 0
        assert share((1 + 1e-3 * randn(2000, 64)).to(dtype)) == 0


def test_rounding_is_no_difference():
    """Most rows that differ by a round-off or two are found; steps may part a few."""
    t = pooled(classes=4, dtype=torch.float32)
    noisy = t * (1 + 6e-8 * randn(256, 96).sign().float())
    assert 0.85 < share(noisy) <= 1 - 4 / 256


def test_the_worst_group_counts_and_only_rows_that_are_sent():
    t = torch.stack([randn(256, 96), pooled()])
    assert share(t) == 1 - 8 / 256
    sent = torch.ones(2, 256, dtype=torch.bool)
    sent[1, 1:] = False
    assert share(t, sent) == 0
    assert share(torch.zeros(0, 5, 96)) == 0
    assert share(torch.zeros(1, 0, 96)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_survey_has_the_norms_that_everybody_else_has(dtype):
    for t in (randn(3, 70, 65).to(dtype), randn(3, 65, 70).to(dtype).mT, randn(2, 0, 5).to(dtype)):
        torch.testing.assert_close(survey(t, stream()).norms_GR, row_norms(t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_come_from_the_same_reading(dtype):
    for shape in ((3, 70, 65), (2, 3000, 100), (1, 2000, 90), (2, 0, 5), (0, 4, 5)):
        t = randn(*shape).to(dtype)
        for each in (t, t.mT.contiguous().mT):
            seen, alone = survey(each, stream(), sums=True), survey(each, stream())
            assert alone.sums_GF is None
            torch.testing.assert_close(seen.norms_GR, alone.norms_GR, rtol=1e-12, atol=0)
            torch.testing.assert_close(seen.marks_GRP, alone.marks_GRP, rtol=1e-12, atol=1e-12)
            assert seen.sums_GF is not None
            torch.testing.assert_close(seen.sums_GF, t.double().sum(1), rtol=0, atol=1e-10)


def test_distinct_rows_and_their_places():
    t = pooled(rows=64)[torch.randperm(64, generator=torch.Generator().manual_seed(2))]
    found = distinct(survey(t[None], stream()), 0)
    assert len(found.first) == 8
    assert torch.equal(t[found.first][found.inverse], t)
    for kind, first in enumerate(found.first.tolist()):
        assert first == int((found.inverse == kind).nonzero()[0])


def test_gradients_from_distinct_rows():
    dy = torch.stack([pooled(), randn(256, 96)])
    x, w = randn(2, 256, 80, seed=4), randn(2, 96, 80, seed=5)
    dx, dw = torch.empty(2, 256, 80, dtype=x.dtype), torch.empty(2, 96, 80, dtype=x.dtype)
    gradients(dy, survey(dy, stream()), of_x=(w, dx), of_w=(x, dw))
    near(dx, dy @ w)
    near(dw, dy.mT @ x)


@pytest.mark.security
@pytest.mark.parametrize("key_shift", [True, False])
def test_a_mean_pooled_gradient_stays(key_shift):
    with House(hardening=Hardening(repeats=0.5), key_shift=key_shift) as house:
        step(house, X, parameter(), pooled())
        assert [job[0] for job in house.spy.jobs] == [Op.PRODUCT]
        assert house.stats.count("repeated_dy") == 1
        # Others of the same layer go on as ever.
        step(house, X, parameter(), randn(256, 96, seed=7))
        assert {job[0] for job in house.spy.jobs[1:]} == set(Op)


@pytest.mark.security
def test_a_second_backward_of_repeated_rows():
    with House(hardening=Hardening(repeats=0.5)) as house:
        x, w = X, parameter()
        ticket, _ = step(house, x, w, randn(256, 96, seed=7))
        sent = len(house.spy.jobs)
        back(house, ticket, x, w, pooled())
        assert len(house.spy.jobs) == sent


@pytest.mark.security
def test_repeated_rows_of_x_stay_and_say_why():
    with House(hardening=Hardening(repeats=0.2)) as house:
        background = torch.cat([X[:180], X[:1].expand(76, 80)])
        _, ticket = house.forward(background, parameter())
        assert ticket.reason == "more than 20 % of the rows repeat"
        assert house.spy.jobs == []
        _, ticket = house.forward(X, parameter())
        assert ticket.reason is None


def test_nobody_looks_by_default():
    with House() as house:
        step(house, X, parameter(), pooled())
        assert len(house.spy.jobs) == 3
        assert "repeats" not in house.stats.seconds
