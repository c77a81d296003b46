"""Adaptive lies: a worker that knows everything but the keys and learns from what is accepted; every named
tampering above the stated threshold, in a session; and what a worker does that stays below the bound."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import tempo
from tempo.bench.adaptive_liar import Searcher, search
from tempo.bench.arithmetics import FORMS, job_of
from tempo.bench.below import DIRECTIONS, Below, larger
from tempo.bench.liar import Liar, added, tolerance
from tempo.bench.operands import Shape, normal, pair_of
from tempo.bench.tampers import TAMPERS, Target
from tempo.fleet import DeviceWorker, EventKind, FleetSettings
from tempo.integrity import Verifier
from tempo.integrity.guarantee import probes_for, size_found
from tempo.ops import Op
from tempo.secrecy.keys import SessionKey

pytestmark = pytest.mark.security

STEPS = 6
FORGIVING = FleetSettings(quarantine_s=1e-6)


def net():
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 10)]
    return nn.Sequential(*layers).double()


def train(model, losses, steps=STEPS):
    """An ordinary loop; `losses` is its log."""
    g = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        loss = model(torch.randn(256, 64, dtype=torch.float64, generator=g)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


PLAIN = train(net(), [])


# ---- one that learns ----------------------------------------------------------------------------------


def target():
    """A product with rows of 16 entries, few enough to learn a direction among them."""
    g, shape = torch.Generator().manual_seed(4), Shape("", (4,), 64, 16)
    return job_of(Op.PRODUCT, *pair_of(Op.PRODUCT, shape, normal, g), shape.rows, FORMS[0])


@pytest.mark.parametrize("t", [1e-3, 1e-6])
def test_learning_from_accept_and_reject_does_not_get_above_the_threshold(t):
    """Attack: 1,500 rounds of an optimiser that is told what was accepted. Above the stated threshold as
    many lies pass as chance allows, and none that is ten times the threshold."""
    probes = probes_for(t)
    verifier, searcher = Verifier(SessionKey(), probes), Searcher(16, probes, seed=1)
    found = search(target(), verifier, searcher, rounds=1500, threshold=size_found(t, probes))
    assert found.above > 150
    assert found.passed <= 4 + 4 * t * found.above
    assert found.largest < 10 * size_found(t, probes)
    assert found.refused > 1000


def test_the_same_optimiser_breaks_a_check_that_uses_a_probe_twice(monkeypatch):
    """What the test above is worth: with one probe for all replies, which no verifier here does, the liar
    finds out what it is and lies without limit."""
    verifier, searcher = Verifier(SessionKey(), 1), Searcher(16, 1, seed=1)
    fixed = verifier.probe(16)
    monkeypatch.setattr(verifier, "probe", lambda width: fixed)
    found = search(target(), verifier, searcher, rounds=3000, threshold=size_found(1e-3, 2))
    assert found.passed > 50
    assert found.largest > 3 * size_found(1e-3, 2)


class Learner(Liar):
    """Lies about every reply, and takes a pause as long as a quarantine for a refusal."""

    def __init__(self, name, probes, quarantine_s):
        super().__init__(name)
        self._probes, self._quarantine_s = probes, quarantine_s
        self._searchers, self._asked, self._at = {}, None, 0.0
        self.sizes = []

    def forge(self, job, true):
        if self._asked is not None:
            self._asked.told(time.monotonic() - self._at < self._quarantine_s)
        outer = true.shape[-1]
        self._asked = self._searchers.setdefault(outer, Searcher(outer, self._probes, seed=outer))
        d = torch.zeros(true.numel() // outer, outer, dtype=torch.float64)
        direction = self._asked.propose()
        row = len(self.sizes) % len(d)
        d[row] = float(tolerance(job, true)[row]) * direction
        self.sizes.append(float(direction.norm()))
        self._at = time.monotonic()
        return added(true, d)


def test_a_learner_in_a_session_is_out_of_use_before_it_has_learnt(tmp_path):
    """Attack: the optimiser as a worker, which infers from quarantine what was refused. Quarantine doubles,
    so it gets few tries; training goes on as if it were not there."""
    fleet = FleetSettings(quarantine_s=0.05)
    learner, model, losses = Learner("learner", probes_for(1e-6), 0.05), net(), []
    with tempo.Session([learner, DeviceWorker("cpu", name="honest")], integrity=1e-6, fleet=fleet) as session:
        train(session.protect(model), losses)
        report = session.report()
    assert losses == pytest.approx(PLAIN, rel=1e-9, abs=0)
    assert 1 <= report.checks_failed <= len(learner.sizes)
    assert report.quarantined == ["learner"]
    # What passed is no larger than what is promised to be found.
    threshold = size_found(1e-6, probes_for(1e-6))
    refused = sum(event.kind is EventKind.CHECK_FAILED for event in report.events)
    assert refused >= sum(size > threshold for size in learner.sizes)


# ---- every named tampering ----------------------------------------------------------------------------


class Tampering(Liar):
    """Adds a named lie of a given size in tolerances to every reply from the second on."""

    def __init__(self, name, tamper, size):
        super().__init__(name)
        self._tamper, self._size, self._replies = tamper, size, 0
        self._generator = torch.Generator().manual_seed(5)

    def forge(self, job, true):
        self._replies += 1
        if self._replies == 1:
            return true
        y = true.reshape(-1, true.shape[-1]).double()
        of = Target(job, y, tolerance(job, true))
        return added(true, self._tamper.lie(of, self._size, self._generator))


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda t: t.name)
def test_model_and_log_do_not_advance_before_the_recovery(tamper):
    """Attack: the named tampering, 300 times the tolerance; with t = 1e-9 none of these lies gets through."""
    assert size_found(1e-9, probes_for(1e-9)) < 300
    model, losses = net(), []
    before = [p.detach().clone() for p in model.parameters()]
    alone = Tampering("liar", tamper, 300.0)
    with tempo.Session([alone], integrity=1e-9, local_fallback=False) as session:
        with pytest.raises(tempo.TempoError, match="worker"):
            train(session.protect(model), losses)
        report = session.report()
    assert losses == []
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert report.checks_failed >= 1
    assert report.quarantined == ["liar"]

    workers = [Tampering("liar", tamper, 300.0), DeviceWorker("cpu", name="honest")]
    with tempo.Session(workers, integrity=1e-9, fleet=FORGIVING) as session:
        train(session.protect(net()), losses)
        report = session.report()
    assert losses == pytest.approx(PLAIN, rel=1e-9, abs=0)
    assert report.checks_failed >= 1
    assert report.quarantined == ["liar"]


# ---- one that stays below -----------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_staying_below_the_bound_is_hardly_found_and_does_as_little(direction):
    """Attack: every reply moved by the largest amount that the liar's own probes do not find, in the worst
    direction it knows. In float64 that is nothing anybody will notice."""
    worker, losses = Below("liar", (0.5, 0.25, 0.12, 0.05), DIRECTIONS[direction]), []
    with tempo.Session([worker], fleet=FORGIVING) as session:
        train(session.protect(net()), losses, steps=3)
        report = session.report()
    assert worker.replies >= 5 * 3
    assert worker.size > 0
    assert report.checks_failed <= 2  # each of its lies is found about one time in 200
    assert losses == pytest.approx(PLAIN[:3], rel=1e-8, abs=0)


def test_ten_tolerances_in_every_row_are_not_below():
    """Attack: all rows moved outwards by ten tolerances. Rows point everywhere, so one of them is found."""
    model, losses = net(), []
    with tempo.Session([Below("liar", (), larger)]) as session:
        train(session.protect(net()), losses, steps=2)
        assert session.report().checks_failed == 0
    greedy = Below("liar", (10.0,), larger)
    greedy._largest = lambda job, true, d: 10.0
    with tempo.Session([greedy], local_fallback=False) as session:
        before, losses = [p.detach().clone() for p in model.parameters()], []
        with pytest.raises(tempo.TempoError, match="worker"):
            train(session.protect(model), losses)
        assert session.report().checks_failed >= 1
    assert losses == []
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
