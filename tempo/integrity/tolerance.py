"""How far an honest reply may lie from the exact product. Derived in docs/numerics.md, sections 2 and 5.

One row of a product c_n = sum_k a_k b_nk, with inner length K and N outer entries, summed with unit
round-off u in any order, has errors e_n with

    sound:       |e_n| <= gamma_K ||a|| ||b_n||,  gamma_K = K u / (1 - K u)
    calibrated:  ||e||_2 <= sqrt(K) u ||a|| ||B||_F  with room to spare (random-walk growth)

The check looks at e . r with a Gaussian r that the worker does not know: at most ||e|| ||r||, and
normally distributed with deviation ||e|| over r. Hence the two tiers. A third term covers the
round-off of the check itself, a fourth results so small that hardware flushes them to zero.

Where a worker may round the operands, a_k (1 + d_k) and b_nk (1 + f_nk), v = B^T r:

    e . r  =  sum_k d_k a_k v_k  +  sum_kn f_nk a_k b_nk r_n
    sound:       |e_n| <= ((1 + w)^2 (1 + gamma_K) - 1) ||a|| ||b_n||,  w the largest |d|
    calibrated:  6 u / sqrt(3) sqrt(sum_k a_k^2 h_k),  h_k = v_k^2 + sum_n b_nk^2 r_n^2
                 (six deviations of independent errors, each uniform over an interval of width 2 u)

Where the result is rounded once, c_n (1 + g_n):

    sound:       u ||c|| ||r||        calibrated:  6 u / sqrt(3) sqrt(sum_n c_n^2 r_n^2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from tempo.ops import Arithmetic

#: Deviations of the normal distribution that the calibrated tier allows: an honest row whose error
#: is as large as the model admits exceeds it with probability 2e-9; measured errors are ten times
#: smaller than the model. Sums of uniform errors exceed it with 3e-8 at most (Hoeffding, 1963).
DEVIATIONS: Final = 6.0

#: IEEE with sums in kind, by dtype of the operands.
UNIT_ROUNDOFF: Final = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}

#: Unit round-off of bfloat16 (8 bits, rounded to nearest).
BF16_UNIT: Final = 2.0**-8

#: Of sums of bfloat16 and TF32 products: tensor cores cut off, where IEEE rounds to nearest (Fasi,
#: Higham, Mikaitis, Pranesh, PeerJ Comput. Sci. 7:e330, 2021).
_TENSOR_CORE_UNIT: Final = 2.0**-23

#: Round-off of the check, which computes in float64 whatever the worker does.
_CHECK_UNIT: Final = 2.0**-53

#: A uniform error of width 2 u has this deviation.
_UNIFORM: Final = 3.0**-0.5


@final
@dataclass(frozen=True, slots=True)
class _Line:
    """factor ||a|| ||B|| + flushed: a bound as a function of the norm of a row."""

    factor: float
    scale: float

    def at(self, size: _Size) -> Tensor:
        """scale (factor ||a|| ||B|| + flushed) in two passes over the rows: it is linear in ||a||."""
        slope = self.scale * (self.factor * size.right + size.flushed_slope)
        offset = self.scale * (size.flushed_slope * size.right + size.flushed)
        return (size.left * slope).add_(offset)


@final
@dataclass(frozen=True, slots=True)
class _Size:
    """||a|| (rows, 1); ||B|| (rows, 1), or (1, 1) where it is that of all; what hardware flushes to zero:
    flushed + flushed_slope (||a|| + ||B||)."""

    left: Tensor
    right: Tensor
    flushed: float
    flushed_slope: float


@final
@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed |difference|, float64: one row for each row of the reply, one column for all probes or
    one for each. Worked out when asked for."""

    _size: _Size
    _calibrated: _Line
    _sound: _Line
    _largest: _Line
    #: What rounded operands and a rounded result add, (rows, P) and (rows, 1).
    _more_calibrated: Tensor | None = None
    _more_sound: Tensor | None = None

    @property
    def calibrated(self) -> Tensor:
        """Above it a reply is refused. For a few entries six deviations are more than rounding can do at
        all, so it is never above the sound tier."""
        calibrated = self._calibrated.at(self._size)
        if self._more_calibrated is not None:
            calibrated = calibrated + self._more_calibrated
        return torch.minimum(calibrated, self.sound)

    @property
    def sound(self) -> Tensor:
        """Above it rounding cannot explain the difference, whatever the worker's hardware."""
        sound = self._sound.at(self._size)
        return sound if self._more_sound is None else sound.add_(self._more_sound)

    @property
    def largest(self) -> Tensor:
        """(rows,): 2-norm that no honest row of the reply exceeds; without it a reply rounded to bfloat16
        could buy room by being large."""
        return self._largest.at(self._size).squeeze(1)

    def rounded(self, squares: Tensor, norms: Tensor, probe_norm: float) -> Tolerance:
        """The same for a reply that was rounded to bfloat16 in the end. squares (rows, P): sums of
        c_n^2 r_n^2; norms (rows, 1): ||c||, of the reply as it came: |fl(c) - c| <= u |fl(c)|."""
        calibrated = DEVIATIONS * BF16_UNIT * _UNIFORM * squares.sqrt()
        if self._more_calibrated is not None:
            calibrated += self._more_calibrated
        return replace(self, _more_calibrated=calibrated, _more_sound=probe_norm * BF16_UNIT * norms)


