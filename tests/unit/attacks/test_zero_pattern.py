"""Zeros of ReLU name the batch and link layers, unless rows and features are mixed."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, digits, scheme, trained

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import Candidates
from tempo.attacks.score.zero_pattern import ZeroPatternScorer
from tempo.attacks.zero_pattern import ZeroPattern


def scores(folder, name, *, block=64, batches=3):
    x, y = digits()
    mlp = trained(penalty=0.3, steps=200)
    lab = Lab(scheme(name, block=block), folder)
    pick = [slice(i * 200, (i + 1) * 200) for i in range(8)]
    with torch.no_grad():
        candidates = tuple((mlp[:2](x[p]),) for p in pick)
    for i in range(batches):
        lab.step(mlp, x[pick[2 * i + 1]], y[pick[2 * i + 1]])
    guess = ZeroPattern().run(lab.transcript, Candidates(operands=candidates))
    return ZeroPatternScorer().score(guess, lab.truth)


@pytest.mark.parametrize("name", ["unsafe_none", "monomial"])
def test_batches_rows_and_links_are_found(tmp_path, name):
    found = scores(tmp_path, name)
    batches = found["X among candidates"]
    assert np.mean(batches.values) == 1.0
    assert batches.chance < 0.2
    assert np.mean(found["rows of a recognised X"].values) > 0.95
    # The gradient of the last layer sent has no X' after it: half of the links can be right.
    assert np.mean(found["dY to the next X"].values) == 0.5


def test_mixing_with_rows_only_permuted_is_recognised(tmp_path):
    # Keys differ from run to run, and with them what is unmixed exactly: chance is one of eight.
    assert np.mean(scores(tmp_path, "rows permuted", block=4)["X among candidates"].values) > 0.6


def test_mixing_shows_no_zeros(tmp_path):
    found = scores(tmp_path, "mixing")
    assert "rows of a recognised X" not in found or np.mean(found["rows of a recognised X"].values) < 0.1
    assert np.mean(found["dY to the next X"].values) < 0.5


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="X'"):
        ZeroPattern().run(Transcript(()), Candidates())
