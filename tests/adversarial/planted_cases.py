"""For each attack a run in which what it looks for is there, and what it may know beside. Small: seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tempo.attacks import Attack, Transcript
from tempo.attacks.adaptive_covariances import AdaptiveCovariances
from tempo.attacks.adaptive_known import AdaptiveKnown
from tempo.attacks.gradient_inversion import GradientInversion
from tempo.attacks.knowledge import KnownPlaintext, LayerFacts, Nothing, OwnRuns, PublicLayer
from tempo.attacks.learned_distinguishing import LearnedDistinguishing
from tempo.attacks.learned_inversion import LearnedInversion
from tempo.attacks.reference.own import Sealer, Step
from tempo.attacks.score.adaptive_covariances import AdaptiveCovariancesScorer
from tempo.attacks.score.adaptive_known import AdaptiveKnownScorer
from tempo.attacks.score.gradient_inversion import GradientInversionScorer
from tempo.attacks.score.learned_distinguishing import LearnedDistinguishingScorer
from tempo.attacks.score.learned_inversion import LearnedInversionScorer
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.score.tokens import TokensScorer
from tempo.attacks.score.traffic import TrafficScorer
from tempo.attacks.tokens import Tokens
from tempo.attacks.traffic import Traffic
from tempo.attacks.transcript import Frame
from tempo.config import Config
from tempo.ops import Op

Given = tuple[Transcript, Nothing]


@dataclass(frozen=True)
class Case:
    """plant: makes a run with the leak in it, its truth in the folder. seeds: of noise that is tried."""

    attack: Attack[Any, Any]
    scorer: Scorer[Any]
    plant: Callable[[Path], Given]
    seeds: int = 4


def noise_like(t: torch.Tensor, seed: int) -> torch.Tensor:
    """Uniform, as shares are: nothing of t but its shape."""
    return torch.rand(t.shape, generator=torch.Generator().manual_seed(seed)) - 0.5


def blinded(transcript: Transcript, seed: int) -> Transcript:
    """Every operand and result replaced by noise, the same for the same id; sizes of messages too."""
    seen = tuple(
        replace(
            s,
            left=noise_like(s.left, 1_000_003 * seed + s.left_id),
            right=noise_like(s.right, 1_000_003 * seed + s.right_id),
            result=noise_like(s.result, 1_000_003 * seed + 500_000 + i),
        )
        for i, s in enumerate(transcript.seen)
    )
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2_000, 200_000, (len(transcript.frames),), generator=generator).tolist()
    frames = tuple(replace(f, nbytes=n) for f, n in zip(transcript.frames, sizes, strict=True))
    return Transcript(seen, frames)


def told_apart(folder: Path) -> Given:
    """Batches of one class each: of wide rows, and of rows that are nearly the same."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.arange(1, 33.0) ** -1
    draw = [
        lambda n: torch.randn(n, 32, generator=generator),
        lambda n: torch.randn(n, 32, generator=generator) * scale + 0.2,
    ]
    steps = [Step(draw[i % 2](48)[None], torch.ones(1, 40, 32)) for i in range(40)]
    public = torch.cat([d(200) for d in draw])[:, None]
    config = Config(scheme="monomial")
    kinds = torch.arange(2).repeat_interleave(200)
    knowledge = OwnRuns(seal_rows=Sealer(config).rows, rows=public, kinds=kinds)
    return Sealer(config).run(folder, steps), knowledge


def pictures(folder: Path) -> Given:
    """Rows that are sums of a few positive patterns: which features go together tells their places."""
    generator = torch.Generator().manual_seed(2)
    patterns = torch.rand(12, 32, generator=generator) * (torch.rand(12, 32, generator=generator) < 0.4)
    rows = torch.randn(1400, 12, generator=generator).square() @ patterns + 0.1
    steps = [Step(rows[None, 64 * i : 64 * i + 64], torch.ones(1, 40, 32)) for i in range(6)]
    knowledge = OwnRuns(seal_rows=lambda t: t[:, torch.randperm(32)], rows=rows[400:, None])
    return Sealer(Config(scheme="unsafe_none")).run(folder, steps), knowledge


def language(folder: Path) -> Given:
    generator = torch.Generator().manual_seed(3)
    states, w = torch.randn(200, 48, generator=generator), torch.randn(64, 48, generator=generator)
    picks = torch.randint(0, 200, (3, 150), generator=generator)
    knowledge = PublicLayer(weight=w, rows=states, tokens=torch.arange(200) // 4)
    steps = [Step(states[p][None], w.clone()[None]) for p in picks]
    return Sealer(Config(scheme="monomial")).run(folder, steps), knowledge


def gradients(folder: Path) -> Given:
    generator = torch.Generator().manual_seed(4)
    rows, w = torch.randn(600, 128, generator=generator).pow(3), torch.randn(64, 128, generator=generator)
    steps = [
        Step(rows[None, 24 * i : 24 * i + 24], w.clone()[None], torch.randn(1, 24, 64, generator=generator))
        for i in range(6)
    ]
    knowledge = PublicLayer(weight=w, rows=rows[300:])
    return Sealer(Config(scheme="monomial")).run(folder, steps), knowledge


def overheard(folder: Path) -> Given:
    w, x = torch.ones(1, 40, 32), torch.randn(400, 32)
    counts = [40, 75, 131, 66, 90, 222, 53, 171] * 3
    transcript = Sealer(Config()).run(folder, [Step(x[None, :n], w.clone()) for n in counts])
    frames = []
    for s in (s for s in transcript.seen if s.op is Op.PRODUCT):
        sizes = 4 * (s.left.numel() + s.right.numel()) + 140, 4 * s.result.numel() + 24
        frames += [
            Frame(s.worker, "arrived", s.seconds[0], sizes[0], "compute"),
            Frame(s.worker, "left", s.seconds[1], sizes[1], "result"),
        ]
    facts = LayerFacts("0", "linear", 1, 32, 40)
    return Transcript(transcript.seen, tuple(frames)), Nothing(architecture=(facts,))


def one_key(folder: Path) -> Given:
    generator = torch.Generator().manual_seed(5)
    w = torch.ones(1, 40, 32)
    operands = [F.relu(torch.randn(1, 64, 32, generator=generator) - 1) for _ in range(96)]
    return Sealer(Config(scheme="monomial")).run(folder, [Step(x, w) for x in operands]), Nothing()


def some_known(folder: Path) -> Given:
    generator = torch.Generator().manual_seed(6)
    w, operands = torch.ones(1, 40, 48), torch.randn(18, 24, 48, generator=generator)
    transcript = Sealer(Config(scheme="monomial")).run(folder, [Step(x[None], w) for x in operands])
    ids = [p.x_id for p in transcript.passes()]
    return transcript, KnownPlaintext(operands=dict(zip(ids[:8], operands, strict=False)))


CASES = [
    Case(LearnedDistinguishing(), LearnedDistinguishingScorer(), told_apart, seeds=3),
    Case(LearnedInversion(), LearnedInversionScorer(), pictures, seeds=1),
    Case(Tokens(), TokensScorer(), language),
    Case(GradientInversion(), GradientInversionScorer(), gradients),
    Case(Traffic(), TrafficScorer(), overheard),
    Case(AdaptiveCovariances(), AdaptiveCovariancesScorer(), one_key),
    Case(AdaptiveKnown(), AdaptiveKnownScorer(), some_known),
]
