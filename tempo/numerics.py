"""How far a result of Tempo may lie from plain PyTorch's. Derived in docs/numerics.md, sections 3 to 5, 7.

The check of a reply has its own tolerance (tempo/integrity/tolerance.py): it judges a worker on the
operands as sent. Here it is the master's own round trip that is judged, by tests and by the demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, log2, sqrt
from typing import Final

import torch
from torch import Tensor

from tempo.integrity.tolerance import BF16_UNIT, DEVIATIONS, UNIT_ROUNDOFF, rounding
from tempo.kernels import Axis
from tempo.lowering.base import Lowering
from tempo.secrecy.form import FULL, Precision

#: 2-norms of the Winograd maps on a tile, (raise_y, raise_dx, raise_dw): those of A^T, B^T and G, both
#: axes. Input tiles overlap, which adds the root of the largest number of tiles over one pixel.
_RAISE: Final = {
    "winograd F(2,3)": (1.7321**2, 1.8478**2 * 2, 1.4142**2),
    "winograd F(4,3)": (11.8279**2, 9.1360**2 * 2, 1.0564**2),
}

#: A protected float32 step errs at most this much more than a plain one: three mixed axes amplify
#: errors 2 times, their passes and the product add up to 3 errors of a product, and F(4,3) errs up
#: to 15 times a direct convolution (relative 2-norm).
GROWTH: Final = 100.0

#: A protected step in bfloat16 errs at most this much more than a plain one: three mixed axes amplify
#: errors 2 times, and two runs that round independently differ by six deviations at most.
ROUNDED_GROWTH: Final = 12.0

#: Entries that mixing spreads an operand's energy over, at least: a block.
_SPREAD: Final = 64


def amplification(spread: float, rounds: int) -> float:
    """Mean-square growth of an error through one mixed axis and back: sqrt(E s^2 E s^-2) for each of
    its rounds + 1 monomials, s log-uniform in [1/spread, spread]."""
    mean_square = (spread**2 - spread**-2) / (4 * log(spread))
    return float(mean_square ** (rounds + 1))


def result_tolerance(
    lowering: Lowering,
    *,
    inner: int,
    spread: float,
    rounds: int,
    row_rounds: int,
    dtype: torch.dtype,
    precision: Precision = FULL,
    sizes: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> tuple[float, float, float]:
    """Largest (||error of y||, of dx, of dw), each relative to the product of the Frobenius norms of
    the two lowered operands. inner: the longest of the three inner lengths K, N and R. sizes: norms of
    the three lowered results relative to the same, where they are known (a result that is sent in
    bfloat16 errs relative to itself).
    """
    u = UNIT_ROUNDOFF[dtype]
    # Of the three axes of a product two are features and one is rows.
    passes = (4 * (2 * rounds + 1) + 2 * (2 * row_rounds + 1)) ** 0.5
    centred = 2.0  # ||X - 1 c^T|| against ||X||
    grown = amplification(spread, rounds) ** 2 * amplification(spread, row_rounds)
    factor = DEVIATIONS * centred * grown
    y, dx, dw = _RAISE.get(lowering.name, (1.0, 1.0, 1.0))
    operands, results = _rounded(lowering, dtype, precision)
    narrow = (results * sizes[0], results * sizes[1], 0.0)  # dW comes back in float32
    own = (inner**0.5 + passes) * u + operands
    each = [factor * (own + result) for result in narrow]
    return each[0] * y, each[1] * dx, each[2] * dw


def _rounded(lowering: Lowering, dtype: torch.dtype, precision: Precision) -> tuple[float, float]:
    """Deviations of two operands' roundings below float32, and of a result's. The first are independent
    from entry to entry, so their sum over an inner axis is smaller by the root of the entries that share
    the operand's energy."""
    form = precision.best(dtype, delicate=lowering.delicate)
    if form.dtype == torch.bfloat16:
        operand, result = BF16_UNIT, BF16_UNIT
    else:
        operand, result = rounding(form.dtype, form.dtype, form.arithmetic).worst, 0.0
    return (2 / 3 / _SPREAD) ** 0.5 * operand, 3**-0.5 * result


def native_error(rows: Axis, features: Axis, dtype: torch.dtype) -> float:
    """Largest ||computed - exact|| of one stretch of a native pass, relative to the norm of its operand
    (less `before`); `after` and a cast to bfloat16 not included. With no rounds on one axis it holds for
    each fibre along the other. Derived in docs/numerics.md, section 6."""
    return _pass_error(rows, features, dtype, log2)


