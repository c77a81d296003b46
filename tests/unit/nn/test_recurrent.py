"""LSTM, GRU, RNN and their cells taken apart, against PyTorch's own kernels in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from tempo import Session

MODULES = {
    "LSTM": lambda **o: nn.LSTM(6, 5, **o),
    "LSTM, projected": lambda **o: nn.LSTM(6, 5, proj_size=3, **o),
    "GRU": lambda **o: nn.GRU(6, 5, **o),
    "RNN": lambda **o: nn.RNN(6, 5, **o),
    "RNN, relu": lambda **o: nn.RNN(6, 5, nonlinearity="relu", **o),
}
OPTIONS = [
    {},
    {"bias": False, "num_layers": 2},
    {"bidirectional": True, "batch_first": True},
    {"bidirectional": True, "num_layers": 3, "dropout": 0.4},
]


def r(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def flat(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [t for each in out for t in flat(each)]


def agree(make, call, *inputs):
    """Results and gradients of a module, plain and protected; the report of what ran."""
    torch.manual_seed(3)
    plain = make().double()
    model = copy.deepcopy(plain)
    gradients = []
    with Session("cpu", min_size=0, unsafe_small=True) as session:
        session.protect(model)
        outs = []
        for net in (plain, model):
            torch.manual_seed(4)
            outs.append(flat(call(net)))
            torch.manual_seed(5)
            loss = sum((t * torch.randn_like(t)).sum() for t in outs[-1])
            gradients.append(torch.autograd.grad(loss, [*inputs, *net.parameters()], allow_unused=True))
        report = session.report()
    for got, want in zip(outs[1], outs[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    for got, want in zip(gradients[1], gradients[0], strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    assert report.checks_failed == 0
    return report


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", list(MODULES))
def test_sequences(name, options):
    x = r(4, 7, 6)
    report = agree(lambda: MODULES[name](**options), lambda net: net(x), x)
    assert report.offloaded_flops > 0


@pytest.mark.parametrize("name", list(MODULES))
def test_a_state_to_begin_with(name):
    x, h, c = r(4, 7, 6), r(2, 7, 3 if "projected" in name else 5), r(2, 7, 5)
    state = (h, c) if "LSTM" in name else h
    initial = (x, h, c) if "LSTM" in name else (x, h)
    agree(lambda: MODULES[name](num_layers=2), lambda net: net(x, state), *initial)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", list(MODULES))
def test_packed_sequences_of_unequal_length(name, both):
    x, lengths = r(5, 4, 6), torch.tensor([2, 5, 1, 3])

    def call(net):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        out, state = net(packed)
        return pad_packed_sequence(out)[0], state

    agree(lambda: MODULES[name](num_layers=2, bidirectional=both, dropout=0.3), call, x)


def test_one_sequence_without_a_batch():
    x = r(4, 6)
    agree(lambda: nn.LSTM(6, 5), lambda net: net(x), x)


@pytest.mark.parametrize("make", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(make):
    x, h, c = r(3, 6), r(3, 5), r(3, 5)
    state = (h, c) if make is nn.LSTMCell else h
    initial = (x, h, c) if make is nn.LSTMCell else (x, h)
    agree(lambda: make(6, 5), lambda net: net(x, state), *initial)


@pytest.mark.parametrize("name", list(MODULES))
def test_every_flop_is_offloaded_or_listed(name):
    """By PyTorch's counter, which sees the kernels' products in float64."""
    model, x = MODULES[name](num_layers=2).double(), r(4, 7, 6)
    with FlopCounterMode(display=False) as counter:
        model(x)[0].sum().backward()
    with Session("cpu", min_size=0, unsafe_small=True) as session:
        session.protect(model)(x)[0].sum().backward()
        report = session.report()
    assert report.offloaded_flops + report.kept_flops == counter.get_total_flops() > 0


def test_a_kept_layer_runs_whole():
    model, x = nn.Sequential(nn.LSTM(6, 5)).double(), r(4, 7, 6)
    want = model(x)[0]
    with Session("cpu", min_size=0, unsafe_small=True) as session:
        got = session.protect(model, keep=["0"])(x)[0]
        assert torch.equal(got, want)
        assert [(row.offloaded, row.reason) for row in session.report().rows] == [(False, "kept by the user")]


def test_bfloat16_autocast():
    """The dtype that PyTorch's autocast gives, computed in float32."""
    model, x = nn.GRU(64, 64), torch.randn(5, 64, 64)
    with Session("cpu") as session, torch.autocast("cpu", torch.bfloat16):
        want = model(x)[0]
        got = session.protect(model)(x)[0]
        assert session.report().offloaded_flops
    assert got.dtype == want.dtype
    assert float((got.float() - want.float()).detach().abs().max()) < 0.05
    assert float(F.mse_loss(got.float(), want.float()).detach()) < 1e-4
