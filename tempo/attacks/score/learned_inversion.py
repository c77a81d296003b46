"""A recovered row is a hit when it lies nearer to one of the true rows of its operand than to any of another
operand's: see crossed.py. Rows of one operand share a guess of the columns' places. Correlations
(less the mean row), PSNR and SSIM (Wang et al., 2004; one window over the picture) of the best assignment
stand beside it, with what the same rows reach against public ones.
"""

from __future__ import annotations

from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.learned_inversion import LearnedInversion, Recovered, assigned
from tempo.attacks.score.crossed import CHANCE, HOW, own_rows
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

_PICTURES: Final = 8


@final
class LearnedInversionScorer(Scorer[Recovered]):
    attack: ClassVar[type[LearnedInversion]] = LearnedInversion

    def score(self, guess: Recovered, truth: Truth) -> dict[str, Trials]:
        details: dict[str, list[Tensor]] = {}
        generator = torch.Generator().manual_seed(15)
        truths = {id_: truth.of(id_).plain.float() for id_ in guess.rows}
        count = min(len(t) for t in truths.values())
        nearness = [
            [_nearest(found, true[:count], guess.mean) for true in truths.values()]
            for found in guess.rows.values()
        ]
        for id_, found in guess.rows.items():
            true = truths[id_]
            picks = torch.randperm(len(guess.others), generator=generator)[: len(true)]
            others = guess.others[picks].float()
            for name, rows in (("", true), ("_against_others", others)):
                part = found[: len(rows)]
                near = rows[assigned(part - guess.mean, rows - guess.mean)]
                details.setdefault(f"correlation{name}", []).append(_correlation(part, near, guess.mean))
                details.setdefault(f"psnr_db{name}", []).append(psnr(part, near))
                details.setdefault(f"ssim{name}", []).append(ssim(part, near))
        figures = {name: float(torch.cat(many).mean()) for name, many in details.items()}
        return {"X, rows": Trials(own_rows(nearness), CHANCE, HOW, details=figures)}

    def pictures(self, guess: Recovered, truth: Truth) -> list[tuple[str, Tensor, Tensor]]:
        if guess.picture is None:
            return []
        id_, found = next(iter(guess.rows.items()))
        true = truth.of(id_).plain.float()
        near = true[assigned(found - guess.mean, true - guess.mean)]
        best = _correlation(found, near, guess.mean).topk(min(_PICTURES, len(found))).indices
        shape = guess.picture
        return [(f"row {int(i)}", found[i].view(shape), near[i].view(shape)) for i in best]


def _nearest(found: Tensor, rows: Tensor, mean: Tensor) -> Tensor:
    a, b = (torch.nn.functional.normalize(t - mean, dim=1) for t in (found, rows))
    return (a @ b.mT).amax(1)


def _correlation(found: Tensor, true: Tensor, mean: Tensor) -> Tensor:
    return torch.cosine_similarity(found - mean, true - mean, dim=1).clamp(0, 1)


def psnr(found: Tensor, true: Tensor) -> Tensor:
    """dB of each row, with the range of the true row as the peak."""
    peak = (true.amax(1) - true.amin(1)).clamp(min=1e-6)
    return 20 * torch.log10(peak / (found - true).square().mean(1).sqrt().clamp(min=1e-6))


def ssim(found: Tensor, true: Tensor) -> Tensor:
    """Of each row, with means, variances and covariance taken over all of it."""
    c1, c2 = ((k * (true.amax(1) - true.amin(1))).square() for k in (0.01, 0.03))
    a, b = found.mean(1), true.mean(1)
    va, vb = found.var(1), true.var(1)
    both = ((found - a[:, None]) * (true - b[:, None])).sum(1) / (found.shape[1] - 1)
    return (2 * a * b + c1) * (2 * both + c2) / ((a * a + b * b + c1) * (va + vb + c2))
