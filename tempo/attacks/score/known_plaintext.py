"""Judge of attack 10. Directions, and rows of other operands under the key, are trials."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.known_plaintext import KnownPlaintextAttack, OpenedKey
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]


@final
class KnownPlaintextScorer(Scorer[list[OpenedKey]]):
    attack = KnownPlaintextAttack

    def score(self, guess: list[OpenedKey], truth: Truth) -> dict[str, Trials]:
        """Chance: the same guess against the truth of another direction, or of another row."""
        values: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        for key in guess:
            plain = truth.of(key.known)
            images = matrix(plain.right[0]).numpy() @ key.directions
            _add("B of a known X", cosines(key.images.T, images.T), values, blind)
            for id_, opened in key.opened:
                other = truth.of(id_)
                x = other.plain.double().numpy()
                # The row with the largest share: the row itself where rows are only permuted.
                own = x[np.abs(matrix(other.left[0]).numpy()).argmax(1)]
                _add("rows of other X under its key", _without_mean(opened, own, x), values, blind)
        how = "the same guess against the truth of another, measured"
        return {name: Trials(some, float(np.mean(blind[name])), how) for name, some in values.items()}


def _without_mean(opened: Array, own: Array, x: Array) -> Array:
    """Cosines of rows outside of the mean's direction, which all rows share."""
    mean = x.mean(0) / (np.linalg.norm(x.mean(0)) + 1e-300)
    return cosines(*(t - np.outer(t @ mean, mean) for t in (opened, own)))


def cosines(a: Array, b: Array) -> Array:
    """|cosine| of every row of a with every row of b."""
    a = a / (np.linalg.norm(a, axis=1, keepdims=True) + 1e-300)
    b = b / (np.linalg.norm(b, axis=1, keepdims=True) + 1e-300)
    return np.asarray(np.abs(a @ b.T))


def _add(name: str, c: Array, values: dict[str, list[float]], blind: dict[str, list[float]]) -> None:
    values[name] += c.diagonal().tolist()
    if len(c) > 1:
        blind[name].append(float((c.sum() - c.trace()) / (c.size - len(c))))
