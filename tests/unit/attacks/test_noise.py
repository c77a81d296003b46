"""Noise in place of operands, as one owner's shares are: no judge may call that a leak, whatever an attack
finds in the noise itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempo.attacks.adaptive_covariances import AdaptiveCovariances
from tempo.attacks.blind_separation import BlindSeparation
from tempo.attacks.gradient_inversion import Inverted
from tempo.attacks.knowledge import Nothing
from tempo.attacks.learned_inversion import Recovered
from tempo.attacks.reuse import KeyReuse
from tempo.attacks.score.adaptive_covariances import AdaptiveCovariancesScorer
from tempo.attacks.score.blind_separation import BlindSeparationScorer
from tempo.attacks.score.crossed import own_rows
from tempo.attacks.score.gradient_inversion import GradientInversionScorer
from tempo.attacks.score.learned_inversion import LearnedInversionScorer
from tempo.attacks.score.reuse import ReuseScorer
from tempo.attacks.score.unmixing import quality
from tempo.attacks.transcript import Seen, Transcript
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import finding, interval
from tempo.ops import Op
from tempo.truth import UnsafeTruth

K = 24


def shares(
    folder: Path, operands: int, rows: int, seed: int, *, leak: float = 0.0
) -> tuple[Transcript, Truth]:
    """Products under one W of which the worker sees uniform noise; `leak`: of the truth in it."""
    generator = torch.Generator().manual_seed(seed)
    truth, seen = UnsafeTruth(folder), []
    w = torch.nn.Parameter(torch.randn(1, 8, K, generator=generator))
    truth.weight(1, w, "linear", w.detach(), [], [])
    w_seen = torch.rand(1, 8, K, generator=generator).double() - 0.5
    for i in range(operands):
        # Sparse features of different strengths, some alike in all rows.
        x = torch.relu(torch.randn(rows, K, generator=generator) - 0.5) * torch.linspace(0.2, 3, K) + 1
        truth.rows(2 + i, "x", 1, [x], [], [])
        noise = torch.rand(rows, K, generator=generator).double() - 0.5 + leak * x
        y = noise @ w_seen[0].mT
        seen.append(Seen("worker-0", Op.PRODUCT, 2 + i, 1, noise, w_seen, y, (rows,), (float(i), i + 0.5)))
    return Transcript(tuple(seen)), Truth(folder)


CASES = [
    (BlindSeparation(), BlindSeparationScorer()),
    (KeyReuse(), ReuseScorer()),
    (AdaptiveCovariances(), AdaptiveCovariancesScorer()),
]


@pytest.mark.security
@pytest.mark.parametrize(("attack", "scorer"), CASES, ids=["blind", "reuse", "covariances"])
def test_noise_is_no_leak(attack, scorer, tmp_path):
    """Intervals of 95 %, judged over eight draws: one may be off by luck."""
    leaks: dict[str, int] = {}
    for seed in range(8):
        transcript, truth = shares(tmp_path / str(seed), 9, 600, seed)
        for name, trials in scorer.score(attack.run(transcript, Nothing()), truth).items():
            found = finding(attack.name, "shares", name, "none", trials, 1.0)
            leaks[name] = leaks.get(name, 0) + (found.low > found.chance)
    assert leaks
    assert max(leaks.values()) <= 1


def test_noise_whose_own_columns_are_found_is_judged_by_what_they_tell(tmp_path):
    """Uniform entries are far from Gaussian: with rows enough their columns come apart: that is nothing."""
    transcript, truth = shares(tmp_path, 1, 4096, 0)
    guess = BlindSeparation().run(transcript, Nothing())
    (features,) = [each for each in guess if each.axis == "features" and each.method == "FastICA"]
    assert quality(features.v, np.eye(K)).mean() > 0.9
    trials = BlindSeparationScorer().score(guess, truth)["features of X, FastICA"]
    assert interval(trials.values).at_least(trials.error).low <= trials.chance


@pytest.mark.parametrize(("attack", "scorer"), CASES, ids=["blind", "reuse", "covariances"])
def test_truth_in_the_noise_is_a_leak(attack, scorer, tmp_path):
    """The same judges, with something to be found."""
    transcript, truth = shares(tmp_path, 9, 600, 3, leak=1.0)
    trials = scorer.score(attack.run(transcript, Nothing()), truth)
    found = [finding(attack.name, "shares", name, "none", t, 1.0) for name, t in trials.items()]
    assert any(each.low > each.chance for each in found)


@pytest.mark.parametrize("kind", ["alike", "noise", "right", "wrong"])
def test_rows_are_told_from_those_of_other_operands(kind, tmp_path):
    """One guess for all operands, noise, the truth, and that of another operand."""
    generator = torch.Generator().manual_seed(4)
    truth = UnsafeTruth(tmp_path)
    w = torch.nn.Parameter(torch.randn(1, 8, K))
    truth.weight(1, w, "linear", w.detach(), [], [])
    rows = {}
    plain = [torch.randn(40, K, generator=generator) for _ in range(12)]
    one = torch.randn(40, K, generator=generator)
    for i, x in enumerate(plain):
        truth.rows(2 + i, "x", 1, [x], [], [])
        noise = torch.randn(40, K, generator=generator)
        rows[2 + i] = {"alike": one, "noise": noise, "right": x + 0.3 * noise, "wrong": plain[i - 1]}[kind]
    others = torch.randn(100, K, generator=generator)
    guesses = {
        LearnedInversionScorer(): Recovered(rows, others, torch.zeros(K), None),
        GradientInversionScorer(): Inverted(rows, others, None),
    }
    for scorer, guess in guesses.items():
        (trials,) = scorer.score(guess, Truth(tmp_path)).values()
        of = interval(trials.values)
        assert len(trials.values) == 12
        match kind:
            case "alike":
                assert trials.values == pytest.approx([0.5] * 12)
            case "noise":
                assert of.low <= 0.5 <= of.high
            case "right":
                assert of.mean > 0.95 > of.low > 0.5
            case "wrong":
                assert of.mean < 0.5


def test_the_mean_of_trials_is_the_mean_over_pairs():
    generator = torch.Generator().manual_seed(6)
    nearness = [[torch.rand(9, generator=generator) for _ in range(5)] for _ in range(5)]
    pairs = [
        (
            (nearness[i][i] > nearness[i][j]).double().mean()
            + (nearness[j][j] > nearness[j][i]).double().mean()
        )
        / 2
        for i in range(5)
        for j in range(i)
    ]
    assert sum(own_rows(nearness)) / 5 == pytest.approx(float(sum(pairs)) / 10)
    assert own_rows(nearness[:1]) == []
    assert len(own_rows([row[:2] for row in nearness[:2]])) == 1