@dataclass(frozen=True, slots=True)
class Rounding:
    """What a worker may do to the operands of a product. Relative to each entry.

    unit: half the width of an error of one operand, 0 where it is multiplied as sent. worst: its largest
    size (TF32 units may cut off). bias: of the mean error, both operands together. summed: unit
    round-off of the sum.
    """

    unit: float
    worst: float
    bias: float
    summed: float


def rounding(left: torch.dtype, right: torch.dtype, arithmetic: Arithmetic) -> Rounding:
    """Raises KeyError for dtypes that nobody declared an arithmetic of."""
    match arithmetic:
        case Arithmetic.TF32:
            return Rounding(2.0**-11, 2.0**-10, 2 * 2.0**-11, _TENSOR_CORE_UNIT)
        case Arithmetic.BF16:
            return Rounding(BF16_UNIT, BF16_UNIT, 0.0, _TENSOR_CORE_UNIT)
    if left == right == torch.bfloat16:
        return Rounding(0.0, 0.0, 0.0, _TENSOR_CORE_UNIT)
    wide = right if left == torch.bfloat16 else left
    return Rounding(0.0, 0.0, 0.0, UNIT_ROUNDOFF[wide])


def product_tolerance(
    left_norms: Tensor,
    right_norm: Tensor,
    *,
    inner: int,
    outer: int,
    rounding: Rounding,
    dtype: torch.dtype,
    probe_norm: float,
    expected: Tensor | None = None,
    spread: Tensor | None = None,
) -> Tolerance:
    """left_norms (rows,): 2-norms of the rows a. right_norm (rows,), or (1,) for all: Frobenius norm of B
    for each row's group. inner, outer: K and N. dtype: of the sum. probe_norm: largest ||r||. Where operands
    are rounded, (rows, P) each: expected a . v, and spread, the sums of a_k^2 h_k."""
    u, tiny = rounding.summed, torch.finfo(dtype).tiny
    check = (inner**0.5 + 2 * outer**0.5) * _CHECK_UNIT
    size = _Size(
        left_norms.unsqueeze(1),
        right_norm.unsqueeze(1),
        flushed=tiny * outer**0.5 * inner,
        flushed_slope=tiny * outer**0.5 * inner**0.5,
    )
    gamma = inner * u / (1 - inner * u) if inner * u < 1 else float("inf")
    operands = (1 + rounding.worst) ** 2
    check_sound = (inner + 2 * outer) * _CHECK_UNIT
    more = None
    if spread is not None and expected is not None:
        more = DEVIATIONS * _UNIFORM * rounding.unit * spread.sqrt() + rounding.bias * expected.abs()
    elif rounding.unit:
        raise ValueError("rounded operands need their spread and the expected projection")
    return Tolerance(
        size,
        _Line(inner**0.5 * u + check, DEVIATIONS),
        _Line(gamma * operands + (operands - 1) + check_sound, probe_norm),
        # ||c|| <= ||a|| ||B||_F, and what rounding adds: to the sums, and to a result in bfloat16.
        _Line((1 + gamma) * operands, 1 + BF16_UNIT),
        more,
    )
