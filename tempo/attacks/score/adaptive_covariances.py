"""Judge of attack 23: see unmixing.py. How well features were unmixed, component by component."""

from __future__ import annotations

from typing import ClassVar, final

from tempo.attacks.adaptive_covariances import AdaptiveCovariances, Unmixed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.score.unmixing import Unmixings, unmixed
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials


@final
class AdaptiveCovariancesScorer(Scorer[list[Unmixed]]):
    attack: ClassVar[type[AdaptiveCovariances]] = AdaptiveCovariances

    def score(self, guess: list[Unmixed], truth: Truth) -> dict[str, Trials]:
        found = Unmixings()
        for each in guess:
            plain = truth.of(each.x_id)
            mixing = matrix(plain.right[each.group]) * plain.groups[each.group].double().std(0)
            found.add(each.unmixing.mT.numpy(), mixing.numpy(), unmixed(plain, each.group, each.seen))
        operands = float(max(each.operands for each in guess))
        return {"X, features": found.trials(operands_under_one_key=operands)}
