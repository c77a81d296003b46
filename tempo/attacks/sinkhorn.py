"""Attack 1: the canonical form of a monomial mask, and an assignment.

W' = D_r P W Q D_c with unknown permutations and signed coefficients; W0 is public and near W.

    1. places           of rows and columns, by the form that no coefficient changes (canonical.py, 1 to 3)
    2. coefficients     W' ~ a b^T o W0 in these places (canonical.py, 4 and 5)
    3. secret           W_ij = W'_ij / (a_i b_j), in the places found
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack
from tempo.attacks.canonical import coefficients, place
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.public import matched
from tempo.attacks.transcript import Transcript

#: Operands attacked.
OPERANDS: Final = 8


@final
@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Of one group of a W': rows[i] and columns[j] are the plain places of encoded row i and column j.

    recovered (N, K): the secret weight in plain places. public: W0.
    """

    id: int
    group: int
    name: str
    rows: Tensor
    columns: Tensor
    recovered: Tensor
    public: Tensor


@final
class Sinkhorn(Attack[PublicWeights, list[Placed]]):
    name = "sinkhorn"
    number = 1
    title = "Sinkhorn canonical form and assignment"
    adversary = "one worker that keeps W'; it needs no data and no gradient"
    side_knowledge = "public weights W0 that the secret ones were fine-tuned from"
    knowledge = PublicWeights
    metric = (
        "rows and columns of W placed; cosine of the recovered change W - W0 with the true one, row by row"
    )
    compute = "200 normalisations and some ten linear assignments an operand: seconds"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> list[Placed]:
        out = []
        for m in matched(transcript, knowledge, OPERANDS):
            rows, columns = place(m.sent, m.public)
            recovered = undo(m.sent, m.public, rows, columns)
            out.append(Placed(m.id, m.group, m.name, rows, columns, recovered, m.public))
        return out


def undo(sent_NK: Tensor, public_NK: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The plain weight from the sent one, given the places: coefficients and signs are read off."""
    a, b = coefficients(sent_NK, public_NK, rows, columns)
    recovered = torch.empty_like(sent_NK, dtype=torch.float64)
    recovered[rows[:, None], columns[None]] = sent_NK.double() / (a[:, None] * b)
    return recovered
