"""What ReLU gives away between two products: which rows and columns belong together, and the numbers between.

Under any permutations with coefficients (a on rows, b and c on columns), a layer's result Y' and the next
one's operand X' are two pictures of the same numbers:

    Y'[i,j] = a_i c_j y_ij        X'[p(i),q(j)] = a'_i b'_j max(0, y_ij + bias_j)

Zeros survive, so the pattern M of zeros of X' is that of the gradient dY', which lies in the places of Y'.
Step 1 matches the two patterns (message passing over the bipartite graph, then assignment, alternately on
rows and columns). Step 2 fits, on the entries that are not zero,

    X'[p(i),q(j)] = u_i s_j Y'[i,j] + v_i t_j        u = a'/a   v = a'   s = b'/c   t = b' bias

by damped least squares from signs and medians. Then a = v/u (up to one scale), and the bias in the basis of
Y'/a
is t/s.

Axes: R rows, N features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Bits = NDArray[np.bool_]
Index = NDArray[np.int64]

#: Channels of the messages, rounds of passing them, and of alternate assignment.
_CHANNELS: Final = 24
_ROUNDS: Final = 3
_ASSIGNMENTS: Final = 8
#: Steps of the fit at most, and the relative residual it stops at.
_TURNS: Final = 80
#: Rows of one fit.
_ROWS: Final = 400
#: Columns with a pattern of their own that the rows are fitted from.
_FEWEST: Final = 8
_EXACT: Final = 1e-6


def pattern(t_RF: Array, tolerance: float = 0.0) -> Bits:
    """Where t is not zero. tolerance: relative to the largest value of the row, columns made equal in size,
    since rounding errs relative to rows and gradients' rows differ by orders of magnitude."""
    if tolerance == 0.0:
        return np.asarray(t_RF != 0)
    t = np.abs(t_RF) / (np.linalg.norm(t_RF, axis=0) + 1e-300)
    return np.asarray(t > tolerance * t.max(1, keepdims=True))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """rows[i], columns[j]: where row i and column j of the first pattern are in the second. agreement: share
    of entries that agree then, less what the densities alone explain: 1 for equal patterns, near 0 by
    chance."""

    rows: Index
    columns: Index
    agreement: float


def match(one_RN: Bits, two_RN: Bits) -> Matching:
    """Rows and columns of two patterns that are one up to permutations, and to some noise."""
    f, g = _messages(one_RN), _messages(two_RN)
    rows = _assign(f[0], g[0])
    columns = _assign(f[1], g[1])
    best = _judged(one_RN, two_RN, rows, columns)
    a, b = one_RN.astype(float) - one_RN.mean(), two_RN.astype(float) - two_RN.mean()
    for _ in range(_ASSIGNMENTS):
        columns = _place(a.T @ b[rows])
        rows = _place(a @ b[:, columns].T)
        now = _judged(one_RN, two_RN, rows, columns)
        if now.agreement <= best.agreement:
            break
        best = now
    return best


def _messages(m_RN: Bits) -> tuple[Array, Array]:
    """Features of rows and columns that no permutation of the other axis changes."""
    rng = np.random.default_rng(5)
    m = m_RN.astype(float)
    m = m - m.mean()
    rows, columns = m.mean(1, keepdims=True), m.mean(0)[:, None]
    out_r, out_c = [_ranks(rows)], [_ranks(columns)]
    for _ in range(_ROUNDS):
        lift = rng.standard_normal((out_r[-1].shape[1], _CHANNELS))
        new_r = m @ np.cos(out_c[-1] @ lift) / m.shape[1] ** 0.5
        new_c = m.T @ np.cos(out_r[-1] @ lift) / m.shape[0] ** 0.5
        scale_r, scale_c = new_r.std(0) + 1e-12, new_c.std(0) + 1e-12
        out_r.append(new_r / scale_r)
        out_c.append(new_c / scale_c)
    return np.concatenate(out_r, 1), np.concatenate(out_c, 1)


def _ranks(t_L1: Array) -> Array:
    return np.asarray((t_L1 - t_L1.mean()) / (t_L1.std() + 1e-12))


def _assign(f: Array, g: Array) -> Index:
    cost = (f**2).sum(1)[:, None] + (g**2).sum(1)[None] - 2 * f @ g.T
    return np.asarray(linear_sum_assignment(cost)[1])


def _place(score: Array) -> Index:
    return np.asarray(linear_sum_assignment(score, maximize=True)[1])


