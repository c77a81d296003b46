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

from tempo.kernels import Hidden, contract, project
from tempo.ops import Op

#: Draws a fresh probe, (width, P).
Draw = Callable[[int], Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Side:
    """For one reply. probe_OP: r. v_GIP: W^T r or W r of each group. norms_G: of W. h_GIP: v^2 + (W o W) r^2,
    where a worker may round W."""

    probe_OP: Tensor
    v_GIP: list[Tensor]
    norms_G: Tensor
    h_GIP: list[Tensor] | None


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
        through, outer = (project, w_GNK.shape[2]) if op is Op.GRAD_X else (_contract, w_GNK.shape[1])
        probes = [self._draw(outer) for _ in range(count)]
        many = probes[0] if count == 1 else torch.cat(probes, 1)
        v, norms, h = [], [], []
        for w_NK in w_GNK:
            v_IP, norms_I = through(w_NK, many)
            v.append(v_IP)
            norms.append(torch.linalg.vector_norm(norms_I))
            if rounded:
                h.append(v_IP.square() + through(w_NK, many.square(), squared=True)[0])
        norms_G, p = torch.stack(norms), probes[0].shape[1]

        def columns(of: list[Tensor], at: int) -> list[Tensor]:
            return [each[:, at * p : (at + 1) * p] for each in of]

        return deque(
            Side(probe, columns(v, i), norms_G, columns(h, i) if rounded else None)
            for i, probe in enumerate(probes)
        )


def _contract(a_RF: Tensor, q_RP: Tensor, *, squared: bool = False) -> tuple[Tensor, Tensor]:
    out, squares = contract(a_RF, q_RP, squared=squared)
    return out, squares.sqrt_()
