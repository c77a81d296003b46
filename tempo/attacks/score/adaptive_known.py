"""A secret row is a hit when the opened space holds more of it than of a row of another secret batch, both
less the mean row of their batches.

Both batches met the same weight. What they have in common is known without the transcript, so chance is
what the space of a third batch hits. Rows of one operand share a space; an operand is one trial. How much of
their energy the space holds stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from torch import Tensor

from tempo.attacks.adaptive_known import AdaptiveKnown, Opened
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class AdaptiveKnownScorer(Scorer[Opened]):
    attack: ClassVar[type[AdaptiveKnown]] = AdaptiveKnown

    def score(self, guess: Opened, truth: Truth) -> dict[str, Trials]:
        plain = {i: truth.of(i) for i in sorted(guess.spaces)}
        hits, blind, inside, outside = [], [], [], []
        for here, there, elsewhere in _triples({i: p.weight for i, p in plain.items()}):
            rows, others = (plain[i].plain.double() for i in (here, there))
            own, other = (_held(guess.spaces[here], t) for t in (rows, others))
            hits.append(_share(own, other))
            # The space of a third batch knows what all batches have in common, and nothing of this one.
            blind.append(_share(*(_held(guess.spaces[elsewhere], t) for t in (rows, others))))
            inside.append(float(own.mean()))
            outside.append(float(other.mean()))
        if not hits:
            return {}
        held, otherwise = sum(inside) / len(inside), sum(outside) / len(outside)
        details = {"energy_of_own_rows": held, "energy_of_other_rows": otherwise}
        chance = sum(blind) / len(blind)
        told = "the same with the space that was opened of a third batch"
        return {"X, other requests": Trials(hits, chance, told, details=details)}


def _triples(weights: dict[int, str]) -> Iterator[tuple[int, int, int]]:
    """Each operand with two others that met the same weight."""
    for name in sorted(set(weights.values())):
        ids = [i for i, met in weights.items() if met == name]
        if len(ids) >= 3:
            # Every second batch is of one kind on the reference `kinds`: like is compared with like.
            yield from zip(ids, ids[2:] + ids[:2], ids[1:] + ids[:1], strict=True)


def _share(own: Tensor, other: Tensor) -> float:
    count = min(len(own), len(other))
    return float((own[:count] > other[:count]).double().mean())


def _held(space: Tensor, rows: Tensor) -> Tensor:
    """Share of each row's energy within the space, (R,)."""
    less = rows - rows.mean(0)
    return (less @ space).square().sum(1) / less.square().sum(1).clamp(min=1e-300)