def _judged(one: Bits, two: Bits, rows: Index, columns: Index) -> Matching:
    equal = float((one == two[rows][:, columns]).mean())
    p, q = float(one.mean()), float(two.mean())
    blind = p * q + (1 - p) * (1 - q)
    return Matching(rows, columns, (equal - blind) / (1 - blind) if blind < 1 else 0.0)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The four vectors of the header, and the residual relative to X'."""

    u_R: Array
    v_R: Array
    s_N: Array
    t_N: Array
    residual: float


def linked(y_RN: Array, x_RN: Array, active_RN: Bits, tolerance: float = 0.0) -> tuple[Matching, Fit]:
    """Both steps: y is Y', active its pattern (from dY'), x is X' in its own order. Columns with the same
    pattern (always active, say) are told apart by values, once the rows are known from the others."""
    found = match(active_RN, pattern(x_RN, tolerance))
    rows, columns = found.rows.copy(), found.columns.copy()
    alike_r, alike_c = _alike(active_RN), _alike(active_RN.T)
    r, c = np.bincount(alike_r)[alike_r] == 1, np.bincount(alike_c)[alike_c] == 1
    if not (r.all() and c.all()) and min(r.sum(), c.sum()) >= _FEWEST:
        x, m = x_RN[rows][:, columns], active_RN.astype(float)
        base = fit(y_RN[r][:, c], x[r][:, c], active_RN[r][:, c])
        _tell_apart(columns, alike_c, base.u_R[:, None] * y_RN[r], base.v_R[:, None] * m[r], x[r])
        _tell_apart(rows, alike_r, (base.s_N * y_RN[:, c]).T, (base.t_N * m[:, c]).T, x[:, c].T)
    found = Matching(rows, columns, found.agreement)
    return found, fit(y_RN, x_RN[rows][:, columns], active_RN)


def _alike(m_RN: Bits) -> Index:
    """For each row the number of its kind: rows that are equal are of one kind."""
    return np.asarray(np.unique(m_RN, axis=0, return_inverse=True)[1]).ravel()


def _tell_apart(place: Index, kinds: Index, p: Array, q: Array, x: Array) -> None:
    """Among columns of one kind, each goes where x fits its p (masked) and the common q best."""
    for kind in np.flatnonzero(np.bincount(kinds) > 1):
        mine = np.flatnonzero(kinds == kind)
        m = q[:, mine[0]] != 0
        cost = np.stack([_misfits(p[:, j] * m, q[:, j], x[:, mine]) for j in mine])
        place[mine] = place[mine[linear_sum_assignment(cost)[1]]]


def _misfits(p: Array, q: Array, x_RM: Array) -> Array:
    """Relative residual of each column of x as a combination of p and q."""
    basis = np.linalg.svd(np.stack([p, q], 1), full_matrices=False)[0]
    rest = x_RM - basis @ (basis.T @ x_RM)
    return np.asarray(np.linalg.norm(rest, axis=0) / (np.linalg.norm(x_RM, axis=0) + 1e-300))


def fit(y_RN: Array, x_RN: Array, m_RN: Bits) -> Fit:
    """x = u s y + v t where m, both in the order of y. Of many rows some are fitted, and the others
    follow."""
    if len(y_RN) > _ROWS:
        some = np.random.default_rng(6).choice(len(y_RN), _ROWS, replace=False)
        base = fit(y_RN[some], x_RN[some], m_RN[some])
        u, v = _pairs((base.s_N * y_RN * m_RN).T, (base.t_N * m_RN).T, (x_RN * m_RN).T)
        return Fit(u, v, base.s_N, base.t_N, base.residual)
    m = m_RN.astype(float)
    x, y = x_RN * m, y_RN * m
    a = sign_of_rows(y_RN, m_RN)
    ratio = np.where(m_RN & (y_RN != 0), x_RN / np.where(y_RN == 0, 1, y_RN), np.nan)
    u, s = _rank_one(ratio)
    v, t = u * a, np.zeros(m.shape[1])
    norm = float(np.linalg.norm(x)) + 1e-300
    mask, damping = m, 1e-3
    error = x - (u[:, None] * s * y + v[:, None] * t * mask)
    for _ in range(_TURNS):
        step = _newton(u, v, s, t, y, mask, error, damping)
        tried = tuple(old + change for old, change in zip((u, v, s, t), step, strict=True))
        then = x - (tried[0][:, None] * tried[2] * y + tried[1][:, None] * tried[3] * mask)
        if np.linalg.norm(then) < np.linalg.norm(error):
            slow = np.linalg.norm(then) > 0.9999 * np.linalg.norm(error)
            (u, v, s, t), error, damping = tried, then, max(damping / 5, 1e-12)
            if np.linalg.norm(error) < _EXACT * norm or slow:
                break
        else:
            damping *= 4
            if damping > 1e6:
                break
    return Fit(u, v, s, t, float(np.linalg.norm(error)) / norm)


