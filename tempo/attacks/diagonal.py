"""One rotation that makes several symmetric matrices as diagonal as they get (Cardoso and Souloumiac, SIAM J.
Matrix Anal. 1996): Jacobi's method, whose angle for a pair of axes leaves least off the diagonals of all.

Pairs that do not touch turn at once: a tournament of K - 1 rounds meets every pair.

Axes: T matrices, K rows and columns, H pairs of one round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Radians below which a rotation is none.
_NONE: Final = 1e-4
#: A sweep that gains less than this share of the energy on the diagonals is the last: noise turns for ever.
_LITTLE: Final = 1e-4
#: More matrices than so many are replaced by their strongest combinations.
MATRICES: Final = 24
SWEEPS: Final = 8


def jointly_diagonal(m_TKK: Array, sweeps: int = SWEEPS) -> Array:
    """V orthogonal (K, K): all V^T M_t V are as diagonal as one V can make them."""
    m = np.ascontiguousarray(principal(m_TKK).transpose(1, 2, 0))  # (K, K, T)
    v: Array = np.eye(len(m))
    settled = _on(m)
    for _ in range(sweeps):
        turned = 0.0
        for p, q in tournament(len(m)):
            on, off = m[p, p] - m[q, q], m[p, q] + m[q, p]
            across, apart = 2 * (on * off).sum(1), (on * on - off * off).sum(1)
            angle = 0.5 * np.arctan2(across, apart + np.hypot(apart, across))
            turned = max(turned, float(np.abs(angle).max(initial=0)))
            c, s = np.cos(angle), np.sin(angle)
            # Rows, then columns: the middle axis is turned either way.
            for t in (m.swapaxes(0, 1), m, v[:, :, None]):
                of_p, of_q = t[:, p], t[:, q]
                t[:, p] = c[:, None] * of_p + s[:, None] * of_q
                t[:, q] = c[:, None] * of_q - s[:, None] * of_p
        before, settled = settled, _on(m)
        if turned < _NONE or settled - before < _LITTLE * settled:
            break
    return v


def _on(m_KKT: Array) -> float:
    """Energy on the diagonals."""
    diagonals = np.einsum("kkt->kt", m_KKT)
    return float((diagonals * diagonals).sum())


def principal(m_TKK: Array) -> Array:
    """The combinations of many matrices in which they differ most, MATRICES at most, and their mean; few stay
    as they are."""
    if len(m_TKK) <= MATRICES:
        return m_TKK
    mean = m_TKK.mean(0, keepdims=True)
    flat = (m_TKK - mean).reshape(len(m_TKK), -1)
    # Of the small side: as many matrices as there are, not as many entries.
    values, vectors = np.linalg.eigh(flat @ flat.T)
    strongest = vectors[:, values.argsort()[::-1][:MATRICES]]
    return np.concatenate([mean, (strongest.T @ flat).reshape(-1, *m_TKK.shape[1:])])


def tournament(k: int) -> Iterator[tuple[Index, Index]]:
    """All pairs of 0 .. k - 1, in rounds of pairs that do not touch."""
    ring = list(range(k + k % 2))
    half = len(ring) // 2
    for _ in range(len(ring) - 1):
        pairs = [(a, b) for a, b in zip(ring[:half], reversed(ring[half:]), strict=True) if max(a, b) < k]
        yield np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
        ring = [ring[0], ring[-1], *ring[1:-1]]
