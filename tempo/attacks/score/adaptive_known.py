"""A secret row is a hit when the opened space holds more of it than of a row of another secret batch, both
less the mean row of their batches.

Batches come from one distribution, so who knows nothing hits half the time. Rows of one operand share a
space; an operand is one trial. How much of their energy the space holds stands beside it.
"""

from __future__ import annotations

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
        ids = sorted(guess.spaces)
        plain = {i: truth.of(i).plain.double() for i in ids}
        hits, inside, outside = [], [], []
        for here, there in zip(ids, ids[1:] + ids[:1], strict=True):
            if plain[here].shape[1] != plain[there].shape[1] or here == there:
                continue
            own, other = (_held(guess.spaces[here], plain[i]) for i in (here, there))
            count = min(len(own), len(other))
            hits.append(float((own[:count] > other[:count]).double().mean()))
            inside.append(float(own.mean()))
            outside.append(float(other.mean()))
        if not hits:
            return {}
        held, otherwise = sum(inside) / len(inside), sum(outside) / len(outside)
        details = {"energy_of_own_rows": held, "energy_of_other_rows": otherwise}
        return {"X, other requests": Trials(hits, 0.5, "batches are exchangeable", details=details)}


def _held(space: Tensor, rows: Tensor) -> Tensor:
    """Share of each row's energy within the space, (R,)."""
    less = rows - rows.mean(0)
    return (less @ space).square().sum(1) / less.square().sum(1).clamp(min=1e-300)
