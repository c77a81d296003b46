"""Dynamic fixed point: operands as integers whose products fit the residues, whatever they hold.

An operand t is sent as the integers round(2^e t). Scales are powers of two, so scaling rounds nothing and
the only error is that of the integer, 1/2 at most. They are chosen from the plain operands, which the master
sees, such that by Cauchy and Schwarz no entry of a product leaves [-HALF, HALF]:

    Y[t,n]    = sum_k X[t,k] W[n,k]       row of X times row of W          <= HALF
    dX[t,k]   = sum_n dY[t,n] W[n,k]      row of dY times column of W      <= HALF
    dW[n,k]   = sum_t dY[t,n] X[t,k]      column of dY times column of X   <= HALF

and one encoding of each operand serves all three (docs/numerics.md, section 7):

    W    rows and columns of norm 2^(1/2) HALF^(1/2) at most, one scale for a group
    X    columns of norm HALF^(1/2) at most if dW will be wanted, one scale for a group and piece; then rows,
         each with a scale of its own if dW will not: dW adds up rows, Y does not
    dY   what both bounds leave

Axes: T rows of all groups, G groups, R rows of one, K in-features, N out-features, F either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2, prod
from typing import Final, final

import torch
from torch import Tensor

from tempo.kernels import Hidden, contract, norms
from tempo.ops import PRIMES, spans

#: Integers of this magnitude and less are told apart by their residues: (M - 1) / 2, 2^38.49.
HALF: Final = (prod(PRIMES) - 1) // 2
#: Largest norm of a row or column of integers, whatever its partner leaves: they are held in float32, less
#: two residues too (tempo/secrecy/chinese.py), and their projections modulo 2^61 - 1 are summed in float64
#: (tempo/integrity/mersenne.py).
LARGEST: Final = 2.0**23 - 1024
#: W is rounded less often than X and dY meet it: it gets half a bit more than they do.
_OF_W: Final = (2.0 * HALF) ** 0.5
_OF_X: Final = float(HALF) ** 0.5
#: Room for round-off of norms in float64, relative: far more than a sum of 2^31 squares needs.
_SLACK: Final = 1.0 + 2.0**-20
#: Scales stay within the exponents of the operand's dtype. Operands that would need more are not sent
#: (tempo/secrecy/rows.py:unfit).
_MOST: Final = {torch.float32: 120, torch.float64: 960}


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Integers(Hidden):
    """An operand in fixed point. values: float32, whole numbers, (T, F) or (G, N, K). exponents: int64, of
    each row (T,) or group (G,): an entry stands for value * 2^-exponent. rows, columns: for each group the
    largest norm of a row and of a column of values, (G,) float64; columns is None where nothing is summed
    over rows.
    """

    values: Tensor
    exponents: Tensor
    rows: Tensor
    columns: Tensor | None

    @property
    def scales(self) -> Integers:
        """The same without its values."""
        return Integers(self.values.new_empty(0), self.exponents, self.rows, self.columns)


def fixed_weight(w_GNK: Tensor) -> Integers:
    """W, for products with any X and dY."""
    most = _MOST[w_GNK.dtype]
    sizes = [max(_measured(w_NK, summed=True)) for w_NK in w_GNK]
    exponents = torch.tensor([exponent(_OF_W, size, most) for size in sizes], dtype=torch.int64)
    values = torch.empty(w_GNK.shape, dtype=torch.float32)
    for w_NK, out_NK, e in zip(w_GNK, values, exponents, strict=True):
        _round(w_NK, power_of_two(e), out_NK)
    measured = torch.tensor([_measured(v, summed=True) for v in values], dtype=torch.float64).reshape(-1, 2)
    return Integers(values, exponents, measured[:, 0], measured[:, 1])


def fixed_rows(
    t_TF: Tensor,
    counts: Sequence[int],
    partners: Tensor,
    *,
    others: Tensor | None = None,
    summed: bool = False,
) -> Integers:
    """X or dY, for products with an operand whose rows have norms of `partners` (G,) at most.

    counts: rows of each group. summed: the rows will be added up (dW), so a group has one scale. others
    (G,): norms of the columns that it will then meet; None where they will be made to fit this operand.
    Raises OverflowError where an integer product could leave the range: a fault of ours, no user's.
    """
    by_row, most = norms(t_TF), _MOST[t_TF.dtype]
    exponents = torch.zeros(len(t_TF), dtype=torch.int64)
    values = torch.empty(t_TF.shape, dtype=torch.float32)
    rows = torch.zeros(len(counts), dtype=torch.float64)
    columns = torch.zeros(len(counts), dtype=torch.float64) if summed else None
    width = t_TF.shape[1]
    for g, (lo, hi) in enumerate(spans(counts)):
        room = min(_room(float(partners[g])), LARGEST)
        part_RF, norms_R = t_TF[lo:hi], by_row[lo:hi]
        if columns is None:
            exponents[lo:hi] = _exponents(room - width**0.5 / 2, norms_R, most)
        elif hi > lo:
            across = _OF_X if others is None else min(_room(float(others[g])), LARGEST)
            column = float(contract(part_RF, _nothing(hi - lo))[1].amax().sqrt()) if width else 0.0
            largest = float(norms_R.amax())
            exponents[lo:hi] = min(
                exponent(room - width**0.5 / 2, largest, most),
                exponent(across - (hi - lo) ** 0.5 / 2, column, most),
            )
        _round(part_RF, power_of_two(exponents[lo:hi, None]), values[lo:hi])
        rows[g], down = _measured(values[lo:hi], summed=summed)
        if columns is not None:
            columns[g] = down
    require_exact(rows, partners)
    if columns is not None and others is not None:
        require_exact(columns, others)
    return Integers(values, exponents, rows, columns)


def require_exact(left: Tensor, right: Tensor) -> None:
    """Raises OverflowError unless products of vectors of these norms stay within HALF: the one fact that
    all of `shares` rests on, looked at on the integers themselves whenever they are made."""
    largest = float((left * right).amax()) if left.numel() else 0.0
    if not largest * _SLACK <= HALF:
        raise OverflowError(f"integers of a product may reach {largest:.6g}, beyond {HALF}")


def values_of(whole: Tensor, exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """Results: whole numbers (..., F) float64 times 2^-exponents (...,), rounded once, to `dtype`. Uses up
    `whole`."""
    return whole.mul_(power_of_two(-exponents).unsqueeze(-1)).to(dtype)


def power_of_two(exponents: Tensor) -> Tensor:
    """2^e in float64, from the bits: a library's power may be off by an ulp. |e| is at most 1022."""
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def exponent(room: float, norm: float, most: int) -> int:
    """The largest e, at most `most`, with 2^e norm <= room. 0 for a norm of zero."""
    if norm <= 0.0:
        return 0
    e = min(floor(log2(room) - log2(norm)), most)
    return e if 2.0**e * norm * _SLACK <= room else e - 1


