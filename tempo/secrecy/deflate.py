"""Deflation: the strongest directions of W stay in the TEE.

    W = W^ + P Q^T        W^ is sealed and sent; Q: about the r strongest right singular vectors of W

    Y  = X W^^T + (X Q) P^T        dX = dY W^ + (dY P) Q^T        dW = dY^T X, as ever

Someone who knows W looks for these directions first (attack 12 of the suite). Taking them off exactly would
leave W^ with an exact null space, and an exact constraint on an operand is key material. So each is
lowered, to a secret random size below the next singular value, and with a random sign:

    P Q^T = W V (1 - E) V^T        |E_i| s_i uniform in [1/4, 1] s_(r+1)

V is found by randomised subspace iteration (Halko, Martinsson, Tropp, 2011, algorithm 4.4) with as many
directions more. That costs 4 G N K r multiplications and additions for each pass over W; an epoch that
follows another begins with its V and takes one pass, the first takes three. V need not be exact for the
products to be: P and Q are what they are.

Axes: G groups, K in-features, N out-features, r directions.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from tempo.kernels import Hidden
from tempo.secrecy.keys import Stream

#: Passes over W and W^T before the directions are read off: without and with a start.
_COLD, _WARM = 3, 1
#: Share of the shorter axis that may be taken away: what is sent must remain a large matrix.
_MOST = 4


@final
class Taken(Hidden):
    """P (G, N, r) and Q (G, K, r): what was taken from W. subspace: where to begin next time."""

    __slots__ = ("p_GNr", "q_GKr", "subspace")

    def __init__(self, p_GNr: Tensor, q_GKr: Tensor, subspace: Tensor) -> None:
        self.p_GNr = p_GNr
        self.q_GKr = q_GKr
        self.subspace = subspace

    def rest(self, w_GNK: Tensor, *, out: Tensor) -> Tensor:
        """W^ = W - P Q^T."""
        return torch.baddbmm(w_GNK, self.p_GNr, self.q_GKr.mT, alpha=-1, out=out)


def take(w_GNK: Tensor, directions: int, stream: Stream, start: Tensor | None = None) -> Taken | None:
    """What of W is to stay; None where W has too few rows or columns, or is not finite. directions: r, at
    most a quarter of the shorter axis. start: `subspace` of an earlier W of this shape."""
    groups, n, k = w_GNK.shape
    r = min(directions, n // _MOST, k // _MOST)
    if r < 1 or groups == 0:
        return None
    wide = 2 * r
    if start is None or start.shape != (groups, k, wide) or start.dtype != w_GNK.dtype:
        basis, passes = stream.gaussian(groups, k, wide).to(w_GNK.dtype), _COLD
    else:
        basis, passes = start, _WARM
    # Scaled, or squares of small weights would vanish.
    peak = w_GNK.abs().amax()
    if not 0 < float(peak) < torch.inf:
        return None
    scaled = w_GNK / peak
    for _ in range(passes):
        basis = torch.linalg.qr(torch.bmm(scaled.mT, torch.linalg.qr(torch.bmm(scaled, basis)).Q)).Q
    _, sizes, right = torch.linalg.svd(torch.bmm(scaled, basis), full_matrices=False)
    v_GKr = torch.bmm(basis, right.mT)[:, :, :r]
    next_one = sizes[:, r : r + 1]
    left = (0.25 + 0.75 * stream.uniform(groups, r)) * (1 - 2 * (stream.words(groups, r) & 1))
    left = left.to(w_GNK.dtype) * next_one / sizes[:, :r].clamp_min(torch.finfo(w_GNK.dtype).tiny)
    return Taken(torch.bmm(w_GNK, v_GKr) * (1 - left).unsqueeze(1), v_GKr, basis)
