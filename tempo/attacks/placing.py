"""Which column of an operand is which feature of public data of the same distribution, up to signs and
scales.

Marginals first: the quantiles of a column over its root mean square, either sign, and the quantiles of its
correlations with all others. Then the correlations themselves, by quadratic assignment: max over P of
tr(C P C0 P^T) + the marginals' share, with FAQ (Vogelstein and others 2015, Fast Approximate Quadratic
Programming for Graph Matching) from the marginals' assignment, then greedy improvement.

Axes: R rows of the operand, K columns; S samples of public data, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_QUANTILES: Final = 41
_TURNS: Final = 25
#: A column whose deviation is below this share of its root mean square is constant: it tells nothing.
_CONSTANT: Final = 1e-4


@final
@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """Column j of the operand = scale[j] times public feature `feature[j]` plus offset[j]: a constant column
    has scale 0."""

    feature: Index
    scale: Array
    offset: Array


def place(x_RK: Array, public_SF: Array) -> Placing:
    """x: rows without coefficients of their own."""
    x_RK = np.nan_to_num(x_RK)
    k = x_RK.shape[1]
    mine, theirs = np.flatnonzero(_varies(x_RK)), np.flatnonzero(_varies(public_SF))
    feature, scale, offset = np.zeros(k, np.int64), np.zeros(k), x_RK.mean(0)
    if len(mine) and len(theirs):
        x, p = x_RK[:, mine], public_SF[:, theirs]
        at, sign = _matched(x, p)
        feature[mine[: len(at)]] = 0
        found = at >= 0
        feature[mine[found]] = theirs[at[found]]
        size = _rms(x) / _rms(p)[np.where(found, at, 0)]
        scale[mine] = np.where(found, sign * size, 0.0)
        offset[mine] = np.where(found, 0.0, offset[mine])
    return Placing(feature, scale, offset)


def _varies(t: Array) -> NDArray[np.bool_]:
    return np.asarray(t.std(0) > _CONSTANT * (_rms(t) + 1e-300))


def _rms(t: Array) -> Array:
    return np.asarray(np.sqrt((t * t).mean(0)))


def _matched(x: Array, p: Array) -> tuple[Index, Array]:
    """For each column of x the column of p, or -1, and the sign between them."""
    levels = np.linspace(0, 1, _QUANTILES)
    qx, qp = (np.quantile(t / (_rms(t) + 1e-300), levels, axis=0).T for t in (x, p))
    plus, minus = _distances(qx, qp), _distances(-qx[:, ::-1], qp)
    cost = np.minimum(plus, minus) / (qp.var(0).mean() + 1e-300)
    n = max(x.shape[1], p.shape[1])
    c, d = (_correlations(t) for t in (x, p))
    px, pp = (np.quantile(t, levels, axis=0).T for t in (c, d))
    cost = cost + _distances(px, pp) / (pp.var(0).mean() + 1e-300)
    marginal = _padded(cost.max() - cost, n) / (cost.max() + 1e-300)
    c, d = _padded(c, n), _padded(d, n)
    at = linear_sum_assignment(marginal, maximize=True)[1]
    soft = 0.5 * np.eye(n)[at] + 0.5 / n
    weight = (c * c).sum() ** 0.5 * (d * d).sum() ** 0.5 / n
    for _ in range(_TURNS):
        gradient = 2 * c @ soft @ d + weight * marginal
        goal = np.eye(n)[linear_sum_assignment(gradient, maximize=True)[1]]
        # Along soft + t (goal - soft) the objective is a parabola.
        step = goal - soft
        slope = float((step * gradient).sum())
        bend = float((step * (c @ step @ d)).sum())
        t = 1.0 if bend >= 0 else min(1.0, -slope / (2 * bend))
        soft = soft + t * step
        if slope < 1e-7 * float((soft * gradient).sum()):
            break
    at = linear_sum_assignment(soft, maximize=True)[1]
    for _ in range(_TURNS):
        again = linear_sum_assignment(2 * c @ np.eye(n)[at] @ d + weight * marginal, maximize=True)[1]
        if _value(c, d, marginal, weight, again) <= _value(c, d, marginal, weight, at):
            break
        at = again
    at = at[: x.shape[1]]
    inside = at < p.shape[1]
    safe, rows = np.where(inside, at, 0), np.arange(x.shape[1])
    sign = np.where(plus[rows, safe] <= minus[rows, safe], 1.0, -1.0)
    return np.where(inside, at, -1), sign


def _value(c: Array, d: Array, marginal: Array, weight: float, at: Index) -> float:
    return float((c * d[at][:, at]).sum() + weight * marginal[np.arange(len(at)), at].sum())


def _correlations(t: Array) -> Array:
    """Between columns, each turned so that its third moment is positive. Centred: what all columns have in
    common places none of them."""
    t = t * np.where((t**3).mean(0) < 0, -1.0, 1.0)
    z = (t - t.mean(0)) / (t.std(0) + 1e-300)
    return np.asarray(z.T @ z / len(z))


def _distances(a: Array, b: Array) -> Array:
    return np.asarray(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0))


def _padded(t: Array, n: int) -> Array:
    out = np.zeros((n, n))
    out[: t.shape[0], : t.shape[1]] = t
    return out
