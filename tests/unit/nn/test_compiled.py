"""Compiled parts of a protected model: kept and run as compiled, or refused with what to do."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session
from tempo.errors import UnsupportedError
from tempo.nn.wrapped import is_protected


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        assert session.report().quarantined == []


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))


def sent(session):
    return {row.module: row.calls for row in session.report().rows if row.offloaded}


class Block(nn.Module):
    """A layer, and a part without one that is worth compiling."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.part = nn.Sequential(nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64))
        self.head = nn.Linear(64, 8)

    def forward(self, x):
        return self.head(self.part(self.layer(x)))


#: Of the compiler, which looks at .grad of everything.
compiling = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


@compiling
def test_a_compiled_part_that_is_kept_runs_compiled(session):
    torch.manual_seed(0)
    net, x = Block(), torch.randn(96, 64)
    plain = copy.deepcopy(net)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net.part = torch.compile(net.part, backend=backend, fullgraph=True)
    session.protect(net, keep=["part"])
    for _ in range(2):
        got, want = net(x), plain(x)
        torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    rows = {row.module: row for row in session.report().rows}
    assert rows["part"].reason == "kept by the user, compiled: flops not counted"
    assert (rows["part"].calls, rows["layer"].offloaded) == (2, True)
    session.unprotect(net)
    torch.testing.assert_close(net(x), plain(x))
    assert session.report().rows[0].calls == 2


@compiling
def test_a_compiled_loss_beside_a_protected_model(session):
    net, x, labels = model(), torch.randn(96, 64), torch.randint(8, (96,))
    plain = copy.deepcopy(net)
    session.protect(net)
    loss = torch.compile(F.cross_entropy, backend="eager", fullgraph=True)
    torch.testing.assert_close(loss(net(x), labels), F.cross_entropy(plain(x), labels))
    loss(net(x), labels).backward()
    assert sent(session) == {"0": 2, "2": 2}


def test_what_is_compiled_and_not_kept_is_refused_with_what_to_do(session):
    net = Block()
    net.part = torch.compile(net.part, backend="eager")
    with pytest.raises(UnsupportedError, match=r"module 'part' is compiled.*keep=\['part'\]"):
        session.protect(net)
    other = Block()
    other.part.compile(backend="eager")
    with pytest.raises(UnsupportedError, match=r"'part' was compiled in place.*torch.compile\(module\)"):
        session.protect(other)
    assert not any(is_protected(module) for net in (net, other) for module in net.modules())
    protected = session.protect(Block())
    with pytest.raises(UnsupportedError, match=r"cannot be compiled or traced.*keep=\['part'\]"):
        torch.compile(protected, backend="eager")(torch.randn(96, 64))
