"""Judge of attack 9.

    G = V^T M D        score of component i: max_j G_ij^2 / sum_j G_ij^2

M: the true mixing matrix of the axis (B of features, A of rows), D: deviations of the sources along the
samples. Correlation would mislead: a common mean makes every mixture correlate with every source.
Components are trials. Chance: the same V behind random orthogonal matrices.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.blind_separation import BlindSeparation, Unmixing
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]

_RANDOM: Final = 10


@final
class BlindSeparationScorer(Scorer[list[Unmixing]]):
    attack = BlindSeparation

    def score(self, guess: list[Unmixing], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        rng = np.random.default_rng(0)
        for each in guess:
            mixing = true_mixing(each, truth)
            kind = {"x": "X", "dy": "dY"}[truth.of(each.operand).kind]
            name = f"{each.axis} of {kind}, {each.method}"
            values[name] += quality(each.v, mixing).tolist()
            r = each.v.shape[1]
            for _ in range(_RANDOM):
                q = np.linalg.qr(rng.standard_normal((r, r)))[0]
                blind[name].append(float(quality(each.v @ q, mixing).mean()))
        how = f"the same whitening behind {_RANDOM} random orthogonal matrices, measured"
        return {
            name: Trials(some, float(np.mean(blind[name])), how, "components of one operand are dependent")
            for name, some in values.items()
        }


def true_mixing(each: Unmixing, truth: Truth) -> Array:
    """M D of the axis."""
    plain = truth.of(each.operand)
    x = plain.groups[each.group].double().numpy()
    if each.axis == "features":
        basis, deviations = plain.right[each.group], x.std(0)
        return np.asarray(matrix(basis).numpy() * deviations)
    rows = matrix(plain.left[each.group]).numpy()[each.first : each.first + len(each.v)]
    return np.asarray(rows * x.std(1))


def quality(v: Array, mixing: Array) -> Array:
    """Of each component."""
    g = (v.T @ mixing) ** 2
    return np.asarray(g.max(1) / (g.sum(1) + 1e-300))
