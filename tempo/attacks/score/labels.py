"""Judge of attack 3."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tempo.attacks.labels import LabelRecovery, Labels
from tempo.attacks.score.places import places
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

_SHUFFLES: Final = 20


@final
class LabelsScorer(Scorer[list[Labels]]):
    """One trial for each row, under the renaming of classes that suits the guess best. Chance: guesses dealt
    to rows at random, renamed just so. The label of an encoded row is that of the plain row with the largest
    share of it."""

    attack = LabelRecovery

    def score(self, guess: list[Labels], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        generator = torch.Generator().manual_seed(0)
        for each in guess:
            plain = truth.of(each.dy_id)
            labels = plain.groups[0].argmin(1)[places(plain.left[0])]
            for name, guessed in (("by signs", each.by_signs), ("by clusters", each.by_clusters)):
                values[f"labels {name}"] += _right(guessed, labels).tolist()
                for _ in range(_SHUFFLES):
                    order = torch.randperm(len(labels), generator=generator)
                    chances[f"labels {name}"].append(float(_right(guessed[order], labels).mean()))
        how = "measured: the same guesses dealt to rows at random, classes renamed as well as can be"
        return {name: Trials(v, sum(c) / len(c), how) for name, v in values.items() if (c := chances[name])}


def _right(guessed: Tensor, labels: Tensor) -> Tensor:
    """(T,) 1 where the guess is right under the best renaming."""
    size = int(max(guessed.max(), labels.max())) + 1
    counts = torch.zeros(size, size)
    counts.index_put_((guessed, labels), torch.ones(len(labels)), accumulate=True)
    renamed = torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])
    return (renamed[guessed] == labels).double()
