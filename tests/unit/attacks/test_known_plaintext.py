"""One known batch opens what shares its key under permutations and under orthogonal maps; mixing with its
scales
resists."""

import numpy as np
import pytest
import torch
from bench_lab import Lab, scheme

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import KnownPlaintext
from tempo.attacks.known_plaintext import KnownPlaintextAttack
from tempo.attacks.score.known_plaintext import KnownPlaintextScorer


def scores(folder, name, *, known=1, spread=2**0.5):
    torch.manual_seed(4)
    lab = Lab(scheme(name, spread=spread), folder)
    weight = lab.weight(torch.randn(1, 64, 64))
    shape = torch.randn(64, 64) * torch.linspace(0.2, 3, 64)
    for _ in range(3):
        lab.forward(weight, torch.relu(torch.randn(1, 256, 64) @ shape))
    passes = lab.transcript.passes()
    operands = {p.x_id: lab.truth.of(p.x_id).plain for p in passes[:known]}
    guess = KnownPlaintextAttack().run(lab.transcript, KnownPlaintext(operands=operands))
    return guess[0].method, KnownPlaintextScorer().score(guess, lab.truth)


@pytest.mark.parametrize("name", ["unsafe_none", "monomial"])
def test_one_batch_opens_the_others_under_its_key(tmp_path, name):
    method, found = scores(tmp_path, name)
    assert method == "canonical form"
    assert min(found["B of a known X"].values) > 0.999
    rows = found["rows of other X under its key"]
    assert np.mean(rows.values) > 0.999
    assert rows.chance < 0.5


def test_scales_of_one_make_the_maps_orthogonal_and_give_them_away(tmp_path):
    for known, least in ((1, 0.35), (2, 0.2)):
        _, found = scores(tmp_path / str(known), "mixing", known=known, spread=1.0000001)
        b = found["B of a known X"]
        assert np.mean(b.values) > max(least, 1.7 * b.chance)


def test_mixing_gives_rows_of_others_to_nobody(tmp_path):
    _, found = scores(tmp_path, "mixing", known=2)
    rows = found["rows of other X under its key"]
    assert np.mean(rows.values) < rows.chance + 0.2


def test_nothing_to_attack():
    with pytest.raises(NothingToAttack, match="known"):
        KnownPlaintextAttack().run(Transcript(()), KnownPlaintext())
