"""Attack 1 undoes a monomial mask when public weights are near, and mixing stops it."""

import pytest
import torch
from sealing import Wire

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.score.sinkhorn import SinkhornScorer
from tempo.attacks.sinkhorn import Sinkhorn

N, K = 96, 128


def scores(folder, scheme, change, **options):
    torch.manual_seed(3)
    public = {f"{i}.weight": torch.randn(N, K) for i in range(2)}
    wire = Wire(folder, scheme, **options)
    for name, w0 in public.items():
        secret = w0 + change * w0.std() * torch.randn(N, K)
        wire.layer(secret, [(torch.randn(64, K), None)], name=name)
    guess = Sinkhorn().run(wire.transcript, PublicWeights(weights=public))
    return SinkhornScorer().score(guess, wire.truth)


def mean(trials):
    return sum(trials.values) / len(trials.values)


@pytest.mark.parametrize("change", [0.02, 0.1])
@pytest.mark.parametrize("scheme", ["monomial", "unsafe_none"])
def test_a_monomial_mask_is_undone(tmp_path, scheme, change):
    found = scores(tmp_path, scheme, change)
    assert mean(found["W rows, linear layers"]) == 1
    assert mean(found["W columns, linear layers"]) == 1
    moved = found["W - W0, linear layers"]
    assert mean(moved) > 0.9
    assert moved.details["cosine_recovered"] > moved.details["cosine_public"]
    assert abs(moved.chance) < 0.1


def test_mixing_stops_it(tmp_path):
    found = scores(tmp_path, "mixing", 0.02)
    for axis in ("rows", "columns"):
        assert mean(found[f"W {axis}, linear layers"]) < 0.06


def test_it_sees_through_small_blocks_and_scales_of_one(tmp_path):
    found = scores(tmp_path, "mixing", 0.0, block=4, rounds=1, spread=1.0000001)
    for axis in ("rows", "columns"):
        assert mean(found[f"W {axis}, linear layers"]) > 0.1


def test_without_operands_it_says_so():
    with pytest.raises(NothingToAttack, match="shape"):
        Sinkhorn().run(Transcript(()), PublicWeights(weights={"w": torch.ones(4, 4)}))
    with pytest.raises(NothingToAttack, match="public weights"):
        Sinkhorn().run(Transcript(()), PublicWeights())
