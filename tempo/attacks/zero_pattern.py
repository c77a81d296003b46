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

from collections.abc import Sequence
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
_OPERANDS: Final = 192
_ROWS: Final = 1000
#: Operands whose rows are placed.
_PLACED: Final = 24
_SMALL: Final = 1e-3


@final
@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """X' with that id is taken for candidate `at` of `known`, each (R, F). rows[i]: the row of it that row i
    is taken for; none where rows were not placed."""

    x_id: int
    at: int
    known: tuple[Array, ...]
    rows: Index


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
        recognised: list[Recognised] = []
        rng = np.random.default_rng(4)
        known = _by_shape(knowledge)
        patterns = {shape: [relu.pattern(t) for t in same] for shape, same in known.items()}
        sums = {shape: _Sums(each) for shape, each in patterns.items()}
        for x_id, pattern in seen.items():
            same = known.get(shapes[x_id], ())
            if len(same) > 1:
                at = sums[shapes[x_id]].nearest(pattern, rng)
                few = len(pattern) <= _ROWS and len(recognised) < _PLACED
                found = _rows(pattern, patterns[shapes[x_id]][at]) if few else np.arange(0)
                recognised.append(Recognised(x_id, at, same, found))
        links = _links(passes, seen, rng)
        if not recognised and not links:
            raise NothingToAttack(
                "the zero pattern needs candidates of the shape of some X', or a dY' as wide as an X'"
            )
        return ZeroPatterns(tuple(recognised), tuple(links))


def _by_shape(knowledge: Candidates) -> dict[tuple[int, ...], tuple[Array, ...]]:
    """Every X of the candidates, by shape; the same layers of all, so that shapes are compared once."""
    found: dict[tuple[int, ...], list[Array]] = {}
    for each in knowledge.operands:
        # X, W and dY of every layer (see similarity.candidate), or X alone of one.
        for t in each[::3]:
            plain = t.double().flatten(0, -2).numpy()
            found.setdefault(plain.shape, []).append(plain)
    return {shape: tuple(same) for shape, same in found.items()}


def pattern_of(t_RF: Array) -> Bits:
    """Entries that are not zero, of columns unmixed if they fall into blocks."""
    blocks = mixed_together(t_RF)
    mixed = 1 < max(map(len, blocks)) < t_RF.shape[1]
    if mixed and (t_RF == 0).mean() < 0.5 and len(set(map(len, blocks))) <= 3:
        return relu.pattern(t_RF @ zero_components(t_RF)[0], _SMALL)
    return relu.pattern(t_RF)


def _links(passes: list[Pass], seen: dict[int, Bits], rng: np.random.Generator) -> list[tuple[int, int, int]]:
    links = []
    of_ids: dict[tuple[int, ...], _Sums] = {}
    for p in passes:
        if p.dy is None or p.dy_id is None or len(p.rows) != 1:
            continue
        fit = [i for i, t in seen.items() if t.shape[0] == len(p.dy) and i != p.x_id]
        if len(fit) > 1:
            same = tuple(i for i, t in seen.items() if t.shape[0] == len(p.dy))
            if same not in of_ids:
                of_ids[same] = _Sums([seen[i] for i in same])
            sums = of_ids[same]
            but = same.index(p.x_id) if p.x_id in same else None
            at = sums.nearest(pattern_of(p.dy.double().numpy()), rng, but=but)
            links.append((p.dy_id, same[at], len(fit)))
    return links


@final
class _Sums:
    """Numbers of entries of rows and of columns of many patterns, each sorted and padded to one length."""

    def __init__(self, patterns: Sequence[Bits]) -> None:
        self._widths = [max(t.shape[axis] for t in patterns) for axis in (1, 0)]
        self._of = [np.stack([_counts(t, axis, w) for t in patterns]) for axis, w in enumerate(self._widths)]

    def nearest(self, pattern: Bits, rng: np.random.Generator, but: int | None = None) -> int:
        """Ties go to chance: patterns that are all alike recognise nothing. but: one that it is not."""
        distance = np.zeros(len(self._of[0]))
        for axis, (width, theirs) in enumerate(zip(self._widths, self._of, strict=True)):
            # Unmixing drops columns without any entry.
            mine = _counts(pattern, axis, max(width, pattern.shape[1 - axis]))
            theirs = np.pad(theirs, ((0, 0), (0, len(mine) - width)))
            distance += np.abs(mine - theirs).mean(1) / max(pattern.shape[axis], 1)
        if but is not None:
            distance[but] = np.inf
        return int(rng.choice(np.flatnonzero(distance <= distance.min() + 1e-12)))


def _counts(pattern: Bits, axis: int, width: int) -> Array:
    counts = np.sort(pattern.sum(axis).astype(float))[::-1]
    return np.pad(counts, (0, width - len(counts)))


def _rows(one: Bits, two: Bits) -> Index:
    width = max(one.shape[1], two.shape[1])
    padded = [np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in (one, two)]
    return relu.match(*padded).rows
