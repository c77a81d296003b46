"""Blind separation unmixes features where rows are only permuted, and is at random where they are mixed."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, scheme

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.blind_separation import BlindSeparation
from tempo.attacks.knowledge import Nothing
from tempo.attacks.score.blind_separation import BlindSeparationScorer
from tempo.attacks.separation import second_order


def features(folder, name, *, block=64, rows=3000):
    torch.manual_seed(2)
    lab = Lab(scheme(name, block=block), folder)
    # Sparse, as behind a ReLU.
    x = torch.relu(torch.randn(1, rows, 64) - 0.8) * (0.5 + torch.rand(64))
    lab.forward(lab.weight(torch.randn(1, 64, 64)), x)
    guess = BlindSeparation().run(lab.transcript, Nothing())
    found = BlindSeparationScorer().score(guess, lab.truth)["features of X, FastICA"]
    return float(np.mean(found.values)), found.chance


@pytest.mark.parametrize("name", ["unsafe_none", "monomial", "rows permuted"])
def test_features_are_unmixed_where_rows_are_not_mixed(tmp_path, name):
    score, chance = features(tmp_path, name)
    assert score > 0.8
    assert chance < 0.2


def test_mixing_is_at_random(tmp_path):
    score, chance = features(tmp_path, "mixing")
    assert abs(score - chance) < 0.02


def test_small_blocks_leak(tmp_path):
    torch.manual_seed(3)
    lab = Lab(scheme("mixing", block=2, rounds=1, spread=1.0000001), tmp_path)
    x = torch.relu(torch.randn(1, 6000, 64) - 1.5)
    lab.forward(lab.weight(torch.randn(1, 64, 64)), x)
    guess = BlindSeparation().run(lab.transcript, Nothing())
    found = BlindSeparationScorer().score(guess, lab.truth)["features of X, FastICA"]
    assert np.mean(found.values) > found.chance + 0.3


def test_second_order_separates_coloured_sources():
    rng = np.random.default_rng(0)
    noise, sources = rng.standard_normal((4000, 4)), np.zeros((4000, 4))
    for t in range(1, 4000):
        sources[t] = np.array([0.95, 0.6, -0.5, 0.1]) * sources[t - 1] + noise[t]
    mixing = rng.standard_normal((4, 4))
    g = (second_order(sources @ mixing.T).T @ mixing * sources.std(0)) ** 2
    assert (g.max(1) / g.sum(1)).min() > 0.95


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="16 rows"):
        BlindSeparation().run(Transcript(()), Nothing())