def _exponents(room: float, norms_R: Tensor, most: int) -> Tensor:
    """As `exponent`, row by row."""
    e = (log2(room) - torch.log2(norms_R)).floor_().clamp_(max=most).nan_to_num_(0.0).to(torch.int64)
    e = torch.where(power_of_two(e) * norms_R * _SLACK <= room, e, e - 1)
    return torch.where(norms_R > 0, e, torch.zeros_like(e))


def _measured(t_RF: Tensor, *, summed: bool) -> tuple[float, float]:
    """Largest norms of a row and, if it is asked for, of a column."""
    if not t_RF.numel():
        return 0.0, 0.0
    columns = float(contract(t_RF, _nothing(len(t_RF)))[1].amax().sqrt()) if summed else 0.0
    return float(norms(t_RF).amax()), columns


def _nothing(rows: int) -> Tensor:
    return torch.empty(rows, 0, dtype=torch.float64)


def _room(partner: float) -> float:
    """Norm that integers may have beside a partner of that norm. One of zero leaves all of it."""
    return HALF / (partner * _SLACK) if partner else float(HALF)


def _round(t: Tensor, scale: Tensor, out: Tensor) -> None:
    """round(scale t), exact but for the integer."""
    out.copy_(torch.mul(t, scale.to(t.dtype)).round_())
