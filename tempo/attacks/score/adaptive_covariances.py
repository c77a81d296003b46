"""How well features were unmixed: G = U B diag(deviation of each feature), and of each recovered feature the
largest share max_k G_k^2 / sum_k G_k^2 that one true feature has in its energy.

Chance is that of random rotations in place of the one that was found, on the same whitener. (Plain
correlation would mislead: features are correlated among themselves.)
"""

from __future__ import annotations

from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.adaptive_covariances import AdaptiveCovariances, Unmixed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

_DRAWS: Final = 8


@final
class AdaptiveCovariancesScorer(Scorer[list[Unmixed]]):
    attack: ClassVar[type[AdaptiveCovariances]] = AdaptiveCovariances

    def score(self, guess: list[Unmixed], truth: Truth) -> dict[str, Trials]:
        shares: list[float] = []
        blind: list[float] = []
        generator = torch.Generator().manual_seed(23)
        for each in guess:
            plain = truth.of(each.x_id)
            basis = matrix(plain.right[each.group]) if plain.right else torch.eye(len(each.whitener)).double()
            mixing = basis * plain.groups[each.group].double().std(0)
            shares += largest_share(each.unmixing @ mixing).tolist()
            for _ in range(_DRAWS):
                noise = torch.randn(each.whitener.shape, generator=generator, dtype=torch.float64)
                blind += largest_share(torch.linalg.qr(noise)[0] @ each.whitener @ mixing).tolist()
        chance = sum(blind) / len(blind)
        details = {"operands_under_one_key": float(max(each.operands for each in guess))}
        return {"X, features": Trials(shares, chance, "random rotations, same whitener", details=details)}


def largest_share(g: Tensor) -> Tensor:
    """(rows,)"""
    energy = g.square()
    return energy.amax(1) / energy.sum(1).clamp(min=1e-300)
