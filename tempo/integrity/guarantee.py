"""Which wrong replies are found, and how surely. Derived in docs/numerics.md, section 8.

A row of a reply that differs from the exact product of what was sent by D passes one probe r with

    P(|D . r| <= T) = P(|N(0, 1)| <= T / ||D||) = erf(T / (sqrt(2) ||D||)) <= 0.8 T / ||D||

T the calibrated tolerance of the row, and P probes with the P-th power of it. A reply passes if all its rows
do, so no more often than its worst row. Where T depends on r (operands or result rounded by the worker),
T <= T_0 + phi(x) A but with probability j exp(-x), phi(x)^2 = 1 + 2 sqrt(x) + 2 x (Laurent and Massart,
Ann. Statist. 28, 2000, for quadratic forms of normal variables, all their weight on one), so

    ||D|| >= size(q - j exp(-x)) (T_0 + phi(x) A)      is missed by P probes with q^P at most, for every x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, erf, exp, inf, log, pi, sqrt
from statistics import NormalDist
from typing import Final, final

import torch

from tempo.errors import UsageError
from tempo.integrity.tolerance import BF16_UNIT, DEVIATIONS, product_tolerance, rounding
from tempo.ops import Arithmetic, Op
from tempo.ops.arithmetic import result_dtype

#: The setting `integrity` = t takes as many probes as find a row that is this many tolerances off with 1 - t.
STATED_SIZE: Final = 10.0
#: What a session states where it was given probes and no t.
STATED_MISS: Final = 1e-3
#: Smaller ones than this are beyond what anybody can measure.
LEAST_MISS: Final = 1e-12


def missed(size: float, probes: int) -> float:
    """Probability that a row passes which differs by `size` tolerances, where the tolerance is the same for
    every probe (operands multiplied as sent, float32 or float64 results)."""
    return float(erf(1 / (sqrt(2) * size)) ** probes) if size > 0 else 1.0


def size_found(t: float, probes: int) -> float:
    """The least difference, in tolerances, that is missed with probability t at most."""
    q = float(t ** (1 / probes))
    if q < 1e-6:  # 2 Phi(x) - 1 <= sqrt(2 / pi) x: no less than the exact value
        return sqrt(2 / pi) / q
    return 1 / NormalDist().inv_cdf((1 + q) / 2)


def probes_for(t: float) -> int:
    """The fewest probes that miss a difference of STATED_SIZE tolerances with probability t at most."""
    if not LEAST_MISS <= t < 1:
        raise UsageError(f"integrity = {t!r} is a probability from {LEAST_MISS:g} to below 1")
    return max(1, ceil(log(t) / log(missed(STATED_SIZE, 1)) - 1e-9))


@final
@dataclass(frozen=True, slots=True)
class Guarantee:
    """A row that differs from the product of what was sent by more than this is missed with probability
    `miss` at most.

    of_norms: relative to ||a|| ||B||. of_row: relative to the largest of ||c||, of the size that the row had
    were its terms of random sign, (sum_k a_k^2 ||b_k||^2)^(1/2), and of ||a|| ||B|| / sqrt(K), which are
    about the same for mixed operands. inner, outer: the largest that it holds for.
    """

    op: str
    dtype: str
    arithmetic: str
    inner: int
    outer: int
    probes: int
    miss: float
    of_norms: float
    of_row: float

    def __str__(self) -> str:
        what = self.dtype if self.arithmetic == "fp32" else f"{self.dtype} ({self.arithmetic} allowed)"
        return (
            f"integrity: {self.op} in {what}, inner length to {self.inner:,}, {self.probes} probes: a row "
            f"that is off by {100 * self.of_row:.2g} % of its size, or {self.of_norms:.1g} of its "
            f"operands' norms, "
            f"is missed with probability {self.miss:.1g} at most"
        )


def guarantee(
    op: Op,
    left: torch.dtype,
    right: torch.dtype,
    arithmetic: Arithmetic,
    *,
    inner: int,
    outer: int,
    probes: int,
    miss: float,
) -> Guarantee:
    """For jobs with these operands. inner, outer: lengths as of `product_tolerance`, the largest there are.
    Results that hardware flushes to zero (below 1e-38 in float32) are left out."""
    rounds = rounding(left, right, arithmetic)
    result = result_dtype(op, left, right, arithmetic)
    one = torch.ones(1, dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    tolerance = product_tolerance(
        one, one, inner=inner, outer=outer, rounding=rounds, dtype=torch.float64, probe_norm=inf,
        expected=zero, spread=zero,
    )  # fmt: skip
    summed = float(tolerance.calibrated)
    uniform = DEVIATIONS / sqrt(3)
    # sqrt(sum_k a_k^2 h_k) has mean square 2 sum_k a_k^2 ||b_k||^2; the bias is relative to the row.
    operands = uniform * rounds.unit * sqrt(2) + rounds.bias
    narrow = uniform * BF16_UNIT if result == torch.bfloat16 else 0.0
    terms = sum(bool(each) for each in (rounds.unit, rounds.bias, narrow))
    q = miss ** (1 / probes)
    # However large the difference is, the reply is no larger than any honest one.
    of_norms = _least(q, terms, summed, operands + narrow * float(tolerance.largest), 0.0)
    of_row = _least(q, terms + bool(narrow), sqrt(inner) * summed, operands + narrow, narrow)
    return Guarantee(
        op=op.value,
        dtype=str(result).removeprefix("torch."),
        arithmetic=arithmetic.value,
        inner=inner,
        outer=outer,
        probes=probes,
        miss=miss,
        of_norms=of_norms,
        of_row=min(of_row, sqrt(inner) * of_norms),
    )


def _least(q: float, terms: int, fixed: float, drawn: float, own: float) -> float:
    """Least ||D|| with ||D|| >= size(q - terms exp(-x)) (fixed + phi(x) (drawn + own ||D||)) for some x."""
    best = inf
    for x, phi in _tails() if terms else [(inf, 0.0)]:
        left = q - terms * exp(-x)
        if left > 0:
            size = size_found(left, 1)
            room = 1 - size * phi * own
            if room > 0:
                best = min(best, size * (fixed + phi * drawn) / room)
    return best


def _tails() -> Iterator[tuple[float, float]]:
    """(x, phi(x)) from 0 to 40 in steps of 0.05."""
    for step in range(1, 801):
        x = step / 20
        yield x, sqrt(1 + 2 * sqrt(x) + 2 * x)
