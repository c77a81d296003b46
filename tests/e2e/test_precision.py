"""Training in bfloat16 and with rounded products: losses against plain PyTorch, bytes, liars.

The yardstick is what bfloat16 costs plain training: the same run under torch.autocast.
"""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from test_training import convnet, mlp, setup, train
from torch import nn

from tempo import Config, FleetSettings, Session
from tempo.fleet import ProcessWorker
from tempo.numerics import loss_tolerance
from tempo.worker import Lie, LieKind

SETTINGS = [{"wire": "bf16"}, {"arithmetic": "bf16"}, {"arithmetic": "tf32"}]


class Autocast(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(x).float()


@cache
def plain(make):
    """Losses in float32, and under autocast."""
    model, images, labels = setup(make, torch.float32)
    rough, _, _ = setup(make, torch.float32)
    return train(model, images, labels), train(Autocast(rough), images, labels)


@cache
def protected(make, workers, *options):
    model, images, labels = setup(make, torch.float32)
    with Session(workers, **dict(options)) as session:
        losses = train(session.protect(model), images, labels)
        return losses, session.report()


@pytest.mark.parametrize(
    ("make", "options", "workers"),
    [
        *itertools.product([mlp], SETTINGS, ["cpu", "local:2"]),
        *itertools.product([convnet], SETTINGS[:2], ["cpu"]),
    ],
    ids=lambda given: given.__name__ if callable(given) else str(given),  # one name in every process
)
def test_losses_equal_plain_trainings(make, options, workers):
    losses, report = protected(make, workers, *options.items())
    single, rough = plain(make)
    allowed = loss_tolerance(single, rough, Config(**options).precision)
    gaps = [abs(a - b) for a, b in zip(losses, single)]
    print(f"{make.__name__} {options} {workers}: {max(gaps):.2e}, autocast {max_gap(single, rough):.2e}")
    assert all(gap <= bound for gap, bound in zip(gaps, allowed))
    assert max(abs(a - b) for a, b in zip(single[1:], single)) > max(allowed), "one step missed is found"
    assert (report.checks_failed, report.local_fallbacks) == (0, 0)
    assert report.encodings <= 3 * 2 * len(losses) + len(losses)
    assert any("kept in float32" in note for note in report.notes)


def max_gap(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def test_the_settings_do_something():
    single, _ = plain(mlp)
    exact, _ = protected(mlp, "cpu")
    for options in SETTINGS[:2]:
        losses, _ = protected(mlp, "cpu", *options.items())
        assert max_gap(losses, single) > 20 * max_gap(exact, single)


def test_bfloat16_halves_the_bytes():
    """All but dW, whose results stay in float32."""
    _, full = protected(mlp, "cpu")
    _, half = protected(mlp, "cpu", ("wire", "bf16"))
    assert half.bytes_sent == pytest.approx(0.5 * full.bytes_sent, rel=0.01)
    assert 0.5 * full.bytes_received < half.bytes_received < 0.8 * full.bytes_received
    assert not [note for note in full.notes if "float32" in note]


@pytest.mark.security
@pytest.mark.parametrize("job", [1, 2])
@pytest.mark.parametrize(
    "kind",
    [LieKind.FLIP_ENTRY, LieKind.SCALE, LieKind.SWAP, LieKind.NAN, LieKind.ZEROS, LieKind.WRONG_DTYPE],
)
def test_lies_about_bfloat16_results_are_caught(kind, job):
    model, images, labels = setup(mlp, torch.float32)
    workers = [ProcessWorker("liar", unsafe_lie=Lie(kind, first=5 + job)), ProcessWorker("honest")]
    fleet = FleetSettings(quarantine_s=3600.0)
    with Session(workers, wire="bf16", min_size=16, block=16, fleet=fleet) as session:
        losses = train(session.protect(model), images, labels, steps=8)
        report = session.report()
    single, rough = plain(mlp)
    allowed = loss_tolerance(single, rough, Config(wire="bf16").precision)
    assert all(abs(a - b) <= bound for a, b, bound in zip(losses, single, allowed))
    assert report.quarantined == ["liar"]
    assert report.checks_failed == (0 if kind is LieKind.WRONG_DTYPE else 1)
