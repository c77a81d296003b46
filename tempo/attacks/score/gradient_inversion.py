"""A recovered row is a hit when its |cosine| with one of the true rows of its operand is larger than with any
of another operand's: see crossed.py.

PSNR of the best match, after the best gain and offset, stands beside it.
"""

from __future__ import annotations

from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.gradient_inversion import GradientInversion, Inverted
from tempo.attacks.score.crossed import CHANCE, HOW, own_rows
from tempo.attacks.score.learned_inversion import psnr
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

_PICTURES: Final = 8


@final
class GradientInversionScorer(Scorer[Inverted]):
    attack: ClassVar[type[GradientInversion]] = GradientInversion

    def score(self, guess: Inverted, truth: Truth) -> dict[str, Trials]:
        cosines, blind, decibels = [], [], []
        truths = {id_: truth.of(id_).plain.float() for id_ in guess.rows}
        count = min(len(t) for t in truths.values())
        nearness = [
            [_cosines(found, true[:count]).amax(1) for true in truths.values()]
            for found in guess.rows.values()
        ]
        generator = torch.Generator().manual_seed(17)
        for id_, found in guess.rows.items():
            true = truths[id_]
            picks = torch.randperm(len(guess.others), generator=generator)[: len(true)]
            true, others = true[: len(picks)], guess.others[picks]
            own, theirs = _cosines(found, true), _cosines(found, others)
            cosines.append(float(own.amax(1).mean()))
            blind.append(float(theirs.amax(1).mean()))
            decibels.append(float(psnr(_fitted(found, true[own.argmax(1)]), true[own.argmax(1)]).mean()))
        names = {"cosine": cosines, "cosine_against_others": blind, "psnr_db": decibels}
        figures = {name: sum(v) / len(v) for name, v in names.items()}
        return {"dW, rows of X": Trials(own_rows(nearness), CHANCE, HOW, details=figures)}

    def pictures(self, guess: Inverted, truth: Truth) -> list[tuple[str, Tensor, Tensor]]:
        if guess.picture is None:
            return []
        id_, found = next(iter(guess.rows.items()))
        true = truth.of(id_).plain.float()
        own = _cosines(found, true)
        near, shape = true[own.argmax(1)], guess.picture
        fitted = _fitted(found, near)
        best = own.amax(1).topk(min(_PICTURES, len(found))).indices
        return [(f"component {int(i)}", fitted[i].view(shape), near[i].view(shape)) for i in best]


def _cosines(found: Tensor, rows: Tensor) -> Tensor:
    a, b = (torch.nn.functional.normalize(t - t.mean(1, keepdim=True), dim=1) for t in (found, rows))
    return (a @ b.mT).abs()


def _fitted(found: Tensor, true: Tensor) -> Tensor:
    """Gain and offset of each row by least squares."""
    a, b = (t - t.mean(1, keepdim=True) for t in (found, true))
    gain = (a * b).sum(1, keepdim=True) / a.square().sum(1, keepdim=True).clamp(min=1e-12)
    return gain * a + true.mean(1, keepdim=True)
