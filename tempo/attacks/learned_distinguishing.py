"""Attack 15b: a classifier that was trained on runs of the attacker's own tells which kind was run.

    1. Seal examples of every kind under keys of one's own: batches of one class, or the candidate models.
    2. Take numbers that permutations do not change (permutation_invariants.py) of each sealed operand.
    3. Train on them: linear discriminant and extremely randomised trees, probabilities averaged.
    4. Classify what the worker saw.

The attacker needs the scheme's code and public data, no key: Kerckhoffs's principle, and the game of
indistinguishability (Goldwasser and Micali, 1984) with a trained distinguisher in place of a clever one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import OwnRuns
from tempo.attacks.permutation_invariants import invariants
from tempo.attacks.transcript import Transcript

#: Sealed examples of each kind that are trained on, and entries in all of them.
_RUNS: Final = 160
_ENTRIES: Final = 160_000_000
#: Operands that are classified, evenly taken.
_TARGETS: Final = 400
_TREES: Final = 200


@final
@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """kind: of each operand that was classified, by id. kinds: what each kind looks like in the clear, the
    mean row (K,) or the weight (N, K), by which a judge tells what an operand was."""

    operand: str
    kind: dict[int, int]
    kinds: tuple[Tensor, ...]


@final
class LearnedDistinguishing(Attack[OwnRuns, list[Told]]):
    name: ClassVar[str] = "learned-distinguishing"
    number: ClassVar[int] = 15
    title: ClassVar[str] = "Learned distinguishing: which kind of batch, or which model, was run"
    adversary: ClassVar[str] = "a worker that runs the public scheme itself and trains on what it sees"
    side_knowledge: ClassVar[str] = (
        "public data of the same distribution; candidate models; the scheme's code"
    )
    knowledge: ClassVar[type[OwnRuns]] = OwnRuns
    metric: ClassVar[str] = "operands whose kind is told"
    compute: ClassVar[str] = f"{_RUNS} runs of each kind, a discriminant and {_TREES} trees"

    def run(self, transcript: Transcript, knowledge: OwnRuns) -> list[Told]:
        told = []
        if knowledge.rows is not None and knowledge.kinds is not None and knowledge.seal_rows is not None:
            told += list(_batches(transcript, knowledge.rows, knowledge.kinds, knowledge.seal_rows))
        if len(knowledge.weights) > 1 and knowledge.seal_weight is not None:
            told += list(_models(transcript, knowledge.weights, knowledge.seal_weight))
        if not told:
            raise NothingToAttack(
                "no operand has the shape of the attacker's own examples: give rows with kinds, or candidate "
                "weights, of a layer that was offloaded"
            )
        return told


def _batches(
    transcript: Transcript, rows_EPK: Tensor, kinds_E: Tensor, seal: Callable[[Tensor], Tensor]
) -> Iterator[Told]:
    examples, per, k = rows_EPK.shape
    seen: dict[int, dict[int, Tensor]] = {}
    for each in transcript.passes():
        if len(each.rows) == 1 and each.x.shape[1] == k:
            seen.setdefault(each.rows[0], {})[each.x_id] = each.x
    if not seen:
        return
    # Of the commonest number of rows: one classifier for all of them.
    count, operands = max(seen.items(), key=lambda item: len(item[1]))
    generator = torch.Generator().manual_seed(15)
    names = kinds_E.unique().tolist()
    members = [(kinds_E == kind).nonzero().flatten() for kind in names]
    size = -(-count // per)
    if min(len(m) for m in members) < size:
        return

    def draw(kind: int) -> Tensor:
        picks = torch.randperm(len(members[kind]), generator=generator)[:size]
        return seal(rows_EPK[members[kind][picks]].flatten(0, 1)[:count].contiguous())

    means = tuple(rows_EPK[m].mean((0, 1)) for m in members)
    yield Told("X, class of a batch", _classify(operands, draw, len(names), examples), means)


def _models(
    transcript: Transcript, weights: Sequence[Tensor], seal: Callable[[Tensor], Tensor]
) -> Iterator[Told]:
    operands = {i: w[0] for i, w in transcript.weights().items() if w.shape[1:] == weights[0].shape}
    if operands:
        kinds = _classify(operands, lambda kind: seal(weights[kind]), len(weights), _RUNS)
        yield Told("W, which model", kinds, tuple(weights))


def _classify(
    operands: dict[int, Tensor], draw: Callable[[int], Tensor], kinds: int, most: int
) -> dict[int, int]:
    first = next(iter(operands.values()))
    runs = max(20, min(_RUNS, most, _ENTRIES // (kinds * first.numel())))
    examples = torch.stack([invariants(draw(kind)) for kind in range(kinds) for _ in range(runs)]).numpy()
    labels = np.repeat(np.arange(kinds), runs)
    models = [
        make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        ExtraTreesClassifier(_TREES, min_samples_leaf=2, random_state=15),
    ]
    ids = sorted(operands)
    ids = ids[:: -(-len(ids) // _TARGETS)]
    found = torch.stack([invariants(operands[i]) for i in ids]).numpy()
    odds = sum(model.fit(examples, labels).predict_proba(found) for model in models)
    return dict(zip(ids, odds.argmax(1).tolist(), strict=True))
