"""Weights that do not change: how often they are encoded, under which scheme, and what is said of it.

Under mixing an encoded weight hides one operand, frozen or not (docs/secrecy.md, attack 24). Shares of a
weight say nothing however often they are used.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tempo import Session

OWNERS = {"a": ["cpu"], "b": ["cpu"], "c": ["cpu"]}
SHARES = {"workers": OWNERS, "scheme": "shares", "unsafe_one_owner": True}
STEPS = 4


class Adapted(nn.Module):
    """A frozen layer with a small adapter beside it: what low-rank fine-tuning makes of a linear layer."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(64, 64).requires_grad_(False)
        self.down = nn.Linear(64, 4, bias=False)
        self.up = nn.Linear(4, 64, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def model():
    """Two frozen layers of which the second one has to hand gradients on, and a head."""
    torch.manual_seed(0)
    return nn.Sequential(Adapted(), nn.Tanh(), Adapted(), nn.Linear(64, 8))


def train(net, steps=STEPS, accumulate=1):
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        for _ in range(accumulate):
            x, labels = torch.randn(96, 64), torch.randint(8, (96,))
            loss = F.cross_entropy(net(x), labels)
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def encoded(net, *, steps=STEPS, accumulate=1, public=(), **options):
    """Encodings of W in a run whose losses are plain training's."""
    want = train(model(), steps, accumulate)
    options.setdefault("workers", "cpu")
    with Session(options.pop("workers"), **options) as session:
        losses = train(session.protect(net, public=public), steps, accumulate)
        assert losses == pytest.approx(want, rel=1e-4)
        report = session.report()
        count = session._stats.count("encoded_w")
    assert {row.module for row in report.rows if row.offloaded} == {"0.base_layer", "2.base_layer"}
    return count


@pytest.mark.security
@pytest.mark.parametrize("accumulate", [1, 3])
def test_under_mixing_a_frozen_weight_gets_a_key_for_each_operation(accumulate):
    """The default: no two operands share the bases of W. Its gradient dX uses the W' of its forward pass."""
    assert encoded(model(), accumulate=accumulate) == 2 * STEPS * accumulate


def test_under_mixing_a_key_epoch_of_a_frozen_weight_spans_steps_only_where_that_is_asked_for():
    """3 uses to an epoch: four steps take two epochs, which optimizer steps do not end."""
    assert encoded(model(), weight_uses=3, unsafe_many_uses=True) == 2 * 2
    assert encoded(model(), weight_uses=100, unsafe_many_uses=True, accumulate=2) == 2


def test_a_trained_weight_ends_its_epoch_with_the_step():
    trained = model()
    trained[0].base_layer.requires_grad_(True)
    with Session("cpu", weight_uses=100, unsafe_many_uses=True) as session:
        train(session.protect(trained), accumulate=2)
        assert session._stats.count("encoded_w") == STEPS + 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_shares_of_a_frozen_weight_are_made_once(accumulate):
    assert encoded(model(), accumulate=accumulate, **SHARES) == 2


def test_a_frozen_public_weight_is_sent_once_in_the_clear_to_two_owners():
    two = SHARES | {"workers": {"a": ["cpu"], "b": ["cpu"]}}
    assert encoded(model(), public=["*.base_layer"], **two) == 2


@pytest.mark.security
@pytest.mark.parametrize("options", [{"weight_uses": 100, "unsafe_many_uses": True}, SHARES])
def test_what_is_written_to_a_frozen_weight_ends_its_epoch(options):
    """Adapters merged into it, weights loaded over it, also behind PyTorch's back."""
    options = {"workers": "cpu"} | options
    net, x = nn.Sequential(nn.Linear(64, 64)).requires_grad_(False), torch.randn(96, 64)
    with Session(options.pop("workers"), **options) as session:
        session.protect(net)
        for number, write in enumerate(
            (
                lambda w: None,
                lambda w: w.add_(1),
                lambda w: w.data.mul_(2),
                lambda w: w.copy_(torch.randn(64, 64)),
            )
        ):
            write(net[0].weight)
            for _ in range(2):
                torch.testing.assert_close(net(x), F.linear(x, *net[0].parameters()), rtol=1e-3, atol=1e-3)
            assert session._stats.count("encoded_w") == number + 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 2 * 5), ({"weight_uses": 5, "unsafe_many_uses": True}, 2), (SHARES, 2)],
    ids=["default", "many uses", "shares"],
)
def test_weights_of_a_model_that_serves(mode, options, expected):
    options = {"workers": "cpu"} | options
    net = model().eval()
    with Session(options.pop("workers"), **options) as session, mode():
        session.protect(net)
        for _ in range(5):
            net(torch.randn(96, 64))
        assert session._stats.count("encoded_w") == expected


@pytest.mark.parametrize("public", [[], ["*"]])
def test_weights_made_in_inference_mode_are_encoded_for_each_operation(public):
    """Nobody counts what is written to them, so nothing tells that they are the same."""
    with torch.inference_mode(), Session(**SHARES) as session:
        net = session.protect(model().requires_grad_(False), public=public)
        for _ in range(2):
            net(torch.randn(96, 64))
        assert session._stats.count("encoded_w") == 2 * 2
