"""Which kind an operand was of: the one whose mean row, or weight, is nearest to it in the clear.

Chance is what the same answers score when they are dealt out to the operands at random.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from tempo.attacks.learned_distinguishing import LearnedDistinguishing, Told
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class LearnedDistinguishingScorer(Scorer[list[Told]]):
    attack: ClassVar[type[LearnedDistinguishing]] = LearnedDistinguishing

    def score(self, guess: list[Told], truth: Truth) -> dict[str, Trials]:
        return {told.operand: _trials(told, truth) for told in guess}


def _trials(told: Told, truth: Truth) -> Trials:
    true = {i: _nearest(truth.of(i).plain, told.kinds) for i in told.kind}
    hits = [float(told.kind[i] == true[i]) for i in told.kind]
    n, kinds = len(hits), range(len(told.kinds))
    guessed, real = ([list(d.values()).count(k) / n for k in kinds] for d in (told.kind, true))
    chance = sum(g * r for g, r in zip(guessed, real, strict=True))
    return Trials(hits, chance, "the same answers dealt out at random")


def _nearest(plain: Tensor, kinds: tuple[Tensor, ...]) -> int:
    mine = plain.mean(0) if kinds[0].ndim == 1 else plain[0]
    return int(torch.stack([(mine - kind).norm() for kind in kinds]).argmin())