def twin_error(rows: Axis, features: Axis, dtype: torch.dtype) -> float:
    """The same for the plain twin, which takes each block as a matrix product."""
    return _pass_error(rows, features, dtype, lambda block: (block + 1) * block**0.5)


def native_deviation(rows: Axis, features: Axis, dtype: torch.dtype) -> float:
    """What `native_error` becomes in the mean square, over operands and coefficients of random sign."""
    steps, _, growth = _steps(rows, features, log2)
    return growth * sqrt(steps) * UNIT_ROUNDOFF[dtype]


def _pass_error(rows: Axis, features: Axis, dtype: torch.dtype, additions: Callable[[float], float]) -> float:
    steps, growth, _ = _steps(rows, features, additions)
    u = UNIT_ROUNDOFF[dtype]
    return float(growth * steps * u / (1 - steps * u))


def _steps(rows: Axis, features: Axis, additions: Callable[[float], float]) -> tuple[float, float, float]:
    """(roundings that an entry passes, products over the monomials of their largest and of their root
    mean square coefficients). additions: roundings of one Hadamard block of that length."""
    steps, largest, mean = 1.0, 1.0, 1.0
    for a in (rows, features):
        windows = 1 if a.rounds == 0 or a.length % a.block == 0 else 2
        steps += a.rounds * windows * (additions(a.block) + 2)
        for m in (a.enter, *a.middle, a.leave):
            if m is not None and m.scale.numel():
                steps += 2
                largest *= float(m.scale.abs().max())
                mean *= float(m.scale.square().mean().sqrt())
    return steps, largest, mean


def fixed_error(inner: int, left: Tensor, right: Tensor) -> Tensor:
    """Largest |error| of an entry of an integer product of one group, (G,), before it is unscaled: by Cauchy
    and Schwarz over roundings of 1/2 (docs/numerics.md, section 7). inner: length of the axis summed over.
    left, right: norms (G,) of the integers along it."""
    return (left + right + sqrt(inner) / 2) * (sqrt(inner) / 2)


def fixed_unit(inner: int) -> float:
    """Largest rounding of an entry in fixed point, relative to the root mean square of the largest row (or
    column, where rows are added up) of its operand. inner: the longest of K, N and the rows of a piece.

    That row has norm 2^17.7 at least as an integer (docs/numerics.md, section 7), or a column 2^18.2."""
    return float(sqrt(inner) * 2.0**-18.7)


def fixed_loss_tolerance(plain: Sequence[float], rounded: Sequence[float], inner: int) -> list[float]:
    """`loss_tolerance` for scheme shares, by the yardstick of bfloat16: rounded is the same training under
    torch.autocast, whose operands are rounded so much more coarsely.

        allowed_t = ROUNDED_GROWTH (unit / bfloat16's) max_{s <= t} |plain_s - rounded_s| + GROWTH u |plain_t|
    """
    finer, worst, allowed = fixed_unit(inner) / BF16_UNIT, 0.0, []
    for a, b in zip(plain, rounded, strict=True):
        worst = max(worst, abs(a - b))
        allowed.append(ROUNDED_GROWTH * worst * finer + GROWTH * UNIT_ROUNDOFF[torch.float32] * abs(a))
    return allowed


def loss_tolerance(
    plain: Sequence[float], exact: Sequence[float], precision: Precision = FULL
) -> list[float]:
    """Allowed |difference| between the losses of a protected run and a plain one, step by step.

    plain: losses of plain training in float32. exact: of the same training in float64; where precision
    is less than float32, instead of the same under torch.autocast in bfloat16. Training amplifies
    rounding errors at a rate of its own, which their difference measures:

        allowed_t = growth (max_{s <= t} |plain_s - exact_s| + u |plain_t|)

    growth is GROWTH in float32. Below it is ROUNDED_GROWTH, for the difference alone, scaled to the unit
    round-off of the arithmetic.
    """
    rough = _roughest(precision)
    worst, allowed = 0.0, []
    for a, b in zip(plain, exact, strict=True):
        worst = max(worst, abs(a - b))
        if rough:
            allowed.append(ROUNDED_GROWTH * worst * rough / BF16_UNIT + rough * abs(a))
        else:
            allowed.append(GROWTH * (worst + UNIT_ROUNDOFF[torch.float32] * abs(a)))
    return allowed


def _roughest(precision: Precision) -> float:
    """Largest rounding error of an operand below float32; 0 if there is none."""
    if precision.wire == torch.bfloat16:
        return BF16_UNIT
    return rounding(torch.float32, torch.float32, precision.arithmetic).worst
