"""How well a basis was unmixed, and what one who knows nothing of it would score: for judges of attacks 9, 11
and 23.

    G = V^T M D        score of component i: r_i^2 max_j G_ij^2 / sum_j G_ij^2

M: the true mixing matrix of the axis, D: deviations of the sources along the samples. Correlation with
sources would mislead: a common mean makes every mixture correlate with every one.
r_i: correlation of the component with what V makes of the true operand, where nothing was changed but split
into shares: a share is a mixture of nothing, and to find its own columns, which noise of independent entries
allows, is to find nothing. Elsewhere 1.

Two things can be guessed blindly, and chance is whichever scores more: the rotation (the same whitening
behind random orthogonal matrices), and, where r counts, the operand (its samples in another order).
Components of one operand are no independent trials, so a draw is one of all of them, and the error of a
score is what draws
differ by, if that is more than trials do.

Axes: F mixtures, S samples, r components.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempo.attacks.truth import Plain
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]

DRAWS: Final = 20
HOW: Final = (
    f"{DRAWS} random rotations behind the same whitening, or true samples in another order; the larger"
)
#: Rows by which a basis that changes nothing is told.
_ROWS: Final = 16


@final
@dataclass(slots=True, eq=False)
class Unmixings:
    """Components of one kind of operand, gathered. Seeded."""

    values: list[float] = field(default_factory=list)
    _blind: list[Array] = field(default_factory=list)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, v_Fr: Array, mixing_FF: Array, pair: tuple[Array, Array] | None) -> None:
        """pair: what was seen and what was true (S, F), in the same order, where nothing was mixed."""
        share, shuffled = np.ones(v_Fr.shape[1]), None
        own = quality(v_Fr, mixing_FF)
        if pair is not None:
            found, true = pair[0] @ v_Fr, pair[1] @ v_Fr
            share = _alike(found, true)
            shuffled = np.stack([own * _alike(found, self._rng.permutation(true)) for _ in range(DRAWS)])
        self.values += (share * own).tolist()
        rotated = np.stack(
            [share * quality(v_Fr @ self._rotation(len(share)), mixing_FF) for _ in range(DRAWS)]
        )
        take = shuffled is not None and shuffled.mean() > rotated.mean()
        self._blind.append(shuffled if take and shuffled is not None else rotated)

    def trials(self, note: str = "", **details: float) -> Trials:
        draws = np.concatenate(self._blind, 1).mean(1)
        error = float(draws.std(ddof=1)) * (1 + 1 / DRAWS) ** 0.5
        return Trials(self.values, float(draws.mean()), HOW, note, details, error)

    def _rotation(self, r: int) -> Array:
        return np.asarray(np.linalg.qr(self._rng.standard_normal((r, r)))[0])


def quality(v_Fr: Array, mixing_FF: Array) -> Array:
    """Of each component."""
    g = (v_Fr.T @ mixing_FF) ** 2
    return np.asarray(g.max(1) / (g.sum(1) + 1e-300))


def unmixed(plain: Plain, group: int, seen: Tensor) -> tuple[Array, Array] | None:
    """What was seen of a group (R, F) beside what was true, where no basis changed either axis."""
    x = plain.groups[group].double()
    some = x[:_ROWS]
    left, right = plain.left[group], plain.right[group]
    if not torch.equal(right.encode(some, 1), some) or not torch.equal(left.encode(x, 0), x):
        return None
    count = min(len(seen), len(x))
    return seen[:count].double().numpy(), x[:count].numpy()


def _alike(one_Sr: Array, two_Sr: Array) -> Array:
    """Squared correlation, column by column."""
    one, two = one_Sr - one_Sr.mean(0), two_Sr - two_Sr.mean(0)
    return np.asarray((one * two).sum(0) ** 2 / ((one**2).sum(0) * (two**2).sum(0) + 1e-300))
