"""Attack 2: element-wise products under key shift.

A gradient lives in the dual basis. For a monomial E = diag(s) P the dual is diag(1/s) P, so

    W'_ij dW'_ij = W_kl dW_kl        Y' dY' = Y dY        X' dX' = X dX        (places permuted)

exactly: coefficients and signs cancel, in one pass over what a worker holds. Summed over one axis, whatever
basis that axis has cancels too, so one monomial axis is enough:

    rows  sum_n Y'_tn dY'_tn      out-features  sum_k W'_nk dW'_nk      in-features  sum_n W'_nk dW'_nk

(X' dX' gives the same sums as Y' dY' over rows, for x.dx = x W^T dy = y.dy.) (Xu and Fang, arXiv 2401.11531,
section 4.3, reuse forward ciphertexts in just this way.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Pass, Transcript

#: Products of one kind that are taken; seeded.
OPERANDS: Final = 100
KINDS: Final = ("w", "y", "x", "rows", "n", "k")
_SEED: Final = 2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """Of one group: values in ascending order, float64. Ids as in the pass. kind: "w", "y" or "x"; or
    the axis that is left of a sum, "rows", "n" or "k"."""

    kind: str
    group: int
    x_id: int
    w_id: int
    dy_id: int
    values: Tensor


@final
class KeyShiftProducts(Attack[Nothing, list[Products]]):
    name = "products"
    number = 2
    title = "Element-wise products of an operand and its gradient"
    adversary = "one worker that keeps what it computed"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "share of the sorted products that equal the true ones to one part in a thousand"
    compute = "one multiplication an element, and a sort"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[Products]:
        out: list[Products] = []
        generator = torch.Generator().manual_seed(_SEED)
        passes = [p for p in transcript.passes() if p.w_id is not None and p.dy_id is not None]
        for kind in KINDS:
            found = [(p, g) for p in passes for g in range(len(p.rows)) if _pair(p, kind, g) is not None]
            for i in sorted(torch.randperm(len(found), generator=generator)[:OPERANDS].tolist()):
                p, g = found[i]
                out += _products(p, g, kind)
        if not out:
            raise NothingToAttack(
                "no gradient refers to an X' or W' of a forward product: key shift is off, or no backward "
                "pass was recorded"
            )
        return out


def _pair(p: Pass, kind: str, group: int) -> tuple[Tensor, Tensor] | None:
    if kind in ("w", "n", "k"):
        return None if p.w is None or p.dw is None else (p.w[group], p.dw[group])
    a, b = (p.x, p.dx) if kind == "x" else (p.y, p.dy)
    return None if a is None or b is None else (p.groups(a)[group], p.groups(b)[group])


def _products(p: Pass, group: int, kind: str) -> Iterator[Products]:
    pair = _pair(p, kind, group)
    if pair is not None and p.w_id is not None and p.dy_id is not None and pair[0].numel():
        values = summed(pair[0].double() * pair[1].double(), kind)
        yield Products(kind, group, p.x_id, p.w_id, p.dy_id, values.sort().values)


def summed(product: Tensor, kind: str) -> Tensor:
    """The values of that kind from a matrix of products, flat."""
    match kind:
        case "rows" | "n":
            return product.sum(1)
        case "k":
            return product.sum(0)
        case _:
            return product.flatten()
