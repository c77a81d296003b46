"""Attacks by another hand than the scheme's: what one feature key gives away that serves many operands.

Both succeed on `mixing` as it is by default; that is known and documented (docs/secrecy.md). They must be at
chance where keys are fresh for every operand.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tempo.attacks import NothingToAttack, Transcript
from tempo.attacks.adaptive_covariances import AdaptiveCovariances
from tempo.attacks.adaptive_known import AdaptiveKnown, solved
from tempo.attacks.diagonal import jointly_diagonal
from tempo.attacks.knowledge import KnownPlaintext, Nothing
from tempo.attacks.reference.own import Sealer, Step
from tempo.attacks.score.adaptive_covariances import AdaptiveCovariancesScorer
from tempo.attacks.score.adaptive_known import AdaptiveKnownScorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import interval
from tempo.config import Config

SCHEMES = [{"scheme": "unsafe_none"}, {"scheme": "monomial"}, {}]
IDS = ["unsafe_none", "monomial", "mixing"]


def sparse(count, rows, k, seed=0):
    """Independent features that are active seldom."""
    generator = torch.Generator().manual_seed(seed)
    return [F.relu(torch.randn(rows, k, generator=generator) - 1) for _ in range(count)]


def covariances(folder, operands, *, fresh=False, **options):
    w = torch.randn(1, 64, operands[0].shape[1])
    transcript = Sealer(Config(**options)).run(
        folder, [Step(x[None], w.clone() if fresh else w) for x in operands]
    )
    if fresh:  # an attacker who takes operands under different keys for operands under one
        first = transcript.seen[0]
        transcript = Transcript(
            tuple(replace(s, right_id=first.right_id, right=first.right) for s in transcript.seen)
        )
    guess = AdaptiveCovariances().run(transcript, Nothing())
    return AdaptiveCovariancesScorer().score(guess, Truth(folder))["X, features"]


@pytest.mark.parametrize("options", SCHEMES, ids=IDS)
def test_sparse_features_come_apart_under_one_key(options, tmp_path):
    trials = covariances(tmp_path, sparse(96, 64, 32), **options)
    assert interval(trials.values).low > 0.7
    assert trials.chance < 0.25


def test_more_rounds_on_rows_do_not_help(tmp_path):
    trials = covariances(tmp_path, sparse(96, 64, 32), row_rounds=4)
    assert interval(trials.values).low > 0.5


def test_fresh_keys_help(tmp_path):
    trials = covariances(tmp_path, sparse(96, 64, 32), fresh=True)
    assert abs(interval(trials.values).mean - trials.chance) < 0.03


def test_gaussian_features_stay_mixed(tmp_path):
    """They have no axes of their own: the false alarm of this attack."""
    generator = torch.Generator().manual_seed(3)
    trials = covariances(tmp_path, [torch.randn(64, 32, generator=generator) for _ in range(96)])
    assert interval(trials.values).low <= trials.chance + 0.01


def test_joint_diagonalisation_finds_a_common_rotation():
    generator = torch.Generator().manual_seed(4)
    q = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    d = torch.rand(9, 12, generator=generator, dtype=torch.float64)
    v = torch.from_numpy(jointly_diagonal((q * d[:, None]).matmul(q.mT).numpy()))
    assert torch.allclose((v.mT @ q).abs().amax(1), torch.ones(12, dtype=torch.float64), atol=1e-6)


def known(folder, *, count=6, rows=40, k=72, fresh=False, **options):
    generator = torch.Generator().manual_seed(5)
    operands = [torch.randn(rows, k, generator=generator) for _ in range(count + 12)]
    w = torch.randn(1, 64, k, generator=generator)
    transcript = Sealer(Config(**options)).run(
        folder, [Step(x[None], w.clone() if fresh else w) for x in operands]
    )
    if fresh:
        first = transcript.seen[0]
        transcript = Transcript(
            tuple(replace(s, right_id=first.right_id, right=first.right) for s in transcript.seen)
        )
    ids = [p.x_id for p in transcript.passes()]
    knowledge = KnownPlaintext(operands=dict(zip(ids[:count], operands, strict=False)))
    guess = AdaptiveKnown().run(transcript, knowledge)
    return AdaptiveKnownScorer().score(guess, Truth(folder))["X, other requests"]


@pytest.mark.parametrize("options", SCHEMES[1:], ids=IDS[1:])
def test_known_operands_open_the_others_of_their_key(options, tmp_path):
    trials = known(tmp_path, **options)
    assert interval(trials.values).low > 0.6
    assert trials.details["energy_of_own_rows"] > 0.95


def test_too_few_known_operands_open_nothing(tmp_path):
    """1 x 40 (72 - 40) equations do not determine 72^2 unknowns."""
    trials = known(tmp_path, count=1)
    assert interval(trials.values).mean < 0.65


def test_known_operands_open_nothing_under_fresh_keys(tmp_path):
    trials = known(tmp_path, fresh=True)
    assert abs(interval(trials.values).mean - 0.5) < 0.1


def test_the_basis_is_found_up_to_a_factor():
    generator = torch.Generator().manual_seed(6)
    q = [torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))[0] for _ in "ab"]
    b = q[0] @ torch.linspace(0.4, 2.5, 48).double().diag() @ q[1]
    plain = [torch.randn(20, 48, generator=generator, dtype=torch.float64) for _ in range(10)]
    mixed = [torch.randn(20, 20, generator=generator, dtype=torch.float64) @ x @ b.mT for x in plain]
    found, residual = solved(list(zip(mixed, plain, strict=True)))
    assert torch.cosine_similarity(found.flatten(), b.flatten(), dim=0).abs() > 0.9999
    assert residual < 1e-6


def test_without_shared_keys_they_say_so():
    with pytest.raises(NothingToAttack, match="one key"):
        AdaptiveCovariances().run(Transcript(()), Nothing())
    with pytest.raises(NothingToAttack, match="share a key"):
        AdaptiveKnown().run(Transcript(()), KnownPlaintext())
