"""What the checks ask of W', read once for the chunks of an operation that meet it.

    W^T r  for Y = X W^T,    W r  for dX = dY W

Every chunk has a probe r of its own, for one reply. But all of them meet one W', and what costs is reading
it: twelve columns take little longer than two (docs/decisions/0005-one-reading.md).

Axes: G groups, K in-features, N out-features, O those of the reply, I the other ones, P probes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels import Hidden, Sums, survey
from tempo.ops import Op

#: Draws a fresh probe, (width, P).
Draw = Callable[[int], Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Side:
    """For one reply. probe_OP: r. v_GIP: W^T r or W r of each group. norms_G: of W. h_GIP: v^2 + (W o W) r^2,
    where a worker may round W."""

    probe_OP: Tensor
    v_GIP: Tensor
    norms_G: Tensor
    h_GIP: Tensor | None


@final
class Sides(Hidden):
    """draw: a probe from a stream of its own. ahead: how many replies a first look at a W' prepares; what
    comes beyond them is prepared one by one."""

    def __init__(self, draw: Draw, ahead: int = 1) -> None:
        self._draw = draw
        self._ahead = ahead
        #: By W', operation and rounding; W' is kept, so that no other tensor takes its identity.
        self._ready: dict[tuple[int, Op, bool], tuple[Tensor, deque[Side]]] = {}

    def take(self, w_GNK: Tensor, op: Op, *, rounded: bool) -> Side:
        """For the next reply of PRODUCT or GRAD_X with this W'. It is not given out again."""
        kind = (id(w_GNK), op, rounded)
        if kind not in self._ready:
            self._ready[kind] = w_GNK, self._look(w_GNK, op, self._ahead, rounded)
        ready = self._ready[kind][1]
        return ready.popleft() if ready else self._look(w_GNK, op, 1, rounded)[0]

    def _look(self, w_GNK: Tensor, op: Op, count: int, rounded: bool) -> deque[Side]:
        through, outer = (_along, w_GNK.shape[2]) if op is Op.GRAD_X else (_down, w_GNK.shape[1])
        probes = [self._draw(outer) for _ in range(count)]
        many, p = probes[0] if count == 1 else torch.cat(probes, 1), probes[0].shape[1]
        v_GIP, norms_G = through(w_GNK, Sums(many))
        h_GIP = v_GIP.square() + through(w_GNK, Sums(many.square(), True))[0] if rounded else None

        def columns(of: Tensor, at: int) -> Tensor:
            return of[..., at * p : (at + 1) * p]

        return deque(
            Side(probe, columns(v_GIP, i), norms_G, None if h_GIP is None else columns(h_GIP, i))
            for i, probe in enumerate(probes)
        )


def _along(w_GNK: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
    """W r (G, N, P), and norms of W (G,)."""
    found, shape = survey(w_GNK, [sums]), w_GNK.shape[:2]
    norms_G = torch.linalg.vector_norm(found.norms.view(shape), dim=1)
    return found.along[0].view(*shape, sums.columns), norms_G


def _down(w_GNK: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
    """W^T r (G, K, P), and norms of W (G,)."""
    found = survey(w_GNK, down=[sums])
    return found.down[0], found.squares.sum(1).sqrt_()
