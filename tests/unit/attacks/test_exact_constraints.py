"""Planes, dead units and repeated rows are found under any basis, and a full-rank operand shows none."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, RowsPermuted, scheme

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.exact_constraints import ExactConstraints
from tempo.attacks.knowledge import Nothing
from tempo.attacks.score.exact_constraints import ExactConstraintsScorer


def sealed(folder, name, x, *, block=64):
    torch.manual_seed(5)
    lab = Lab(scheme(name, block=block), folder)
    weight = lab.weight(torch.randn(1, 96, x.shape[1]))
    forward = lab.forward(weight, x[None].contiguous())
    lab.backward(weight, forward, torch.randn(1, len(x), 96))
    guess = ExactConstraints().run(lab.transcript, Nothing())
    return guess, ExactConstraintsScorer().score(guess, lab.truth)


def plane(rows=300, k=64):
    """LayerNorm with beta = 0: its plane goes through 0."""
    torch.manual_seed(6)
    gamma = 0.5 + torch.rand(k)
    return torch.nn.functional.layer_norm(torch.randn(rows, k), (k,)) * gamma, gamma


@pytest.mark.parametrize("name", ["unsafe_none", "monomial", "rows permuted"])
def test_the_plane_of_a_layer_norm_is_found(tmp_path, name):
    x, _ = plane()
    guess, found = sealed(tmp_path, name, x, block=4)
    assert [each.null.shape[1] for each in guess if each.kind == "x"] == [1]
    assert found["X: constraint found"].values == [1.0]
    # The null vector is B*(1/gamma), to many digits.
    assert found["null vectors of X"].values[0] > 1 - 1e-6
    assert found["null vectors of X"].chance < 0.2
    assert found["dY: constraint found"].values == [0.0]
    assert found["W: constraint found"].values == [0.0]


def test_inexact_centring_hides_the_plane_of_a_layer_norm_in_mixing(tmp_path):
    _, found = sealed(tmp_path, "mixing", plane()[0])
    assert found["X: constraint found"].values == [0.0]


def test_dead_units_stay_null_vectors_under_mixing(tmp_path):
    x = torch.relu(torch.randn(400, 64))
    x[:, :9] = 0.0
    guess, found = sealed(tmp_path, "rows permuted", x)
    assert guess[0].rank == 55
    assert found["null vectors of X"].values == pytest.approx([1.0] * 9, abs=1e-5)


def test_repeated_rows_are_a_rank(tmp_path):
    x = torch.randn(5, 64)[torch.arange(40) % 5]
    guess, _ = sealed(tmp_path, "mixing", x, block=32)
    assert guess[0].rank <= 6 < guess[0].full


def test_a_full_operand_shows_nothing(tmp_path):
    for name in ("monomial", "mixing"):
        _, found = sealed(tmp_path / name, name, torch.randn(300, 64))
        assert np.mean(found["X: constraint found"].values) == 0.0
    assert RowsPermuted().blurs_rows is False


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="two rows"):
        ExactConstraints().run(Transcript(()), Nothing())
