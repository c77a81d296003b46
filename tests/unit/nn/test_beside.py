"""What stands beside a protected model: adapters, gradient scalers, inference modes, moves."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session
from tempo.errors import UsageError

LAST = "last weighted layer: its gradient gives away labels"


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        assert session.report().quarantined == []


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))


def where(session):
    return {row.module: row.reason if not row.offloaded else None for row in session.report().rows}


def sent(session):
    return {row.module: row.calls for row in session.report().rows if row.offloaded}


# ---- adapters beside the last layer ---------------------------------------------------------------


class Adapted(nn.Module):
    """As PEFT wraps a layer: the base, two factors beside it, and the base's weight as its own."""

    def __init__(self, base, rank=64):
        super().__init__()
        self.base_layer = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


@pytest.mark.security
def test_a_last_layer_stays_with_the_adapters_around_it(session):
    """Attack: labels from the gradient of the base layer, which is no longer the last one registered."""
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), Adapted(nn.Linear(64, 64)))
    session.protect(net)
    net(torch.randn(96, 64)).square().sum().backward()
    assert where(session) == {"0": None, "2.base_layer": LAST, "2.down": LAST, "2.up": LAST}


@pytest.mark.security
def test_adapters_that_are_put_around_it_after_protecting_stay_too(session):
    """Attack: labels, where PEFT comes after protect and its factors are as wide as a block."""
    net = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)))
    net[2] = Adapted(net[2])
    net[0] = Adapted(net[0])
    net(torch.randn(96, 64)).square().sum().backward()
    rows = {(row.module, row.reason): row.calls for row in session.report().rows}
    # The factors are no modules that protect met: they run in the name of what is around them.
    assert rows == {("0", ""): 1, ("Sequential", ""): 2, ("2", LAST): 1, ("Sequential", LAST): 2}


@pytest.mark.security
def test_adapters_around_the_copy_of_a_last_layer_stay_too(session):
    """Attack: labels, from a copy that asks the original what hangs in the place of its last layer."""
    net = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)))
    other = copy.deepcopy(net)
    other[2] = Adapted(other[2])
    other(torch.randn(96, 64)).square().sum().backward()
    rows = {(row.module, row.reason): row.calls for row in session.report().rows}
    assert rows == {("0", ""): 1, ("2", LAST): 1, ("Sequential", LAST): 2}


@pytest.mark.security
def test_adapters_around_a_layer_that_is_never_sent_stay_too(session):
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, 64))
    session.protect(net, place={"0": "never"})
    net[0] = Adapted(net[0])
    net(torch.randn(96, 64)).square().sum().backward()
    rows = {(row.module, row.offloaded): row.calls for row in session.report().rows}
    assert rows == {("0", False): 1, ("Sequential", False): 2, ("2", True): 1, ("3", False): 1}


def test_it_can_be_sent_on_purpose(session):
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), Adapted(nn.Linear(64, 64)))
    session.protect(net, unsafe_offload=["2"])
    net(torch.randn(96, 64))
    assert all(row.offloaded for row in session.report().rows)


def test_a_weight_of_the_models_own_makes_it_no_wrapper(session):
    class Own(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.weight = nn.Parameter(torch.randn(64, 64))

    net = session.protect(Own(nn.Linear(64, 64), nn.Linear(64, 64)))
    net(torch.randn(96, 64))
    assert where(session) == {"0": None, "1": LAST}


# ---- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_grad_scaler_sees_what_it_would_see(session, dtype):
    """Losses scaled up, one overflow that it has to skip, and scales that follow."""
    x, labels = torch.randn(4, 96, 64), torch.randint(8, (4, 96))

    def train(net):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        seen = []
        for step in range(4):
            with torch.autocast("cpu", dtype):
                loss = F.cross_entropy(net(x[step]).float(), labels[step])
            loss = loss * float("inf") if step == 2 else loss
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            seen.append((loss.item(), scaler.get_scale()))
        return seen

    plain = train(model())
    protected = train(session.protect(model()))
    assert [scale for _, scale in protected] == [scale for _, scale in plain]
    assert plain[2][1] < plain[1][1], "it skipped"
    for (a, _), (b, _) in zip(protected, plain):
        assert a == b or abs(a - b) < 2e-2
    assert sent(session) == {"0": 4, "2": 4}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_modes(session, mode):
    net, x = model().eval(), torch.randn(96, 64)
    want = net(x).detach()
    session.protect(net)
    with mode():
        got = net(x)
    torch.testing.assert_close(got.clone(), want)
    assert not got.requires_grad
    assert got.is_inference() == (mode is torch.inference_mode)
    net(x).sum().backward()  # training goes on


def test_moves_that_change_nothing_and_one_that_cannot_be(session):
    net, x = model(), torch.randn(96, 64)
    session.protect(net)
    want = net(x)
    torch.testing.assert_close(net.to("cpu").cpu().float().train(False).requires_grad_(True)(x), want)
    with pytest.raises(UsageError, match="protected already"):
        session.protect(net)
