"""Judge of attack 21.

Operands are trials of "constraint found". A null vector found in X' or dY' is a trial of "part of the basis":
how much of it lies in the image, under the true dual basis, of what the plain operand is orthogonal to, up to
a constant (an affine constraint: a LayerNorm's plane, whose normal is 1/gamma).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.exact_constraints import ExactConstraints, Rank, numerical_rank
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]

_NAMES: Final = {"x": "X", "dy": "dY", "w": "W", "dw": "dW"}


@final
class ExactConstraintsScorer(Scorer[list[Rank]]):
    attack = ExactConstraints

    def score(self, guess: list[Rank], truth: Truth) -> dict[str, Trials]:
        found: dict[str, list[float]] = defaultdict(list)
        lost: dict[str, list[float]] = defaultdict(list)
        shares: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            name = _NAMES[each.kind]
            found[f"{name}: constraint found"].append(float(each.rank < each.full))
            lost[f"{name}: constraint found"].append((each.full - each.rank) / each.full)
            if each.null.shape[1] and each.kind in ("x", "dy"):
                image = _image(each, truth)
                inside = np.linalg.norm(image.T @ each.null, axis=0) if image.size else np.zeros(1)
                shares[f"null vectors of {name}"] += inside.tolist()
                blind[f"null vectors of {name}"].append((image.shape[1] / len(each.null)) ** 0.5)
        out = {
            name: Trials(
                some,
                0.0,
                "operands without exact constraints have full rank",
                "ranks are visible by construction",
                {"share_of_dimensions": float(np.mean(lost[name]))},
            )
            for name, some in found.items()
        }
        how = "a random vector against the true null space: sqrt(d / F)"
        return out | {n: Trials(some, float(np.mean(blind[n])), how) for n, some in shares.items()}


def _image(each: Rank, truth: Truth) -> Array:
    """Orthonormal basis of the image of the plain operand's affine null space."""
    plain = truth.of(each.id)
    t = plain.groups[each.group].double().numpy()
    if each.side == "features":
        basis, about = plain.right[each.group], t - t.mean(0)
    else:
        basis, about = plain.left[each.group], t.T
    _, s, vt = np.linalg.svd(about, full_matrices=True)
    # Plain operands are exact: the same rule for what is zero.
    null = vt[numerical_rank(s) :].T
    return np.asarray(np.linalg.qr(matrix(basis.dual()).numpy() @ null)[0])
