"""How far an honest reply may lie from the exact product. Derived in docs/numerics.md, section 2.

One row of a product c_n = sum_k a_k b_nk, with inner length K and N outer entries, computed with
unit round-off u in any order of summation, has errors e_n with

    sound:       |e_n| <= gamma_K ||a|| ||b_n||,  gamma_K = K u / (1 - K u)
    calibrated:  ||e||_2 <= sqrt(K) u ||a|| ||B||_F  with room to spare (random-walk growth)

The check looks at e . r with a Gaussian r that the worker does not know: at most ||e|| ||r||, and
normally distributed with deviation ||e|| over r. Hence the two tiers. A third term covers the
round-off of the check itself, a fourth results so small that hardware flushes them to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: Deviations of the normal distribution that the calibrated tier allows: an honest row whose error
#: is as large as the model admits exceeds it with probability 2e-9; measured errors are ten times
#: smaller than the model.
DEVIATIONS: Final = 6.0

#: Arithmetic that a worker declares, by dtype of the operands: IEEE with accumulation in kind.
UNIT_ROUNDOFF: Final = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}

#: Round-off of the check, which computes in float64 whatever the worker does.
_CHECK_UNIT: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed |difference| per row and probe, float64. calibrated: above it a reply is refused.
    sound: above it rounding cannot explain the difference, whatever the worker's hardware."""

    calibrated: Tensor
    sound: Tensor


def product_tolerance(
    left_norms: Tensor, right_norm: Tensor, *, inner: int, outer: int, dtype: torch.dtype, probe_norm: float
) -> Tolerance:
    """left_norms: 2-norms of the rows a. right_norm: Frobenius norm of B for each row's group,
    broadcastable. inner, outer: K and N. dtype: of the operands. probe_norm: largest ||r||."""
    u = UNIT_ROUNDOFF[dtype]
    size = left_norms * right_norm
    check = (inner**0.5 + 2 * outer**0.5) * _CHECK_UNIT
    tiny = torch.finfo(dtype).tiny
    flushed = tiny * outer**0.5 * (inner + inner**0.5 * (left_norms + right_norm))
    gamma = inner * u / (1 - inner * u) if inner * u < 1 else float("inf")
    check_sound = (inner + 2 * outer) * _CHECK_UNIT
    sound = probe_norm * ((gamma + check_sound) * size + flushed)
    calibrated = DEVIATIONS * ((inner**0.5 * u + check) * size + flushed)
    # For a few entries six deviations are more than rounding can do at all.
    return Tolerance(calibrated=torch.minimum(calibrated, sound), sound=sound)
