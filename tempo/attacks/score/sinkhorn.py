"""Judge of attack 1."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch
from torch import Tensor

from tempo.attacks.score.places import kind_of, placed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.sinkhorn import Placed, Sinkhorn
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

#: A row that changed by less, relative to its size, has no change that could be recovered.
_MOVED = 1e-5


@final
class SinkhornScorer(Scorer[list[Placed]]):
    """Rows, columns: places. Change: cosine of each recovered row of W - W0 with the true one; chance by
    another row in its place, since W0 by itself is correlated with W - W0 (weight decay)."""

    attack = Sinkhorn

    def score(self, guess: list[Placed], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        details: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for each in guess:
            plain = truth.of(each.id)
            kind, w = kind_of(plain), plain.plain[each.group].double()
            rows, columns, change = f"W rows, {kind}", f"W columns, {kind}", f"W - W0, {kind}"
            values[rows] += placed(plain.left[each.group], each.rows)
            values[columns] += placed(plain.right[each.group], each.columns)
            chances[rows].append(1 / len(each.rows))
            chances[columns].append(1 / len(each.columns))
            moved = w - each.public
            recovered = each.recovered - each.public
            live = moved.norm(dim=1) > _MOVED * w.norm(dim=1)
            if live.any():
                values[change] += _cosines(recovered[live], moved[live]).tolist()
                blind = each.recovered.roll(1, 0) - each.public
                chances[change] += _cosines(blind[live], moved[live]).tolist()
            both = _cosine(each.recovered, w), _cosine(each.public, w)
            for name in (rows, columns, change):
                details[name].append(both)
        return {name: _trials(v, chances[name], details[name]) for name, v in values.items()}


def _trials(values: list[float], chance: list[float], cosines: list[tuple[float, float]]) -> Trials:
    recovered, public = (sum(c) / len(cosines) for c in zip(*cosines, strict=True))
    how = "one over the number of rows or columns; of changes, the cosine with rows put one further"
    details = {"cosine_recovered": recovered, "cosine_public": public}
    return Trials(values, sum(chance) / len(chance), how, details=details)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(_cosines(a.reshape(1, -1), b.reshape(1, -1))[0])


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
