"""Judge of attack 9.

    G = V^T M D        score of component i: r_i^2 max_j G_ij^2 / sum_j G_ij^2

r_i: correlation of the component with what V makes of the true operand, where nothing was changed but split
into shares: a share is a mixture of nothing, and its own columns are no sources. Elsewhere 1.
M: the true mixing matrix of the axis (B of features, A of rows), D: deviations of the sources along the
samples. Correlation with sources would mislead: a common mean makes every mixture correlate with every one.
Components are trials. Chance: the same V behind random orthogonal matrices.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from tempo.attacks.blind_separation import BlindSeparation, Unmixing
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]

_RANDOM: Final = 10
#: Rows by which a basis that changes nothing is told.
_ROWS: Final = 16


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
            fidelity = true_share(each, truth)
            values[name] += (fidelity * quality(each.v, mixing)).tolist()
            r = each.v.shape[1]
            for _ in range(_RANDOM):
                q = np.linalg.qr(rng.standard_normal((r, r)))[0]
                blind[name].append(float((fidelity * quality(each.v @ q, mixing)).mean()))
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


def true_share(each: Unmixing, truth: Truth) -> Array:
    """Of the variance of each component."""
    plain = truth.of(each.operand)
    x = plain.groups[each.group].double()
    left, right = plain.left[each.group], plain.right[each.group]
    some = x[:_ROWS]
    if not torch.equal(right.encode(some, 1), some) or not torch.equal(left.encode(x, 0), x):
        return np.ones(each.v.shape[1])
    t = x.numpy()
    t = t[: len(each.found)] if each.axis == "features" else t[each.first : each.first + len(each.v)].T
    one, two = t @ each.v, each.found
    one, two = one - one.mean(0), two - two.mean(0)
    return np.asarray((one * two).sum(0) ** 2 / ((one**2).sum(0) * (two**2).sum(0) + 1e-300))


def quality(v: Array, mixing: Array) -> Array:
    """Of each component."""
    g = (v.T @ mixing) ** 2
    return np.asarray(g.max(1) / (g.sum(1) + 1e-300))
