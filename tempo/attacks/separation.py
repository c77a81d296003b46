"""Blind separation of mixtures: FastICA, second-order separation, and components with exact zeros.

A matrix Z has samples in its rows and mixtures in its columns: Z = S M^T with sources S unknown. Each
function
returns an unmixing matrix V, so that Z V holds the sources up to order and scale.

- `fastica`: symmetric fixed point on whitened mixtures (Hyvarinen 1999, Fast and Robust Fixed-Point
  Algorithms
  for ICA), contrast log cosh.
- `second_order`: joint diagonalisation of lagged covariances (diagonal.py; SOBI: Belouchrani and others
  1997), for samples with an order.
- `batches`: the same of covariances of several batches that were mixed alike.
- `zero_components`: sources that are exactly zero in many samples, as ReLU makes them: sparse vectors of the
  column space (Qu, Sun and Wright 2014), found by ICA and made exact by the null vector of the samples in
  which
  a component nearly vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from tempo.attacks.diagonal import jointly_diagonal

Array = NDArray[np.float64]

#: Singular values below this share of the largest count as none (operands are float32).
_RANK: Final = 1e-5
#: Samples for each mixture from which on a triangle is made of them first.
_TALL: Final = 4
#: Ratios this close, in logarithms, are one; so many of them say that two columns were mixed together.
_RATIO: Final = 1e-5
_REPEATED: Final = 0.03
_RATIO_ROWS: Final = 500
#: Columns that are compared with all others before small blocks are ruled out.
_PROBES: Final = 24
_EXACT: Final = 3e-5
_RESTARTS: Final = 4
#: With more dimensions a start without any exact component is not followed by another.
_MANY: Final = 128
#: Components that are tried before a restart without any exact one is given up.
_PATIENCE: Final = 12
#: Up to so many dimensions so many choices of samples are tried.
_FEW: Final = 8
_CHOICES: Final = 100


def whitening(z_SF: Array, *, centred: bool = True, most: int | None = None) -> Array:
    """V (F, r) with unit, uncorrelated columns in Z V; r is the numerical rank, or the `most` strongest."""
    z = z_SF - z_SF.mean(0) if centred else z_SF
    if len(z) > _TALL * z.shape[1]:
        z = np.linalg.qr(z, mode="r")  # has the same singular values and the same right vectors
    _, s, vt = np.linalg.svd(z, full_matrices=False)
    r = max(1, int((s > _RANK * s[0]).sum())) if s.size and s[0] > 0 else 0
    r = r if most is None else min(r, most)
    return np.asarray(vt[:r].T / s[:r] * len(z_SF) ** 0.5)


def fastica(
    z_SF: Array,
    *,
    turns: int = 150,
    seed: int = 0,
    centred: bool = True,
    tolerance: float = 1e-5,
    most: int | None = None,
) -> Array:
    """V (F, r). Empty where there is no variance. Turns are done in the precision of z: that of many samples
    may be float32."""
    v = whitening(z_SF, centred=centred, most=most)
    if v.shape[1] == 0:
        return v
    z = ((z_SF - z_SF.mean(0) if centred else z_SF) @ v).astype(z_SF.dtype)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((v.shape[1], v.shape[1])))[0].astype(z.dtype)
    for _ in range(turns):
        y = np.tanh(z @ q)
        new = _orthogonal(z.T @ y / len(z) - q * (1 - y * y).mean(0)).astype(z.dtype)
        change = np.abs(np.abs((new * q).sum(0)) - 1).max()
        q = new
        if change < tolerance:
            break
    return np.asarray(v @ q)


def second_order(
    z_SF: Array, lags: Sequence[int] = (1, 2, 3, 4, 7, 14, 28), *, sweeps: int = 6, most: int | None = None
) -> Array:
    """V (F, r), from the order of the samples."""
    v = whitening(z_SF, most=most)
    if v.shape[1] == 0:
        return v
    z = (z_SF - z_SF.mean(0)) @ v
    moments = []
    for lag in lags:
        if lag < len(z) // 2:
            c = z[:-lag].T @ z[lag:] / len(z)
            moments.append((c + c.T) / 2)
    return np.asarray(v @ jointly_diagonal(np.stack(moments), sweeps))


def batches(parts: Sequence[Array], *, most: int | None = None) -> Array:
    """V (F, r), from batches (S, F) in which sources are of different strengths."""
    v = whitening(np.concatenate(parts), most=most)
    if v.shape[1] == 0:
        return v
    white = [(part - part.mean(0)) @ v for part in parts]
    return np.asarray(v @ jointly_diagonal(np.stack([z.T @ z / len(z) for z in white])))


def zero_components(z_SF: Array, *, seed: int = 0) -> tuple[Array, int]:
    """V (F, r) and how many of its columns are exact: those of Z V vanish in clearly more samples than the
    r - 1 in which some combination always does. The others are ICA's. Where columns fall into blocks that
    were
    mixed among themselves, blocks are unmixed one by one."""
    blocks = mixed_together(z_SF)
    if max(map(len, blocks)) in (1, z_SF.shape[1]):
        return _zero_components(z_SF, seed)
    exact = 0
    parts: list[Array] = []
    for block in blocks:
        v, count = _zero_components(z_SF[:, block], seed)
        whole = np.zeros((z_SF.shape[1], v.shape[1]))
        whole[block] = v
        exact, parts = exact + count, [*parts, whole]
    return np.concatenate(parts, 1), exact


def mixed_together(z_SF: Array) -> list[NDArray[np.int64]]:
    """Columns in blocks. Where all sources of a block but one are zero, two mixtures of it have one of a few
    ratios; elsewhere no ratio comes twice."""
    f = z_SF.shape[1]
    some = z_SF[:_RATIO_ROWS]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(some))
    logs[~np.isfinite(logs)] = np.nan
    linked = np.eye(f, dtype=bool)
    probes = np.random.default_rng(7).permutation(f)
    for done, i in enumerate(probes):
        if done == _PROBES and linked.sum() == f:
            break  # so many columns were mixed with no other: there are no small blocks
        ratio = np.sort(logs - logs[:, i, None], axis=0)
        linked[i] |= (np.diff(ratio, axis=0) < _RATIO).mean(0) > _REPEATED
    count, label = connected_components(linked, directed=False)
    return [np.flatnonzero(label == each) for each in range(count)]


def _zero_components(z_SF: Array, seed: int) -> tuple[Array, int]:
    w = whitening(z_SF, centred=False)
    r = w.shape[1]
    if r < 2:
        y = z_SF @ w
        return w, int(r == 1 and (y == 0).mean() > 0)
    if len(z_SF) < 2 * r:
        return w, 0
    z = z_SF @ w
    found: list[Array] = []
    guess = np.eye(r)
    for restart in range(_RESTARTS):
        # A source less its mean is found by the same vector as the source.
        guess = _square(fastica(z, centred=restart % 2 == 0, seed=seed + restart, turns=200), r)
        starts = guess.T if r > _FEW else np.concatenate([guess.T, _nulls(z, seed)])
        for tried, start in enumerate(starts):
            if tried == _PATIENCE and not found:
                break
            exact = _exact(z, start)
            if exact is not None and all(abs(exact @ other) < 1 - 1e-5 for other in found):
                found.append(exact)
        if len(found) >= r or (not found and (restart or r > _MANY)):
            break

    if not found:
        return np.asarray(w @ guess), 0
    # Sums of sources have zeros too, though fewer. What is left of the space goes to what ICA found outside
    # it.
    every = np.stack(found, 1)
    y = np.abs(z @ every)
    kept = _independent(every[:, np.argsort(-(y < _EXACT * y.max(0)).sum(0), kind="stable")])
    rest = guess - kept @ np.linalg.lstsq(kept, guess, rcond=None)[0]
    u = np.linalg.svd(rest, full_matrices=False)[0][:, : r - kept.shape[1]]
    return np.asarray(w @ np.concatenate([kept, u], 1)), kept.shape[1]


def _square(v_rF: Array, r: int) -> Array:
    """Centring may cost a direction: an orthogonal one takes its place."""
    lack = r - v_rF.shape[1]
    u = np.linalg.svd(v_rF)[0]
    return np.concatenate([v_rF, u[:, r - lack :]], 1) if lack > 0 else v_rF


def _nulls(z_Sr: Array, seed: int) -> Array:
    """Vectors that make random choices of r - 1 samples zero: with few dimensions some choice is right."""
    rng = np.random.default_rng(seed)
    r = z_Sr.shape[1]
    live = z_Sr[np.linalg.norm(z_Sr, axis=1) > 0]
    picks = np.stack([rng.choice(len(live), r - 1, replace=False) for _ in range(_CHOICES)])
    return np.asarray(np.linalg.svd(live[picks])[2][:, -1])


def _exact(z_Sr: Array, start: Array) -> Array | None:
    """From near a sparse component to it, or None: the null vector of the samples in which it is smallest,
    and
    so on to a fixed point."""
    r = z_Sr.shape[1]
    v, enough = start / np.linalg.norm(start), int(1.2 * r) + 4
    for _ in range(6):
        y = np.abs(z_Sr @ v)
        small = np.flatnonzero(y < _EXACT * y.max())
        chosen = small if len(small) >= enough else np.argsort(y)[:enough]
        v = np.linalg.svd(z_Sr[chosen], full_matrices=False)[2][-1]
        if len(small) >= enough:
            return np.asarray(v)
    return None


def _independent(v_rF: Array) -> Array:
    """Leading columns that are linearly independent."""
    kept: list[Array] = []
    for each in v_rF.T:
        basis = np.stack(kept, 1) if kept else np.zeros((len(each), 0))
        rest = each - basis @ np.linalg.lstsq(basis, each, rcond=None)[0] if kept else each
        if np.linalg.norm(rest) > 1e-3 * np.linalg.norm(each):
            kept.append(each)
    return np.stack(kept, 1)


def _orthogonal(m: Array) -> Array:
    """The orthogonal matrix nearest to m: (m m^T)^-1/2 m."""
    # In float64: what is left of a direction after a turn may be next to nothing.
    values, vectors = np.linalg.eigh((m @ m.T).astype(np.float64))
    return np.asarray((vectors / np.sqrt(np.maximum(values, 1e-14 * values[-1] + 1e-300))) @ vectors.T @ m)
