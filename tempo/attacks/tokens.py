"""Attack 16: which tokens were read, from what the first layer of a public language model receives.

    1. Candidates: the state of every token (at every position) in the public model, which anyone computes.
    2. Columns: as they come, and with the public weight placed (placing_columns.py). The version whose rows
       look most like candidates is kept.
    3. A row's token is that of the candidate with the largest |cosine|, with and without the common mean.
    4. Equal tokens at equal positions give equal rows: parallel rows of X' form a cluster, whose rows take
       the token that most of them got. Clusters are a guess of their own: they need no model.

(The nearest-state attack of the literature on embedding inversion, with the monomial basis undone first.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.canonical import unmixed
from tempo.attacks.knowledge import PublicLayer
from tempo.attacks.transcript import Pass, Transcript

_OPERANDS: Final = 6
_ROWS: Final = 1024
#: Candidates that are compared with, and the width up to which columns are placed.
_STATES: Final = 65_536
_WIDEST: Final = 1024
#: |cosine| above which two rows are one.
_PARALLEL: Final = 0.99999


@final
@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """For each operand by id, row by row as seen: the token, and the number of its cluster. states, tokens:
    what is public, by which a judge names the tokens of true rows."""

    tokens_of: dict[int, Tensor]
    clusters: dict[int, Tensor]
    states: Tensor
    tokens: Tensor


@final
class Tokens(Attack[PublicLayer, Read]):
    name: ClassVar[str] = "tokens"
    number: ClassVar[int] = 16
    title: ClassVar[str] = "Token and hidden-state matching"
    adversary: ClassVar[str] = "a worker that has the public language model"
    side_knowledge: ClassVar[str] = "public weights: the states that each token gives, and the layer's W0"
    knowledge: ClassVar[type[PublicLayer]] = PublicLayer
    metric: ClassVar[str] = "rows whose token is named"
    compute: ClassVar[str] = f"cosines of {_ROWS} rows with {_STATES} states"

    def run(self, transcript: Transcript, knowledge: PublicLayer) -> Read:
        if knowledge.rows is None or knowledge.tokens is None:
            raise NothingToAttack("without the public states of tokens there is nothing to compare with")
        states, tokens = knowledge.rows[:_STATES].float(), knowledge.tokens[:_STATES]
        guesses, clusters = {}, {}
        for each in _targets(transcript, knowledge, states.shape[1]):
            rows = each.x[:_ROWS]
            groups = _parallel(rows)
            versions = [rows.float(), *_placed(each, rows, knowledge.weight)]
            found = max((_nearest(v, states) for v in versions), key=lambda f: float(f[0].mean()))
            guesses[each.x_id] = _vote(tokens[found[1]], groups)
            clusters[each.x_id] = groups
        if not guesses:
            raise NothingToAttack(f"no X' of one group has {states.shape[1]} features, as the states have")
        return Read(guesses, clusters, states, tokens)


def _targets(transcript: Transcript, knowledge: PublicLayer, k: int) -> Iterator[Pass]:
    n = None if knowledge.weight is None else knowledge.weight.shape[0]
    passes = [p for p in transcript.passes() if len(p.rows) == 1 and p.x.shape[1] == k]
    # Of the layer itself, where its width tells it from others.
    passes = [p for p in passes if n is None or p.w is None or p.w.shape[1] == n]
    yield from passes[:: max(1, -(-len(passes) // _OPERANDS))]


def _placed(each: Pass, rows: Tensor, weight: Tensor | None) -> Iterator[Tensor]:
    if weight is not None and each.w is not None and max(weight.shape) <= _WIDEST:
        yield unmixed(rows, each.w[0], weight).float()


def _nearest(rows: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Largest |cosine| and where; of raw states or of those less their mean, whichever fits better."""
    unit = torch.nn.functional.normalize(rows, dim=1)
    options = []
    for s in (states, states - states.mean(0)):
        options.append((unit @ torch.nn.functional.normalize(s, dim=1).mT).abs().max(1))
    best = max(options, key=lambda o: float(o.values.mean()))
    return best.values, best.indices


def _parallel(rows: Tensor) -> Tensor:
    """(T,) the first row that each is parallel to: its cluster's number."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    return ((unit @ unit.mT).abs() > _PARALLEL).int().argmax(1)


def _vote(tokens: Tensor, groups: Tensor) -> Tensor:
    out = tokens.clone()
    for group in groups.unique():
        of = groups == group
        out[of] = tokens[of].mode().values
    return out
