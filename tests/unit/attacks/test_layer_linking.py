"""A network with ReLU is copied where zeros survive, and where features are mixed but rows are not."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, digits, scheme, trained

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import PublicData
from tempo.attacks.layer_linking import LayerLinking
from tempo.attacks.score.layer_linking import LayerLinkingScorer


def copied(folder, name, *, block=64, rounds=2):
    x, y = digits()
    lab = Lab(scheme(name, block=block, rounds=rounds), folder)
    lab.step(trained(penalty=0.3, steps=200), x[:600], y[:600])
    guess = LayerLinking().run(lab.transcript, PublicData(inputs=x[900:], labels=y[900:]))
    trials = LayerLinkingScorer().score(guess, lab.truth)["network"]
    return guess, float(np.mean(trials.values)), trials.chance, lab


def test_undefended_and_monomial_are_copied(tmp_path):
    _, plain, chance, _ = copied(tmp_path / "none", "unsafe_none")
    guess, score, _, lab = copied(tmp_path / "monomial", "monomial")
    assert guess.agreements[0] > 0.999
    assert guess.residuals[0] < 1e-5
    assert plain > chance + 0.15
    assert score > plain - 0.03
    # Biases never leave the TEE: the copy has them all the same, up to scale and sign of each unit.
    mlp, layer = trained(penalty=0.3, steps=200), guess.layers[0]
    order = lab.truth.of(lab.transcript.passes()[0].w_id).left[0].stretches[0].enter
    own = layer.bias_N / order.scale.numpy()
    true = mlp[0].bias.detach().numpy()[order.index.numpy()]
    hidden = lab.truth.of(lab.transcript.layers()[1][0].x_id).plain
    live = ((hidden > 0).sum(0) > 30).numpy()[order.index.numpy()]
    assert abs(np.corrcoef(own[live], true[live])[0, 1]) > 0.999


def test_mixing_with_rows_only_permuted_is_linked(tmp_path):
    guess, _, _, _ = copied(tmp_path, "rows permuted", block=4)
    assert guess.agreements[0] > 0.9
    assert guess.residuals[0] < 0.2


def test_mixing_gives_no_copy(tmp_path):
    guess, score, chance, _ = copied(tmp_path, "mixing")
    assert guess.agreements[0] < 0.3
    assert score < chance


def test_without_gradients_there_is_nothing(tmp_path):
    x, y = digits()
    lab = Lab(scheme("monomial"), tmp_path)
    lab.step(trained(), x[:100], y[:100], backward=False)
    knowledge = PublicData(inputs=x[900:], labels=y[900:])
    with pytest.raises(NothingToAttack, match="training step"):
        LayerLinking().run(lab.transcript, knowledge)
    with pytest.raises(NothingToAttack, match="public inputs"):
        LayerLinking().run(Transcript(()), PublicData())
    assert torch.is_tensor(knowledge.inputs)
