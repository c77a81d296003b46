"""Every lie of the malicious worker, in the forward product and in both gradients, under every scheme: the
training run is that of plain PyTorch, the worker is named and left alone, nothing hangs."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import torch
from torch import nn

import tempo
from tempo.fleet import DeviceWorker, EventKind, Fleet, Worker
from tempo.fleet.client import Client
from tempo.wire import Channel, decode_request
from tempo.worker import Lie, LieKind, MaliciousWorker
from tempo.worker.executor import Executor

STEPS = 4
#: Jobs of one step on one worker, in order: which of them is lied about.
JOBS = ("product", "product", "grad_w", "grad_x", "grad_w")
#: A process of its own is needed for this one: tests/e2e/test_fleet.py.
KINDS = [kind for kind in LieKind if kind is not LieKind.EXIT]
#: What only a missed deadline, or a stream out of step, gives away; the rest a check or the protocol does.
FLEET = tempo.FleetSettings(deadline_base_s=1.0, quarantine_s=3600.0, hedge_least_s=60.0)


class Liar(Worker):
    """A `MaliciousWorker` on the other end of a socket pair."""

    def __init__(self, name, lie):
        self.name = name
        ours, theirs = socket.socketpair()
        self._client = Client(ours, name)
        served = MaliciousWorker(Channel(theirs, decode_request), Executor("cpu", 1 << 30), lie)
        self._thread = threading.Thread(target=served.serve, daemon=True)
        self._thread.start()
        self._connected = False

    def connect(self):
        if not self._connected:
            self._client.handshake(time.monotonic() + 10)
            self._connected = True

    def run(self, job, ship, deadline):
        return self._client.run(job, ship, deadline)

    def release(self, ids, deadline):
        self._client.release(ids, deadline)

    def close(self):
        self._client.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    bytes_sent = property(lambda self: self._client.bytes_sent)
    bytes_received = property(lambda self: self._client.bytes_received)


def train(model):
    g = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(256, 64, dtype=torch.float64, generator=g)
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def net():
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 10)]
    return nn.Sequential(*layers).double()


PLAIN = net()
PLAIN_LOSSES = train(PLAIN)


@pytest.mark.security
@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
@pytest.mark.parametrize("job", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_no_lie_reaches_the_model(kind, job, scheme, monkeypatch):
    # Equal shards in every step, so that an older reply of the same shape exists.
    monkeypatch.setattr(Fleet, "speeds", property(lambda fleet: [1.0] * fleet.width))
    liar = Liar("liar", Lie(kind, first=len(JOBS) + job, count=1))  # in the second step: there is a past
    model, start = net(), time.monotonic()
    with tempo.Session([liar, DeviceWorker("cpu", name="honest")], scheme=scheme, fleet=FLEET) as session:
        losses = train(session.protect(model))
        report = session.report()
    assert time.monotonic() - start < 30
    assert losses == pytest.approx(PLAIN_LOSSES, rel=1e-9, abs=0)
    for ours, plain in zip(model.parameters(), PLAIN.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    if kind is LieKind.FALSE_EVICTED and job == 3:
        # Every operand of this job was only referred to: a worker may well have dropped one.
        assert [e.kind for e in report.events] == [EventKind.EVICTED]
        return
    about = [event for event in report.events if event.worker == "liar"]
    serious = {
        EventKind.CHECK_FAILED,
        EventKind.PROTOCOL,
        EventKind.DEADLINE,
        EventKind.REFUSED,
        EventKind.LOST,
    }
    assert {event.kind for event in about} & serious, f"nothing names the lie: {about}"
    out_of_use = {EventKind.QUARANTINED, EventKind.DEADLINE, EventKind.LOST}
    assert {event.kind for event in about} & out_of_use, "the liar is still in use"
    assert all(event.detail for event in about)
    assert not [event for event in report.events if event.worker == "honest" and event.kind in serious]
    if kind in (LieKind.FLIP_ENTRY, LieKind.SCALE, LieKind.SWAP, LieKind.STALE, LieKind.NAN, LieKind.INF):
        assert report.checks_failed == 1
        assert report.quarantined == ["liar"]
        assert any(event.kind is EventKind.CHECK_FAILED and JOBS[job] in event.detail for event in about)


@pytest.mark.security
@pytest.mark.parametrize("job", [1, 2, 3])
def test_a_lie_with_nobody_else_to_ask_stops_the_step_where_the_user_says_so(job):
    """The parameters stay as they were before the step, and the error is ours."""
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    liar = Liar("liar", Lie(LieKind.SCALE, first=job, count=100))
    with tempo.Session([liar], local_fallback=False, fleet=FLEET) as session:
        with pytest.raises(tempo.TempoError, match="worker"):
            train(session.protect(model))
        assert session.report().checks_failed >= 1  # dX may be on its way already when dW fails
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then)
