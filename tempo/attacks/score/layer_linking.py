"""Judge of attack 5: does the assembled copy work?

Held-out samples are trials. Chance: the same probe on networks of the same shape with random weights, since
an
attacker without any transcript can make those.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.layer_linking import FunctionalCopy, LayerLinking
from tempo.attacks.probe import probed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

#: Networks with random weights.
_RANDOM: Final = 8

Array = NDArray[np.float64]


@final
class LayerLinkingScorer(Scorer[FunctionalCopy]):
    attack = LayerLinking

    def score(self, guess: FunctionalCopy, truth: Truth) -> dict[str, Trials]:
        """truth is not needed: a copy works or it does not."""
        (shots, known), (held, labels) = guess.shots, guess.held
        right = probed(shots, known, held) == labels
        widths = [guess.inputs[0].shape[1], *(len(layer.m_NK) for layer in guess.layers)]
        blind = []
        for seed in range(_RANDOM):
            few, many = (_random(t, widths, seed) for t in guess.inputs)
            blind.append(float((probed(few, known, many) == labels).mean()))
        details = {
            "pattern_agreement": float(np.mean(guess.agreements)),
            "link_residual": float(np.mean(guess.residuals)),
            "exact_components": guess.exact_share,
        }
        note = "chance is a probe on random weights; below it the copy is worse than none"
        how = f"mean of {_RANDOM} networks of the same shape with random weights"
        return {"network": Trials(right.astype(float).tolist(), float(np.mean(blind)), how, note, details)}


def _random(samples_SF: Array, widths: list[int], seed: int) -> Array:
    rng, h = np.random.default_rng(seed), samples_SF
    for k, n in pairwise(widths):
        h = np.maximum(h @ rng.standard_normal((k, n)) * (2 / k) ** 0.5, 0)
    return np.asarray(h)
