"""Judge of attack 9: see unmixing.py."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.blind_separation import BlindSeparation, Unmixing
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.score.unmixing import Unmixings, unmixed
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]


@final
class BlindSeparationScorer(Scorer[list[Unmixing]]):
    """Components are trials; M: B of features, A of rows."""

    attack = BlindSeparation

    def score(self, guess: list[Unmixing], truth: Truth) -> dict[str, Trials]:
        found: dict[str, Unmixings] = defaultdict(Unmixings)
        for each in guess:
            kind = {"x": "X", "dy": "dY"}[truth.of(each.operand).kind]
            name = f"{each.axis} of {kind}, {each.method}"
            found[name].add(each.v, true_mixing(each, truth), _pair(each, truth))
        note = "components of one operand are dependent"
        return {name: of.trials(note) for name, of in found.items()}


def true_mixing(each: Unmixing, truth: Truth) -> Array:
    """M D of the axis."""
    plain = truth.of(each.operand)
    x = plain.groups[each.group].double().numpy()
    if each.axis == "features":
        basis, deviations = plain.right[each.group], x.std(0)
        return np.asarray(matrix(basis).numpy() * deviations)
    rows = matrix(plain.left[each.group]).numpy()[each.first : each.first + len(each.v)]
    return np.asarray(rows * x.std(1))


def _pair(each: Unmixing, truth: Truth) -> tuple[Array, Array] | None:
    """Samples of the axis in rows."""
    pair = unmixed(truth.of(each.operand), each.group, each.seen)
    if pair is None or each.axis == "features":
        return pair
    rows = slice(each.first, each.first + len(each.v))
    return pair[0][rows].T, pair[1][rows].T
