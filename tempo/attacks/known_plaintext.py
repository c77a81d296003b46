"""Attack 10: known plaintext. One batch is known; what else is open under the key that hid it?

The rows' basis A is fresh for every operand, the features' B is shared by all that meet one W'.
So B is sought:
X' = A (X - 1 c^T) B^T with X known and A, c unknown.

1. Permutations with coefficients. Scaling rows and columns of X o X to constant sums in turn (Sinkhorn 1964)
   gives a canonical form that no coefficient changes; sorted columns match, then rows and columns by turns.
   Coefficients of B: medians of ratios, less those of rows. Taken if the canonical forms agree.
2. Any other A, nearly orthogonal: X'^T X' is close to B X^T X B^T. With two known operands under B the
   generalised eigenvectors v of (X1^T X1, X2^T X2) have images B^-T v, those of the primed pair; with one,
   the
   eigenvectors of X^T X have images that an orthogonal B would give.
3. Everything else under that key is read in plain coordinates: X'_2 B^-T = A_2 X_2.

Axes: R rows, K features, m directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import KnownPlaintext
from tempo.attacks.transcript import Pass, Transcript

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_SINKHORN: Final = 100
_QUANTILES: Final = 65
_TURNS: Final = 6
_ROWS: Final = 1500
#: Correlation of canonical forms from which on they are one.
_AGREE: Final = 0.98
_DIRECTIONS: Final = 64
_OTHERS: Final = 6


@final
@dataclass(frozen=True, slots=True, eq=False)
class OpenedKey:
    """What a known operand says of its B. directions (K, m) in plain features, images (K, m): what B makes of
    them, up to scale. inverse (K, K): X' inverse = A X. others: ids of operands under the same key."""

    known: int
    directions: Array
    images: Array
    opened: tuple[tuple[int, Array], ...]
    method: str


@final
class KnownPlaintextAttack(Attack[KnownPlaintext, list[OpenedKey]]):
    name = "known-plaintext"
    number = 10
    title = "Known plaintext: what one known batch opens under its key"
    adversary = "one worker, or several that collude"
    side_knowledge = "the plain rows of some operands"
    knowledge: ClassVar[type[KnownPlaintext]] = KnownPlaintext
    metric = "cosine of images of known directions under B; cosine of rows of other operands under that key"
    compute = "assignments and eigenproblems of the size of an operand"

    def run(self, transcript: Transcript, knowledge: KnownPlaintext) -> list[OpenedKey]:
        known = knowledge.operands or {}
        out = []
        for passes in transcript.layers():
            mine = [p for p in passes if p.x_id in known and len(p.rows) == 1]
            if mine:
                plain = [known[p.x_id].double().numpy() for p in mine]
                others = [p for p in passes if p.x_id not in known and len(p.rows) == 1]
                out.append(_opened(mine, plain, others[:_OTHERS]))
        if not out:
            raise NothingToAttack("no operand of one group is known: name ids and plain rows")
        return out


def _opened(known: list[Pass], plain: list[Array], others: list[Pass]) -> OpenedKey:
    seals = [p.x.double().numpy() for p in known]
    agreement, b = _monomial(plain[0][:_ROWS], seals[0]) if len(plain[0]) == len(seals[0]) else (0.0, None)
    if b is not None and agreement > _AGREE:
        directions, images, method = np.eye(len(b)), b, "canonical form"
    else:
        directions, images = _moments(plain, seals)
        method = "pencil" if len(plain) > 1 else "eigenvectors"
    # X' = A X B^T with B directions = images, so X' (images^-T directions^T) = A X.
    inverse = np.linalg.pinv(images).T @ directions.T
    opened = tuple((p.x_id, p.x.double().numpy() @ inverse) for p in others)
    strongest = np.argsort(-np.linalg.norm(plain[0] @ directions, axis=0))[:_DIRECTIONS]
    return OpenedKey(known[0].x_id, directions[:, strongest], images[:, strongest], opened, method)


def canonical(t_RF: Array) -> Array:
    """Squares, rows and columns scaled to unit means by turns."""
    s = np.square(t_RF)
    for _ in range(_SINKHORN):
        s = s / (s.mean(1, keepdims=True) + 1e-300)
        s = s / (s.mean(0, keepdims=True) + 1e-300)
    return s


def _monomial(x: Array, sealed: Array) -> tuple[float, Array]:
    """Correlation of the canonical forms as matched, and B as a matrix."""
    if len(x) != len(sealed):
        return 0.0, np.eye(x.shape[1])
    one, two = canonical(x), canonical(sealed)
    columns = _nearest(_sorted(one), _sorted(two))
    rows = _nearest(_sorted(one.T), _sorted(two.T))
    for _ in range(_TURNS):
        columns = _place(one.T, two[rows].T)
        rows = _place(one, two[:, columns])
    matched = two[rows][:, columns]
    agreement = float(np.corrcoef(one.ravel(), matched.ravel())[0, 1])
    # Columns that nothing distinguishes (dead ones) have a ratio of none: 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sealed[rows][:, columns] / x
    ratio[~np.isfinite(ratio) | (ratio == 0)] = np.nan
    right = np.linalg.svd(np.nan_to_num(np.sign(ratio)), full_matrices=False)[2]
    logs = np.log(np.abs(ratio))
    row, column = np.zeros(len(x)), np.zeros(x.shape[1])
    for _ in range(10):
        column = _median(logs - row[:, None], 0)
        row = _median(logs - column, 1)
    b = np.zeros((x.shape[1], x.shape[1]))
    b[columns, np.arange(x.shape[1])] = np.exp(column) * np.where(right[0] < 0, -1.0, 1.0)
    return agreement, b


def _sorted(t_RF: Array) -> Array:
    return np.asarray(np.quantile(np.sqrt(t_RF), np.linspace(0, 1, _QUANTILES), axis=0).T)


def _nearest(f: Array, g: Array) -> Index:
    cost = (f**2).sum(1)[:, None] + (g**2).sum(1)[None] - 2 * f @ g.T
    return np.asarray(linear_sum_assignment(cost)[1])


def _place(f: Array, g: Array) -> Index:
    return _nearest(np.sqrt(f), np.sqrt(g))


def _median(t: Array, axis: int) -> Array:
    empty = np.isnan(t).all(axis)
    return np.asarray(np.nanmedian(np.where(np.expand_dims(empty, axis), 0.0, t), axis))


def _moments(plain: list[Array], seals: list[Array]) -> tuple[Array, Array]:
    """Directions and images from second moments, ordered by eigenvalue. X is sealed less about its mean."""
    m = [(x - x.mean(0)).T @ (x - x.mean(0)) for x in plain]
    n = [s.T @ s for s in seals]
    if len(m) == 1:
        return np.asarray(np.linalg.eigh(m[0])[1]), np.asarray(np.linalg.eigh(n[0])[1])
    first, second = (_pencil(t[0], sum(t[1:], np.zeros_like(t[0]))) for t in (m, n))
    # V and V' solve the primed and the plain problem, V' = B^-T V: images of V^-T are V'^-T.
    return np.asarray(np.linalg.pinv(first).T), np.asarray(np.linalg.pinv(second).T)


def _pencil(a: Array, b: Array) -> Array:
    ridge = 1e-9 * np.trace(a + b) / len(a) * np.eye(len(a))
    return np.asarray(eigh(a + ridge, a + b + 2 * ridge)[1])