def _newton(
    u: Array, v: Array, s: Array, t: Array, y: Array, m: Array, error: Array, damping: float
) -> tuple[Array, Array, Array, Array]:
    """One step of Levenberg and Marquardt. The gauge freedom (scales that cancel) is left to the damping."""
    r, n = y.shape
    sy, tm, uy, vm = s * y, t * m, u[:, None] * y, v[:, None] * m
    normal = np.zeros((2 * (r + n), 2 * (r + n)))
    parts = ((sy, tm), (uy, vm))
    for side, offset, axis in ((0, 0, 1), (1, 2 * r, 0)):
        size = (r, n)[side]
        for i in range(2):
            for j in range(2):
                at = np.arange(size)
                normal[offset + i * size + at, offset + j * size + at] = (
                    parts[side][i] * parts[side][j]
                ).sum(axis)
    for i in range(2):
        for j in range(2):
            block = parts[0][i] * parts[1][j]
            normal[i * r : (i + 1) * r, 2 * r + j * n : 2 * r + (j + 1) * n] = block
            normal[2 * r + j * n : 2 * r + (j + 1) * n, i * r : (i + 1) * r] = block.T
    slope = np.concatenate(
        [(sy * error).sum(1), (tm * error).sum(1), (uy * error).sum(0), (vm * error).sum(0)]
    )
    size = normal.diagonal().copy()
    normal[np.diag_indices_from(normal)] += damping * (size + 1e-9 * size.max() + 1e-300)
    step = np.linalg.solve(normal, slope)
    return step[:r], step[r : 2 * r], step[2 * r : 2 * r + n], step[2 * r + n :]


def sign_of_rows(y_RN: Array, m_RN: Bits) -> Array:
    """sign(a): y + bias is positive where m, so with small biases sign(y') = sign(a) sign(c) there and the
    other way round elsewhere; the best rank-1 sign matrix."""
    s = np.sign(y_RN) * np.where(m_RN, 1.0, -1.0)
    left = np.linalg.svd(s, full_matrices=False)[0][:, 0]
    return np.where(left < 0, -1.0, 1.0)


def _rank_one(ratio_RN: Array) -> tuple[Array, Array]:
    """u, s with u_i s_j about the ratio: signs by the best rank-1 sign matrix, magnitudes by medians."""
    signs = np.nan_to_num(np.sign(ratio_RN))
    left, _, right = np.linalg.svd(signs, full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(ratio_RN))
    logs[~np.isfinite(logs)] = np.nan
    row, column = np.zeros(logs.shape[0]), np.zeros(logs.shape[1])
    for _ in range(20):
        column = _median(logs - row[:, None], 0)
        row = _median(logs - column[None], 1)
    return (
        np.exp(row) * np.where(left[:, 0] < 0, -1.0, 1.0),
        np.exp(column) * np.where(right[0] < 0, -1.0, 1.0),
    )


def _median(t: Array, axis: int) -> Array:
    empty = np.isnan(t).all(axis)
    filled = np.where(np.expand_dims(empty, axis), 0.0, t)
    return np.asarray(np.nanmedian(filled, axis))


def _pairs(p: Array, q: Array, x: Array) -> tuple[Array, Array]:
    """For each column the least squares x = s p + t q; with a whiff of ridge, so that a column without
    entries, or with one regressor only, stays finite."""
    pp, qq, pq = (p * p).sum(0), (q * q).sum(0), (p * q).sum(0)
    px, qx = (p * x).sum(0), (q * x).sum(0)
    ridge = 1e-12 * (pp + qq) + 1e-300
    pp, qq = pp + ridge, qq + ridge
    determinant = pp * qq - pq * pq + 1e-300
    return (qq * px - pq * qx) / determinant, (pp * qx - pq * px) / determinant


def thresholds(z_RN: Array, active_RN: Bits) -> tuple[Array, Array]:
    """For each unit the bias and sign that tell active entries from the others best."""
    r, n = z_RN.shape
    bias, sign = np.zeros(n), np.ones(n)
    for j in range(n):
        order = np.argsort(z_RN[:, j])
        z, on = z_RN[order, j], active_RN[order, j].astype(float)
        # Cut before position i: errors if active is above, or below.
        below = np.concatenate([[0.0], on.cumsum()])
        above = below + (r - np.arange(r + 1)) - (on.sum() - below)
        flipped = r - above
        cuts = np.concatenate([[z[0] - 1e-9], (z[1:] + z[:-1]) / 2, [z[-1] + 1e-9]])
        up, down = int(above.argmin()), int(flipped.argmin())
        at, sign[j] = (up, 1.0) if above[up] <= flipped[down] else (down, -1.0)
        bias[j] = -cuts[at]
    return bias, sign
