"""Attack 21: exact linear constraints. No basis changes a rank, and a null vector n of X becomes B* n of X'.

What is exact, by operand:

- X: a LayerNorm's output lies in a plane, x . (1/gamma) = beta . (1/gamma), through 0 where beta is 0 or X
  was
  centred exactly; exact centring (1^T X = 0); rows of a softmax (x . 1 = 1); dead ReLU units and constant
  pixels (zero or constant columns); structural zeros of a polyphase component; repeated rows (constant
  background, broadcast states); fewer distinct rows than rows.
- dY: the C - 1 dimensions of C classes below a head; units that never fire; repeated rows (mean pooling);
  zero rows (CLS pooling, masks).
- W: low rank (LoRA, pruned units). dW: the rank of the rows that made it, units that never fired.

Step 1: singular values of every X', dY', W', dW' in float64. Those that fall off by more than GAP to below
what
rounding leaves are constraints. Step 2: the null vectors, of features where rows are enough, else of rows.

Axes: R rows, F features, N and K of a weight; d null vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Transcript

Array = NDArray[np.float64]

#: Below this share of the largest singular value one may be rounding of float32; and how far it must lie
#: below the last one that counts.
FLOOR: Final = 2e-5
GAP: Final = 10.0
_OPERANDS: Final = 100
_WEIGHTS: Final = 10
_GROUPS: Final = 4
#: Rows beyond so many times the features add nothing.
_PLENTY: Final = 2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rank:
    """Of one group of an operand. id: 0 for a dW, which has none. null: (length of the side, d),
    orthonormal, in
    the worker's coordinates; empty where there is no constraint."""

    id: int
    kind: Literal["x", "dy", "w", "dw"]
    group: int
    side: Literal["features", "rows"]
    full: int
    rank: int
    null: Array


@final
class ExactConstraints(Attack[Nothing, list[Rank]]):
    name = "exact-constraints"
    number = 21
    title = "Exact linear constraints: ranks and null vectors"
    adversary = "one worker that records single operands"
    side_knowledge = "none"
    knowledge: ClassVar[type[Nothing]] = Nothing
    metric = "share of operands with an exact constraint; share of a null vector that lies in the true image"
    compute = "a singular value decomposition for each operand"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[Rank]:
        out: list[Rank] = []
        rng = np.random.default_rng(21)
        passes = transcript.passes()
        for p in passes[-_OPERANDS:]:
            few = sorted(rng.permutation(len(p.rows))[:_GROUPS].tolist())
            for g in few:
                out.append(_rank(p.x_id, "x", g, p.groups(p.x)[g].double().numpy()))
                if p.dy is not None and p.dy_id is not None:
                    out.append(_rank(p.dy_id, "dy", g, p.groups(p.dy)[g].double().numpy()))
                if p.dw is not None:
                    out.append(_rank(0, "dw", g, p.dw[g].double().numpy(), most=p.rows[g]))
        for id_, w in list(transcript.weights().items())[-_WEIGHTS:]:
            for g in sorted(rng.permutation(len(w))[:_GROUPS].tolist()):
                out.append(_rank(id_, "w", g, w[g].double().numpy()))
        out = [each for each in out if each.full >= 2]
        if not out:
            raise NothingToAttack("exact constraints need an operand with two rows or more")
        return out


def _rank(
    id_: int, kind: Literal["x", "dy", "w", "dw"], group: int, t: Array, most: int | None = None
) -> Rank:
    """most: what the rank cannot exceed for reasons that are public."""
    rows, features = t.shape
    side: Literal["features", "rows"] = "features" if rows >= features else "rows"
    few = min(rows, features)
    full = few if most is None else min(few, most)
    if few == 0 or not np.isfinite(t).all():
        return Rank(id_, kind, group, side, 0, 0, np.zeros((few, 0)))
    a = t[: _PLENTY * features] if side == "features" else t.T
    # Every row of a at one size: what rounding leaves is relative to rows.
    a = a / (np.linalg.norm(a, axis=1, keepdims=True) + 1e-300)
    if len(a) > a.shape[1]:
        a = np.asarray(np.linalg.qr(a, mode="r"))  # the same values and right vectors
    # Values alone cost a fifth of what vectors do, which few operands are worth.
    rank = numerical_rank(np.asarray(np.linalg.svd(a, compute_uv=False), np.float64))
    null = np.linalg.svd(a, full_matrices=False)[2][rank:].T if rank < full else np.zeros((a.shape[1], 0))
    return Rank(id_, kind, group, side, full, min(rank, full), null)


def numerical_rank(s: Array) -> int:
    """Singular values, descending, that are not rounding: up to the widest drop that ends below the floor."""
    if not len(s) or s[0] == 0:
        return 0
    low = np.flatnonzero(s < FLOOR * s[0])
    if not len(low):
        return len(s)
    drops = s[:-1] / np.maximum(s[1:], 1e-9 * s[0])
    if low[0] == 0 or drops[low[0] - 1 :].max(initial=0) < GAP:
        return len(s)
    return int(low[0] - 1 + drops[low[0] - 1 :].argmax() + 1)
