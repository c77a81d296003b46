"""Training in many chunks: the losses of plain PyTorch, with workers that die and lie in mid-stream."""

from __future__ import annotations

import pytest
import torch
from test_training import convnet, difference, mlp, plain, processes, setup, train
from torch import nn

import tempo
from tempo.chunks import Cut
from tempo.fleet import Fleet
from tempo.memory import Pool
from tempo.worker import Lie, LieKind

CHUNKS = 4


@pytest.fixture
def many_chunks(monkeypatch):
    """Four chunks a worker, as far as there are rows, however small the operation."""

    def cut(counts, k, n, speeds, *, chunk, dw):
        lanes = list(range(len(speeds))) * CHUNKS
        return Cut([speeds[lane] for lane in lanes], lanes, 1)

    monkeypatch.setattr("tempo.engine.cut", cut)
    # Equal shares in every step, so that each worker gets the jobs that its lie is about.
    monkeypatch.setattr(Fleet, "speeds", property(lambda fleet: [1.0] * fleet.width))


@pytest.mark.parametrize(("make", "scheme"), [(mlp, "mixing"), (mlp, "monomial"), (convnet, "mixing")])
@pytest.mark.parametrize("key_shift", [True, False])
def test_losses_equal_plain_trainings(many_chunks, make, scheme, key_shift):
    model, images, labels = setup(make, torch.float64)
    with tempo.Session("cpu", scheme=scheme, key_shift=key_shift, min_size=16, block=16) as session:
        losses = train(session.protect(model), images, labels, steps=20)
        report = session.report()
        jobs = session._fleet.stats.jobs
    assert difference(losses, plain(make, torch.float64)[:20]) < 1e-8
    assert (report.checks_failed, report.retries, report.local_fallbacks) == (0, 0, 0)
    offloaded = [row for row in report.rows if row.offloaded]
    assert sum(jobs.values()) >= 20 * len(offloaded) * 3 * 3, "forward, dX and dW in three chunks or more"
    if key_shift:
        assert report.encodings == 3 * len(offloaded) * 20, "chunks do not count as encodings"


@pytest.mark.security
@pytest.mark.parametrize("kind", [LieKind.FLIP_ENTRY, LieKind.HALF_FRAME, LieKind.EXIT])
@pytest.mark.parametrize("step", [0, 5], ids=["forward", "later"])
def test_a_worker_fails_in_mid_stream_and_another_lies(many_chunks, kind, step):
    """While other chunks of the same operation are sealed, on their way, and waiting to be opened. The
    first worker gets two chunks of four: its second job of a round fails."""
    model, images, labels = setup(mlp, torch.float64)
    jobs = 2 * 3 * 2 * step
    lies = (Lie(kind, first=jobs + 1), Lie(LieKind.SCALE, first=jobs + 9), None)
    with processes(*lies, min_size=16, block=16) as (session, _):
        losses = train(session.protect(model), images, labels, steps=20)
        report = session.report()
    assert difference(losses, plain(mlp, torch.float64)[:20]) < 1e-8
    assert report.local_fallbacks == 0
    assert "w1" in report.quarantined
    said = [event.kind.value for event in report.events if event.worker == "w0"]
    assert said[0] == ("check_failed" if kind is LieKind.FLIP_ENTRY else "lost")
    assert report.checks_failed == 1 + (kind is LieKind.FLIP_ENTRY)


@pytest.mark.parametrize("workers", ["local:1", "local:2"])
def test_a_large_layer_is_streamed_in_chunks_and_memory_is_reused(workers, monkeypatch):
    pools, make = [], Pool.__init__
    monkeypatch.setattr(Pool, "__init__", lambda pool, *a: (make(pool, *a), pools.append(pool))[0])
    torch.manual_seed(0)
    layer, x = nn.Linear(256, 512), torch.randn(30_000, 256, requires_grad=True)
    g = torch.randn(30_000, 512)
    y = layer(x)
    y.backward(g)
    exact = [t.detach().clone() for t in (y, x.grad, layer.weight.grad, layer.bias.grad)]
    with tempo.Session(workers) as session:
        session.protect(layer)
        mapped = []
        for _ in range(6):
            layer.zero_grad()
            x.grad = None
            y = layer(x)
            y.backward(g)
            mapped.append(sum(pool.mapped for pool in pools))
        jobs = session._fleet.stats.jobs
        assert session.report().checks_failed == 0
    for got, want in zip((y.detach(), x.grad, layer.weight.grad, layer.bias.grad), exact):
        assert float((got - want).norm() / want.norm()) < 1e-4
    assert sum(jobs.values()) >= 6 * 3 * 2 * len(jobs)
    # How many chunks wait at once depends on timing, so a late block or two may join.
    assert 3 <= mapped[0] <= mapped[2] <= mapped[-1] <= mapped[2] + 2
