"""Where rows and columns of an encoded operand come from, for judges of attacks that place them.

Row i of E t is sum_j E_ij t_j. Its place is the j with the largest |E_ij|: the only one under a monomial
basis, the largest share of a mixture otherwise, which is generous to the attacker.
"""

from __future__ import annotations

from torch import Tensor

from tempo.attacks.truth import Plain, matrix
from tempo.secrecy.basis import Basis


def places(basis: Basis) -> Tensor:
    """(L,) plain place of each encoded row or feature."""
    return matrix(basis).abs().argmax(1)


def placed(basis: Basis, guess: Tensor) -> list[float]:
    """One trial for each row: 1 where the guessed place is right."""
    return (places(basis) == guess).double().tolist()


def dealt_out(basis: Basis, guess: Tensor) -> float:
    """Share of right places that the same guesses have, dealt out to the rows at random."""
    true = places(basis)
    size = int(max(true.max(), guess.max())) + 1
    counts = [t.bincount(minlength=size).double() / len(t) for t in (true, guess)]
    return float(counts[0] @ counts[1])


def kind_of(plain: Plain) -> str:
    """For the table: what layer the operand belongs to."""
    return f"{plain.lowering or 'other'} layers"
