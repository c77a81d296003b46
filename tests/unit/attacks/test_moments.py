"""Attack 12 finds strong directions under mixing, more of them the further they stand out."""

import pytest
import torch
from sealing import Wire

from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.moments import SecondMoments, deflated
from tempo.attacks.score.moments import MomentsScorer

K = 128
POWER = torch.arange(1, K + 1).float() ** -0.5


def rotation():
    return torch.linalg.qr(torch.randn(K, K)).Q


def scores(folder, spectrum, scheme="mixing", *, covariance=True, **options):
    torch.manual_seed(12)
    public, of_x = {}, {}
    wire = Wire(folder, scheme, **options)
    for name in ("0.weight", "1.weight"):
        w, root = rotation() @ (spectrum[:, None] * rotation()), POWER[:, None] * rotation()
        public[name], of_x[name] = w, root.mT @ root
        wire.layer(w, [(torch.randn(1024, K) @ root, None)], name=name)
    knowledge = PublicWeights(weights=public, covariance=of_x if covariance else None)
    guess = SecondMoments().run(wire.transcript, knowledge)
    found = MomentsScorer().score(guess, wire.truth)
    return {name.removesuffix(", linear layers"): sum(t.values) / len(t.values) for name, t in found.items()}


@pytest.mark.parametrize(
    "options", [{"scheme": "unsafe_none"}, {"spread": 1.0000001, "block": 4, "rounds": 1}]
)
def test_maps_that_only_rotate_hide_no_direction(tmp_path, options):
    found = scores(tmp_path, POWER, **options)
    assert len(found) == 6
    assert found["space of W"] > 0.99
    assert found["directions named by W0"] > 0.99
    assert found["directions named, aligned"] > 0.9
    assert found["directions named by W0 and covariance"] > 0.5


def test_the_score_follows_the_spectrum(tmp_path):
    flat, steep = (scores(tmp_path / n, s) for n, s in (("a", torch.ones(K)), ("b", POWER)))
    assert flat["space of W"] < 8 / K + 0.1
    assert steep["space of W"] > 0.7
    assert steep["space of W, left"] > 0.7
    assert steep["directions named by W0"] > 0.3


def test_data_help(tmp_path):
    found = scores(tmp_path, torch.linspace(1.5, 0.5, K))
    assert found["space of W and X"] > found["space of W"] + 0.2


def test_without_a_covariance_spaces_remain(tmp_path):
    found = scores(tmp_path, POWER, covariance=False)
    assert "directions named, aligned" not in found
    assert found["space of W and X"] > 0.7


def test_directions_that_stay_at_home_are_noticed():
    torch.manual_seed(1)
    u, vh = rotation(), rotation()
    public = u @ (POWER[:, None] * vh)
    sent = POWER[8:]
    assert torch.linalg.matrix_rank(public - deflated(public, sent), atol=1e-4) == 8
    assert torch.equal(deflated(public, POWER), public)
