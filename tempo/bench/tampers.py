"""Wrong replies, each of a chosen size: what a liar may add to a true result.

`size` is in tolerances: the largest row of the difference, relative to the calibrated tolerance of that row.
T rows of the reply, N entries of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Generator, Tensor

from tempo.bench.arithmetics import operands
from tempo.ops import Job, compute


@final
@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A job, its true result y (T, N) in float64, and the tolerance of each row (T,)."""

    job: Job
    y: Tensor
    tolerance_T: Tensor


#: Makes D (T, N), what is added to the true result.
Lie = Callable[[Target, float, Generator], Tensor]


def _scaled_to(d: Tensor, tolerance_T: Tensor, size: float) -> Tensor:
    """D times the number that makes its largest row `size` tolerances long."""
    largest = (torch.linalg.vector_norm(d, dim=1) / tolerance_T).nan_to_num(0.0).amax()
    d *= size / largest
    return d


def _row(y: Tensor, g: Generator) -> int:
    return int(torch.randint(y.shape[0], (1,), generator=g))


def single_entry(of: Target, size: float, g: Generator) -> Tensor:
    """One entry of one row."""
    y, tolerance_T = of.y, of.tolerance_T
    d, t = torch.zeros_like(y), _row(y, g)
    sign = 1 - 2 * int(torch.randint(2, (1,), generator=g))
    d[t, int(torch.randint(y.shape[1], (1,), generator=g))] = sign * size * tolerance_T[t]
    return d


def sparse(of: Target, size: float, g: Generator) -> Tensor:
    """One entry in a hundred."""
    y = of.y
    d = torch.randn(y.shape, generator=g, dtype=y.dtype)
    d *= torch.rand(y.shape, generator=g) < 0.01
    d[0, 0] = 1.0  # never none at all
    return _scaled_to(d, of.tolerance_T, size)


def low_rank(of: Target, size: float, g: Generator) -> Tensor:
    """Rank one: a backdoor in a gradient."""
    y = of.y
    u = torch.randn(y.shape[0], 1, generator=g, dtype=y.dtype)
    v = torch.randn(1, y.shape[1], generator=g, dtype=y.dtype)
    return _scaled_to(u * v, of.tolerance_T, size)


def scaled(of: Target, size: float, g: Generator) -> Tensor:
    """Everything a little larger, or smaller."""
    sign = 1 - 2 * int(torch.randint(2, (1,), generator=g))
    return _scaled_to(sign * of.y, of.tolerance_T, size)


def sign_flip(of: Target, size: float, g: Generator) -> Tensor:
    """Signs of one row flipped, of its smallest entries first, as many as are `size` tolerances long; where
    the whole row is not, all of it."""
    y, tolerance_T = of.y, of.tolerance_T
    d, t = torch.zeros_like(y), _row(y, g)
    order = y[t].abs().argsort()
    lengths = 2 * y[t][order].square().cumsum(0).sqrt() / tolerance_T[t]
    count = max(1, int((lengths <= size).sum()))
    d[t, order[:count]] = -2 * y[t, order[:count]]
    return d


def stale(of: Target, size: float, g: Generator) -> Tensor:
    """The same product a step earlier, when the right operand (weights, or inputs for dW) was another one."""
    return _scaled_to(_with_another(of, g), of.tolerance_T, size)


def other_layer(of: Target, size: float, g: Generator) -> Tensor:
    """The product with another layer's operand, of the same shape and norm. It has one size."""
    return _with_another(of, g) - of.y


def _with_another(of: Target, g: Generator) -> Tensor:
    left, right = (t.double() for t in operands(of.job))
    other = torch.randn(right.shape, generator=g, dtype=right.dtype)
    other *= torch.linalg.vector_norm(right) / torch.linalg.vector_norm(other)
    return compute(of.job.op, left, other, of.job.rows).reshape(of.y.shape)


def knows_the_bound(of: Target, size: float, g: Generator) -> Tensor:
    """Every row moved by the same number of its own tolerances, all in one direction: the reply then passes
    as often as one row of it does, and no more rows could be moved further."""
    y = of.y
    v = torch.randn(1, y.shape[1], generator=g, dtype=y.dtype)
    v /= torch.linalg.vector_norm(v)
    return size * of.tolerance_T[:, None] * v


@final
@dataclass(frozen=True, slots=True)
class Tamper:
    """sized: it comes in every size; else it is what it is."""

    name: str
    lie: Lie
    sized: bool = True


TAMPERS: Final = (
    Tamper("single entry", single_entry),
    Tamper("sparse", sparse),
    Tamper("low rank", low_rank),
    Tamper("scaled", scaled),
    Tamper("sign flip", sign_flip),
    Tamper("stale reply", stale),
    Tamper("another layer's reply", other_layer, sized=False),
    Tamper("knows the bound", knows_the_bound),
)
