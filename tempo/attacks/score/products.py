"""Judge of attack 2."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.products import KeyShiftProducts, Products, summed
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

#: Deviation that still counts as equal: of the value, and of the root mean square of all, since sums in
#: float32 lose what is small beside their terms.
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-5
_NAMES: Final = {
    "w": "W and dW",
    "y": "Y and dY",
    "x": "X and dX",
    "rows": "sums for each row",
    "n": "sums for each out-feature",
    "k": "sums for each in-feature",
}


@final
class ProductsScorer(Scorer[list[Products]]):
    """One trial for each pair of operands. Chance: the true products of another pair of the kind, brought to
    the same root mean square."""

    attack = KeyShiftProducts

    def score(self, guess: list[Products], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        deviations: dict[str, list[float]] = defaultdict(list)
        before: dict[str, Tensor] = {}
        for each in guess:
            name, true = _NAMES[each.kind], _true(each, truth)
            values[name].append(_agreement(each.values, true))
            deviations[name].append(float((each.values - true).norm() / true.norm().clamp_min(1e-300)))
            other = before.get(each.kind, -true.flip(0))
            chances[name].append(_agreement(_as(other, true), true))
            before[each.kind] = true
        how = "true products of another operand, of the same root mean square"
        return {
            name: Trials(
                v,
                sum(chances[name]) / len(v),
                how,
                details={"median_deviation": float(torch.tensor(deviations[name]).median())},
            )
            for name, v in values.items()
        }


def _true(each: Products, truth: Truth) -> Tensor:
    g = each.group
    x, w, dy = (truth.of(i).groups[g].double() for i in (each.x_id, each.w_id, each.dy_id))
    match each.kind:
        case "x":
            product = x * (dy @ w)
        case "y" | "rows":
            product = (x @ w.mT) * dy
        case _:
            product = w * (dy.mT @ x)
    return summed(product, each.kind).sort().values


def _agreement(values: Tensor, true: Tensor) -> float:
    scale = true.square().mean().sqrt()
    close = (values - true).abs() <= _RELATIVE * true.abs() + _ABSOLUTE * scale
    # Exact zeros (ReLU) sort to the same place in any two operands with enough of them: they tell nothing.
    telling = true.abs() > 10 * _ABSOLUTE * scale
    return float(close[telling].double().mean()) if telling.any() else 0.0


def _as(other: Tensor, true: Tensor) -> Tensor:
    """Quantiles of another operand's products, as many and of the same size."""
    at = torch.linspace(0, len(other) - 1, len(true)).round().long()
    scale = true.square().mean().sqrt() / other.square().mean().sqrt().clamp_min(1e-300)
    return other[at] * scale
