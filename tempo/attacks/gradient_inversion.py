"""Attack 17: inputs from the gradient of a linear layer's weight, as a worker sees it.

    dW = dY^T X        every row of dW is a mixture of the rows of X, one coefficient for each example

    1. With the public weight, put the columns of dW' in their places (tempo/attacks/canonical.py),
       unless W' lies near W0 as it is.
    2. Rows of dW' span the space of the batch's rows: whiten it, to as many directions as there are examples.
    3. Independent components along the features: pictures are far from Gaussian, mixtures less so (FastICA;
       the cocktail-party attack, Kariyappa et al., arXiv 2209.05578). One row, or few, come out exactly.

Matching gradients by optimisation (Zhu et al., arXiv 1906.08935) solves the same equation, with more freedom
and less success on batches of 64 and more, which is the least that is ever sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.canonical import unmixed
from tempo.attacks.evenly import evenly
from tempo.attacks.knowledge import PublicLayer
from tempo.attacks.separation import fastica
from tempo.attacks.transcript import Transcript

_OPERANDS: Final = 18
_WIDEST: Final = 1024
#: Cosine of W' and W0 above which columns are where they were.
_IN_THE_CLEAR: Final = 0.5
_COMPONENTS: Final = 128
_ITERATIONS: Final = 200


@final
@dataclass(frozen=True, slots=True, eq=False)
class Inverted:
    """rows: of each X by id, what was recovered (S, K). others: public rows (S, K). picture: height and
    width of a row, if it is one."""

    rows: dict[int, Tensor]
    others: Tensor
    picture: tuple[int, int] | None


@final
class GradientInversion(Attack[PublicLayer, Inverted]):
    name: ClassVar[str] = "gradient-inversion"
    number: ClassVar[int] = 17
    title: ClassVar[str] = "Gradient inversion"
    adversary: ClassVar[str] = "a worker that sees dW' and knows about how many examples it sums"
    side_knowledge: ClassVar[str] = "the layer's public W0, to place columns; public rows for a judge"
    knowledge: ClassVar[type[PublicLayer]] = PublicLayer
    metric: ClassVar[str] = (
        "recovered rows that lie nearer to a true row of their operand than to any of another"
    )
    compute: ClassVar[str] = f"FastICA of at most {_COMPONENTS} components, {_ITERATIONS} iterations"

    def run(self, transcript: Transcript, knowledge: PublicLayer) -> Inverted:
        if knowledge.rows is None:
            raise NothingToAttack("without public rows of the layer nobody can say what success would be")
        k = knowledge.rows.shape[1]
        passes = [
            p for p in transcript.passes() if p.dw is not None and len(p.rows) == 1 and p.dw.shape[2] == k
        ]
        if not passes:
            raise NothingToAttack(f"no dW' with {k} in-features was seen")
        out: dict[int, Tensor] = {}
        for each in evenly(passes, _OPERANDS):
            dw = each.dw[0].double() if each.dw is not None else torch.empty(0)
            w = knowledge.weight
            if (
                w is not None
                and each.w is not None
                and each.w.shape[1:] == w.shape
                and max(w.shape) <= _WIDEST
            ):
                likeness = torch.cosine_similarity(each.w.flatten(), w.flatten(), dim=0)
                if likeness < _IN_THE_CLEAR:
                    dw = unmixed(dw, each.w[0], w)
            out[each.x_id] = _components(dw, each.rows[0])
        return Inverted(out, knowledge.rows.float(), knowledge.picture)


def _components(dw_NK: Tensor, examples: int) -> Tensor:
    """(S, K): sources in the span of the rows of dW."""
    values = torch.linalg.svdvals(dw_NK)
    rank = int((values > 1e-5 * values[0]).sum()) if len(values) and values[0] > 0 else 0
    count = min(examples, rank, _COMPONENTS)
    if count < 2:
        return dw_NK[dw_NK.norm(dim=1).argmax()][None].float()
    # Features are the samples, rows of dW the mixtures. Gradients are small: scaled to the order of one.
    samples = (dw_NK / dw_NK.square().mean().sqrt()).mT.numpy()
    sources = samples @ fastica(samples, most=count, turns=_ITERATIONS)
    return torch.from_numpy(sources.T.copy()).float()
