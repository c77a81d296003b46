"""Attack 4: zero patterns. What ReLU, padding and masks leave at zero stays zero under any permutation with
coefficients.

1. The signature of an operand: how many entries of each row and of each column are not zero, both sorted. No
   permutation and no coefficient changes it. Columns that were mixed in small blocks, with rows only
   permuted, are unmixed first (separation.py).
2. Batches: among candidates, the one whose signature is nearest was run; its pattern then places rows.
3. Links: the gradient dY' of a layer has its zeros where the next layer's X' has them, so signatures say
   which
   operands are of one activation.

Axes: R rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks import relu
from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Candidates
from tempo.attacks.separation import mixed_together, zero_components
from tempo.attacks.transcript import Pass, Transcript

Array = NDArray[np.float64]
Bits = NDArray[np.bool_]
Index = NDArray[np.int64]

#: Operands that are looked at, the last ones; rows of an operand whose rows are placed.
_OPERANDS: Final = 24
_ROWS: Final = 1000
_SMALL: Final = 1e-3


@final
@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """X' with that id is taken for `plain` (R, F), one of `among` candidates. rows[i]: the row of it that row
    i is taken for."""

    x_id: int
    plain: Array
    rows: Index
    among: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class ZeroPatterns:
    """links: (id of dY', id of the X' that is taken to have the same zeros, number it was chosen from)."""

    recognised: tuple[Recognised, ...]
    links: tuple[tuple[int, int, int], ...]


@final
class ZeroPattern(Attack[Candidates, ZeroPatterns]):
    name = "zero-pattern"
    number = 4
    title = "Zero patterns identify batches and link layers"
    adversary = "one worker, or several that collude"
    side_knowledge = "candidate batches, of which one was run; none for linking layers"
    knowledge: ClassVar[type[Candidates]] = Candidates
    metric = "share of operands recognised among candidates, of rows placed, of layers linked"
    compute = "counting; one assignment an operand"

    def run(self, transcript: Transcript, knowledge: Candidates) -> ZeroPatterns:
        passes = transcript.passes()[-_OPERANDS:]
        if not passes:
            raise NothingToAttack("the zero pattern needs a product: no X' was seen")
        seen = {p.x_id: pattern_of(p.x.double().numpy()) for p in passes if len(p.rows) == 1}
        shapes = {p.x_id: tuple(p.x.shape) for p in passes}
        recognised = []
        rng = np.random.default_rng(4)
        plain = [[t.double().flatten(0, -2).numpy() for t in each] for each in knowledge.operands]
        for x_id, pattern in seen.items():
            same = [t for each in plain for t in each if t.shape == shapes[x_id]]
            if len(same) > 1:
                at = _nearest(pattern, [relu.pattern(t) for t in same], rng)
                found = _rows(pattern, relu.pattern(same[at])) if len(pattern) <= _ROWS else np.arange(0)
                recognised.append(Recognised(x_id, same[at], found, len(same)))
        links = _links(passes, seen, rng)
        if not recognised and not links:
            raise NothingToAttack(
                "the zero pattern needs candidates of the shape of some X', or a dY' as wide as an X'"
            )
        return ZeroPatterns(tuple(recognised), tuple(links))


def pattern_of(t_RF: Array) -> Bits:
    """Entries that are not zero, of columns unmixed if they fall into blocks."""
    blocks = mixed_together(t_RF)
    mixed = 1 < max(map(len, blocks)) < t_RF.shape[1]
    if mixed and (t_RF == 0).mean() < 0.5 and len(set(map(len, blocks))) <= 3:
        return relu.pattern(t_RF @ zero_components(t_RF)[0], _SMALL)
    return relu.pattern(t_RF)


def _links(passes: list[Pass], seen: dict[int, Bits], rng: np.random.Generator) -> list[tuple[int, int, int]]:
    links = []
    for p in passes:
        if p.dy is None or p.dy_id is None or len(p.rows) != 1:
            continue
        fit = [i for i, t in seen.items() if t.shape[0] == len(p.dy) and i != p.x_id]
        if len(fit) > 1:
            at = _nearest(pattern_of(p.dy.double().numpy()), [seen[i] for i in fit], rng)
            links.append((p.dy_id, fit[at], len(fit)))
    return links


def _nearest(pattern: Bits, others: list[Bits], rng: np.random.Generator) -> int:
    """Ties go to chance: patterns that are all alike recognise nothing."""
    distance = np.array([_distance(pattern, other) for other in others])
    best = np.flatnonzero(distance <= distance.min() + 1e-12)
    return int(rng.choice(best))


def _distance(one: Bits, two: Bits) -> float:
    total = 0.0
    for axis in (0, 1):
        a, b = (np.sort(t.sum(axis).astype(float))[::-1] for t in (one, two))
        width = max(len(a), len(b))  # unmixing drops columns without any entry
        a, b = (np.pad(t, (0, width - len(t))) for t in (a, b))
        total += float(np.abs(a - b).mean()) / max(one.shape[axis], 1)
    return total


def _rows(one: Bits, two: Bits) -> Index:
    width = max(one.shape[1], two.shape[1])
    padded = [np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in (one, two)]
    return relu.match(*padded).rows
