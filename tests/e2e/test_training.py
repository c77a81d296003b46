"""A hundred steps, protected and plain: the same losses, with workers that lie and die in the middle."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import FleetSettings, Session
from tempo.errors import NoWorkersLeft
from tempo.fleet import Fleet, ProcessWorker
from tempo.numerics import loss_tolerance
from tempo.worker import Lie, LieKind

SCHEMES = ("monomial", "mixing")
STEPS = 100
SIDE = 6


def convnet():
    """No ReLU: where rounding takes an activation over zero its gradient jumps, and no bound holds."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.SiLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.SiLU(inplace=True),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.SiLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64 * 9, 10),
    )


def mlp():
    widths = (3 * SIDE * SIDE, 96, 64)
    layers = [nn.Flatten()]
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def setup(make, dtype):
    """Model, images and labels: ten classes that can be learned, as noisy patterns."""
    torch.manual_seed(0)
    model, batch = make().to(dtype), 24 if make is convnet else 64
    labels = torch.randint(10, (STEPS, batch))
    patterns = torch.randn(10, 3, SIDE, SIDE, dtype=torch.float64)
    images = patterns[labels] + torch.randn(STEPS, batch, 3, SIDE, SIDE, dtype=torch.float64)
    return model, images.to(dtype), labels


def train(model, images, labels, between=None, steps=STEPS):
    """An ordinary loop. between(step) runs after the forward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for step in range(steps):
        loss = F.cross_entropy(model(images[step]), labels[step])
        if between is not None:
            between(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@cache
def plain(make, dtype):
    """Losses of plain training."""
    return train(*setup(make, dtype))


def difference(losses, reference):
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


@pytest.mark.parametrize(
    ("make", "scheme", "workers"),
    [*itertools.product([mlp], SCHEMES, [1, 2, 3]), (convnet, "mixing", 2), (convnet, "monomial", 3)],
)
def test_losses_equal_plain_trainings_in_float64(make, scheme, workers):
    model, images, labels = setup(make, torch.float64)
    with Session(["cpu"] * workers, scheme=scheme, min_size=16, block=16) as session:
        losses = train(session.protect(model), images, labels)
        report = session.report()
    reference = plain(make, torch.float64)
    assert reference[-1] < 0.5 * reference[0], "it learns"
    assert difference(losses, reference) < 1e-8
    assert (report.checks_failed, report.retries, report.local_fallbacks) == (0, 0, 0)
    # Every layer sent each step: X, W and dY, once each, however many workers there are.
    offloaded = [row for row in report.rows if row.offloaded]
    assert len(offloaded) == 2
    assert report.encodings == 3 * 2 * STEPS


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("make", [convnet, mlp])
def test_losses_equal_plain_trainings_in_float32(make, scheme):
    """Within loss_tolerance: what plain float32 differs from float64 by, times the growth that three
    mixed axes and Winograd explain (docs/numerics.md, section 3)."""
    model, images, labels = setup(make, torch.float32)
    with Session("cpu", scheme=scheme) as session:
        losses = train(session.protect(model), images, labels)
        assert session.report().checks_failed == 0
    single, exact = plain(make, torch.float32), plain(make, torch.float64)
    allowed = loss_tolerance(single, exact)
    gaps = [abs(a - b) for a, b in zip(losses, single)]
    assert all(gap <= bound for gap, bound in zip(gaps, allowed))
    # A bound that a wrong result would fail: one step missed differs by far more.
    assert max(abs(a - b) for a, b in zip(single[1:], single)) > max(allowed)


def test_every_option_at_once_trains_the_same():
    model, images, labels = setup(convnet, torch.float64)
    options = {"key_shift": False, "weight_uses": 1, "probes": 1, "rounds": 1}
    with Session(["cpu", "cpu"], **options) as session:
        losses = train(session.protect(model, unsafe_offload=["8"]), images, labels, steps=8)
    assert difference(losses, plain(convnet, torch.float64)[:8]) < 1e-8


# ---- with faults ----------------------------------------------------------------------------------


@contextlib.contextmanager
def processes(*lies, **options):
    """A session on one worker process for each lie, or None for an honest one; and the workers."""
    workers = [ProcessWorker(f"w{i}", unsafe_lie=lie) for i, lie in enumerate(lies)]
    # On a busy machine an honest worker may be late, and what is asserted of events is about lies.
    options.setdefault("fleet", FleetSettings(hedge_least_s=60.0))
    with Session(workers, **options) as session:
        yield session, workers


@pytest.mark.security
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_worker_lies_and_one_is_killed_in_the_middle(scheme):
    model, images, labels = setup(mlp, torch.float64)
    lies = (Lie(LieKind.FLIP_ENTRY, first=6 * 20 + 1), None, None)
    with processes(*lies, scheme=scheme, min_size=16, block=16) as (session, workers):

        def between(step):
            if step == 60:
                os.kill(workers[1].pid, signal.SIGKILL)

        losses = train(session.protect(model), images, labels, between)
        report = session.report()
    assert difference(losses, plain(mlp, torch.float64)) < 1e-8
    assert (report.checks_failed, report.quarantined) == (1, ["w0"])
    assert report.retries >= 1
    assert report.local_fallbacks == 0
    kinds = [(event.kind.value, event.worker) for event in report.events]
    assert ("check_failed", "w0") in kinds
    assert ("lost", "w1") in kinds


@pytest.mark.security
@pytest.mark.parametrize("kind", [LieKind.SCALE, LieKind.SWAP, LieKind.STALE, LieKind.NAN, LieKind.ZEROS])
def test_lies_of_every_kind_at_every_operation(kind, monkeypatch):
    """A worker whose quarantine is short lies about every third job, a few times."""
    # Equal shards in every step, so that there are older replies of the same shape.
    monkeypatch.setattr(Fleet, "speeds", property(lambda fleet: [1.0] * fleet.width))
    model, images, labels = setup(mlp, torch.float64)
    fleet = FleetSettings(quarantine_s=1e-3, hedge_least_s=60.0)
    lie = Lie(kind, first=2, count=7)
    with processes(lie, None, scheme="mixing", min_size=16, block=16, fleet=fleet) as (session, _):
        losses = train(session.protect(model), images, labels, steps=12)
        report = session.report()
    assert difference(losses, plain(mlp, torch.float64)[:12]) < 1e-8
    assert report.checks_failed >= 3
    assert report.quarantined == ["w0"]


@pytest.mark.security
def test_with_no_worker_left_the_master_goes_on():
    model, images, labels = setup(mlp, torch.float64)
    with processes(None) as (session, workers):

        def between(step):
            if step == 3:
                os.kill(workers[0].pid, signal.SIGKILL)

        losses = train(session.protect(model), images, labels, between, steps=10)
        report = session.report()
    assert difference(losses, plain(mlp, torch.float64)[:10]) < 1e-8
    assert report.local_fallbacks >= 2 * 6
    assert report.quarantined == []
    assert [event.kind.value for event in report.events] == ["lost"]


@pytest.mark.security
def test_with_no_worker_left_it_raises_if_told_so_and_nothing_advanced():
    model, images, labels = setup(mlp, torch.float64)
    with processes(None, local_fallback=False) as (session, workers):
        session.protect(model)
        train(model, images, labels, steps=2)
        before = [p.detach().clone() for p in model.parameters()]

        def between(step):
            os.kill(workers[0].pid, signal.SIGKILL)

        with pytest.raises(NoWorkersLeft):
            train(model, images, labels, between, steps=1)
        with pytest.raises(NoWorkersLeft):  # in the forward pass now
            train(model, images, labels, steps=1)
        report = session.report()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert report.local_fallbacks == 0
    plain_again = train(session.unprotect(model), images, labels, steps=1)
    assert plain_again[0] > 0
