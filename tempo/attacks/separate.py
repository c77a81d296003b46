"""Separating sources by their statistics: small, seeded and in plain PyTorch, for attacks on reused bases.

Rows are samples of K mixtures. `fast_ica` looks for directions in which they are least Gaussian (Hyvarinen,
1999, symmetric, tanh); `joint` for those in which covariances of several batches are diagonal at once
(Cardoso and Souloumiac, 1996: Jacobi rotations).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

ITERATIONS: Final = 60
SWEEPS: Final = 8
MATRICES: Final = 40
_SEED: Final = 11


def whitening(rows_TK: Tensor, most: int) -> Tensor:
    """(D, K) that makes the D <= most strongest directions of the rows, less their mean, white."""
    centred = rows_TK.double() - rows_TK.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred / len(centred))
    keep = (values > 1e-10 * values[-1]).nonzero().flatten().flip(0)[:most]
    white: Tensor = (vectors[:, keep] * values[keep].rsqrt()).mT
    return white


def fast_ica(rows_TK: Tensor, white_DK: Tensor) -> Tensor:
    """(D, K): its rows are the directions of independent components."""
    z = ((rows_TK.double() - rows_TK.double().mean(0)) @ white_DK.mT).float()
    generator = torch.Generator().manual_seed(_SEED)
    w = _rotation(torch.randn(len(white_DK), len(white_DK), generator=generator))
    for _ in range(ITERATIONS):
        g = (z @ w.mT).tanh()
        again = _rotation(g.mT @ z / len(z) - (1 - g.square()).mean(0)[:, None] * w)
        done = float(((again * w).sum(1).abs() - 1).abs().max()) < 1e-5
        w = again
        if done:
            break
    unmixing: Tensor = w.double() @ white_DK
    return unmixing


def joint(moments: Sequence[Tensor], white_DK: Tensor) -> Tensor:
    """(D, K): its rows diagonalise all moments (K, K), as nearly as one basis can."""
    c = _principal(torch.stack([white_DK @ m @ white_DK.mT for m in moments]))
    d = len(white_DK)
    v = torch.eye(d, dtype=torch.float64)
    for _ in range(SWEEPS):
        turned = 0.0
        for p, q in _rounds(d):
            on, off = c[:, p, p] - c[:, q, q], 2 * c[:, p, q]
            # The angle that leaves the least off the diagonals of all matrices, for each pair by itself.
            angle = 0.25 * torch.atan2(2 * (on * off).sum(0), (on.square() - off.square()).sum(0))
            turned = max(turned, float(angle.abs().max()))
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            for t in (c, c.mT, v):
                of_p, of_q = t[..., p, :], t[..., q, :]
                t[..., p, :], t[..., q, :] = cos * of_p + sin * of_q, cos * of_q - sin * of_p
        if turned < 1e-4:
            break
    unmixing: Tensor = v @ white_DK
    return unmixing


def _principal(c: Tensor) -> Tensor:
    """The combinations of symmetric matrices (N, D, D) in which they differ most, MATRICES at most, and what
    they have in common."""
    mean = c.mean(0)
    if len(c) <= MATRICES:
        return c - mean + mean / len(c)
    _, s, vh = torch.linalg.svd((c - mean).flatten(1), full_matrices=False)
    most: Tensor = s[:MATRICES, None] * vh[:MATRICES]
    return most.reshape(-1, *mean.shape)


def _rounds(d: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs of 0 .. d - 1, in rounds of pairs that do not touch (a tournament)."""
    ring = list(range(d + d % 2))
    half = len(ring) // 2
    for _ in range(len(ring) - 1):
        pairs = [(a, b) for a, b in zip(ring[:half], reversed(ring[half:]), strict=True) if max(a, b) < d]
        yield torch.tensor([a for a, _ in pairs]), torch.tensor([b for _, b in pairs])
        ring = [ring[0], ring[-1], *ring[1:-1]]


def _rotation(w: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    rotation: Tensor = u @ vh
    return rotation
