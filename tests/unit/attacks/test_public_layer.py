"""Attacks 16 and 17: with a layer's public weight, tokens and inputs are read off a monomial mask."""

import pytest
import torch
import torch.nn.functional as F

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.canonical import place, unmixed
from tempo.attacks.gradient_inversion import GradientInversion
from tempo.attacks.knowledge import PublicLayer
from tempo.attacks.reference.own import Sealer, Step
from tempo.attacks.score.gradient_inversion import GradientInversionScorer
from tempo.attacks.score.tokens import TokensScorer
from tempo.attacks.tokens import Tokens
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import interval
from tempo.config import Config
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import Scheme

K = 80


@pytest.fixture(scope="module")
def language():
    """40 tokens at 16 positions; a first layer that is normalised embeddings; a weight 2 % from public."""
    torch.manual_seed(0)
    states = F.layer_norm(torch.randn(40, 1, K) + torch.randn(16, K), (K,)).flatten(0, 1)
    public = torch.randn(96, K)
    secret = public + 0.02 * torch.randn_like(public)
    picks = torch.randint(0, len(states), (2, 256))
    picks[:, 128:144] = picks[:, :16]
    steps = [Step(states[p][None], secret.clone()[None]) for p in picks]
    tokens = torch.arange(40).repeat_interleave(16)
    return steps, PublicLayer(weight=public, rows=states, tokens=tokens)


@pytest.fixture(scope="module")
def gradients():
    """Heavy-tailed rows, batches of 64, gradients behind a ReLU."""
    torch.manual_seed(0)
    draw = torch.distributions.Laplace(0.0, 1.0).sample
    public = torch.randn(128, 256)
    steps = []
    for _ in range(3):
        x, dy = draw((64, 256)).pow(3), torch.randn(64, 128) * (torch.rand(64, 128) < 0.5)
        steps.append(Step(x[None], (public + 0.01 * torch.randn_like(public))[None], dy[None]))
    return steps, PublicLayer(weight=public, rows=draw((600, 256)).pow(3), picture=(16, 16))


def judged(attack, scorer, given, folder, **options):
    steps, knowledge = given
    transcript = Sealer(Config(**options)).run(folder, steps)
    return scorer.score(attack.run(transcript, knowledge), Truth(folder))


@pytest.mark.parametrize("scheme", ["unsafe_none", "monomial"])
def test_tokens_are_read(scheme, language, tmp_path):
    found = judged(Tokens(), TokensScorer(), language, tmp_path, scheme=scheme)
    assert all(interval(t.values).mean > 0.98 > 0.1 > t.chance for t in found.values())


class RowsPermuted(Scheme):
    """`mixing` with a knob turned all the way down: rows are permuted and scaled only."""

    name = "mixing"
    blurs_rows = False

    def features(self, stream, lengths):
        return mixing_bases(stream, lengths, spread=2**0.5, rounds=2, block=64)

    def _stretches(self, stream, lengths):
        return monomial_bases(stream, lengths, spread=2**0.5)


def test_equal_rows_are_seen_where_rows_are_only_permuted(language, tmp_path):
    steps, knowledge = language
    transcript = Sealer(RowsPermuted(chunk=8192, smallest=64)).run(tmp_path, steps)
    found = TokensScorer().score(Tokens().run(transcript, knowledge), Truth(tmp_path))["X, equal rows"]
    assert interval(found.values).low > 0.9 > found.chance


def test_tokens_are_not_read_where_rows_and_features_are_mixed(language, tmp_path):
    found = judged(Tokens(), TokensScorer(), language, tmp_path)
    assert interval(found["X, tokens"].values).mean < 0.1
    assert interval(found["X, equal rows"].values).low <= found["X, equal rows"].chance


@pytest.mark.parametrize("scheme", ["unsafe_none", "monomial"])
def test_rows_come_out_of_gradients(scheme, gradients, tmp_path):
    found = judged(GradientInversion(), GradientInversionScorer(), gradients, tmp_path, scheme=scheme)
    assert interval(found["dW, rows of X"].values).mean > 0.9


def test_rows_do_not_come_out_of_mixed_gradients(gradients, tmp_path):
    found = judged(GradientInversion(), GradientInversionScorer(), gradients, tmp_path)
    assert interval(found["dW, rows of X"].values).low <= 0.5


def test_columns_are_placed_whatever_their_coefficients():
    torch.manual_seed(1)
    w = torch.randn(96, K, dtype=torch.float64)
    x = torch.randn(5, K, dtype=torch.float64)
    order, b = torch.randperm(K), torch.rand(K, dtype=torch.float64) + 0.5
    b *= torch.where(torch.rand(K) < 0.5, -1.0, 1.0)
    rows = torch.randperm(96)
    seen = (w[rows] * torch.randn(96, 1, dtype=torch.float64))[:, order] / b
    near = w + 0.02 * torch.randn_like(w)
    assert all(map(torch.equal, place(seen, near), (rows, order)))
    again = unmixed(x[:, order] * b, seen, near)
    assert torch.cosine_similarity(again, x).abs().min() > 0.995


@pytest.mark.parametrize("attack", [Tokens, GradientInversion])
def test_without_public_states_it_says_so(attack):
    with pytest.raises(NothingToAttack, match="public"):
        attack().run(Transcript(()), PublicLayer())
