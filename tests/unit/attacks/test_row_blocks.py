"""Zero rows that are encoded name the row blocks and scales; without zero rows nothing shows."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, scheme

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import Nothing
from tempo.attacks.row_blocks import DependentRows, even_scales
from tempo.attacks.score.row_blocks import DependentRowsScorer


def scores(folder, dy, *, rounds=1, block=64):
    """Of the one dY, with X of full rank."""
    torch.manual_seed(7)
    lab = Lab(scheme("mixing", rounds=rounds, block=block), folder, drop=False)
    weight = lab.weight(torch.randn(1, dy.shape[1], 64))
    forward = lab.forward(weight, torch.randn(1, len(dy), 64))
    lab.backward(weight, forward, dy[None].contiguous())
    guess = DependentRows().run(lab.transcript, Nothing())
    return DependentRowsScorer().score(guess, lab.truth)


def pooled(rows=512, every=16, features=128):
    """The gradient below CLS pooling: one row of every sixteen is not zero."""
    torch.manual_seed(8)
    dy = torch.zeros(rows, features)
    dy[::every] = torch.randn(len(dy[::every]), features)
    return dy


def test_zero_rows_give_blocks_and_scales_away(tmp_path):
    found = scores(tmp_path, pooled())
    # A block with few rows that are not zero may fall into halves, rarely.
    assert np.mean(found["row blocks of dY"].values) >= 0.7
    assert np.mean(found["outer scales of dY"].values) > 0.7


def test_smaller_blocks_too(tmp_path):
    found = scores(tmp_path, pooled(every=6), block=32)
    assert np.mean(found["row blocks of dY"].values) > 0.5


def test_rows_of_full_rank_show_nothing(tmp_path):
    torch.manual_seed(9)
    found = scores(tmp_path, torch.randn(512, 128), rounds=2)
    assert np.mean(found["row blocks of dY"].values) == 0.0
    assert np.mean(found["outer scales of dY"].values) == 0.0


def test_scales_of_a_block_are_found_up_to_a_factor():
    rng = np.random.default_rng(0)
    h = np.ones((1, 1))
    for _ in range(5):
        h = np.block([[h, h], [h, -h]])
    true = np.exp(rng.uniform(-0.35, 0.35, 32))
    span = true[:, None] * h[:, [3, 8, 21]]
    found = even_scales(np.linalg.qr(span @ rng.standard_normal((3, 3)))[0])
    ratio = found / true
    assert ratio.std() / ratio.mean() < 1e-6


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="two rows"):
        DependentRows().run(Transcript(()), Nothing())
