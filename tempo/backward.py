"""One layer's backward pass, piece by piece.

Which rows go where (X: rows of the forward operand, dY: of the arriving gradient):

    sent in forward, dY has them all     key shift: dY' joins X' and W' at the worker that keeps them
    sent in forward, dY lost a few       the same, with decoys for the rows that are zero
    sent in forward, dY lost many        X and dY sealed again under a fresh key, on what remains
    not sent in forward (zero in X)      dX alone, under a fresh key; their dW is zero
    too few of a group, or no worker     in the master

A decoy is a random row in the place of a zero one, which would give the basis of its block away. What
it adds to dW is known and taken off here; its row of dX is dropped.

A piece whose worker vanished with X' is sealed again for another one. Without key shift, dX and dW
are two products with bases of their own: six encodings a step instead of three.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from tempo.errors import OperandMissing
from tempo.fleet import Failed
from tempo.integrity import Checks
from tempo.lowering.base import Lowering
from tempo.ops import Job
from tempo.secrecy.pieces import GradientPiece
from tempo.secrecy.rows import Selection, largest, row_norms, unfit
from tempo.secrecy.seal import FeatureKey, draw_centre
from tempo.secrecy.weights import SealedWeight

if TYPE_CHECKING:
    from tempo.engine import Engine, Ticket


#: Share of a piece's rows that decoys may take: each costs the master one row of the product.
_DECOYS = 1 / 16


@final
class Backward:
    """Plans the pieces, runs them until none is left, and adds up what came back."""

    def __init__(
        self,
        engine: Engine,
        ticket: Ticket,
        lowering: Lowering,
        x: Tensor,
        w: Tensor,
        dy: Tensor,
        *,
        want_x: bool,
        want_w: bool,
    ) -> None:
        self._engine = engine
        self._desk = engine.desk
        self._lowering = lowering
        self._x, self._w = x, w
        self._want_x, self._want_w = want_x, want_w
        self._centre = ticket.centre
        self._ticket = ticket
        self._kept, ticket.kept = ticket.kept, []
        with self._desk.stats.timed("lower"):
            self._dy_GRN = lowering.lower_dy(dy)
            self._norms_dy = row_norms(self._dy_GRN)
        groups, rows, _ = self._dy_GRN.shape
        shape = lowering.shape
        self._dx_GRK = dy.new_zeros(groups, rows, shape.k) if want_x else None
        self._dw_GNK = dy.new_zeros(groups, shape.n, shape.k) if want_w else None
        #: Sums of dW' by the key they are sealed under, and of the rows of dY they stand for.
        self._dw_sealed: dict[FeatureKey, Tensor] = {}
        self._dy_sum_GN1 = dy.new_zeros(groups, shape.n, 1)
        #: dY with decoys, and where they are.
        self._dy_sent_GRN = self._dy_GRN
        self._decoy_GR: Tensor | None = None

    @cached_property
    def _x_GRK(self) -> Tensor:
        with self._desk.stats.timed("lower"):
            return self._lowering.lower_x(self._x)

    @cached_property
    def _w_GNK(self) -> Tensor:
        with self._desk.stats.timed("lower"):
            return self._lowering.lower_w(self._w)

    # -- plan ------------------------------------------------------------------------------------

    def plan(self) -> list[GradientPiece]:
        """The pieces to send; rows that stay are computed here at once."""
        everything = Selection.everything(*self._norms_dy.shape)
        weight = self._ticket.weight
        partners = (self._ticket.largest_x, self._ticket.largest_w)
        reason = unfit(largest(self._norms_dy), *partners, dtype=self._dy_GRN.dtype)
        if weight is None or reason:
            self._at_home(everything, want_x=self._want_x, want_w=self._want_w)
            return []
        live = self._rows_to_send(self._norms_dy)
        if not self._engine.key_shift:
            return self._plan_unshifted(live)
        pieces: list[GradientPiece] = []
        weight_x = weight if self._want_x else None
        rest = live.clone()
        for kept in self._kept:
            rows = kept.where.mask()
            rest &= ~rows
            lost = rows & ~live
            if lost.sum() <= _DECOYS * rows.sum():
                self._add_decoys(lost)
                pieces.append(
                    GradientPiece(
                        self._desk, weight.key, kept.where, kept=kept, weight=weight_x, want_w=self._want_w
                    )
                )
            else:
                pieces += self._fresh(rows & live, weight.key, weight_x, want_w=self._want_w)
        if pieces:
            self._count(pieces)
        return pieces + self._plan_rest(rest, weight, kept=bool(pieces))

    def _plan_rest(self, rest: Tensor, weight: SealedWeight, *, kept: bool) -> list[GradientPiece]:
        """Rows of dY that no kept X stands for. Their dW: only rows kept at home in forward have an X;
        where forward kept nothing at the workers (second backward), every row may."""
        if not rest.any():
            return []
        home = self._ticket.home
        at_home = home.mask() if home is not None else torch.zeros_like(rest)
        if self._want_w:
            self._at_home(Selection.where(rest & at_home), want_x=False, want_w=True)
        pieces: list[GradientPiece] = []
        if self._want_w and not self._kept:
            live_x = self._rows_to_send(row_norms(self._x_GRK)) & ~at_home
            both = rest & live_x
            rest = rest & ~live_x
            pieces += self._fresh(both, weight.key, weight if self._want_x else None, want_w=True)
        if self._want_x:
            pieces += self._fresh(rest, weight.key, weight, want_w=False)
        if not kept:
            self._count(pieces)
        return pieces

    def _plan_unshifted(self, live: Tensor) -> list[GradientPiece]:
        """dX and dW as two products whose bases share nothing with each other or with forward."""
        shape, pieces = self._lowering.shape, []
        if self._want_x:
            weight = self._engine.fresh_weight(self._w_GNK)
            pieces += self._fresh(live, weight.key, weight, want_w=False)
            self._engine.count_product("dy")
        if self._want_w:
            both = live & self._rows_to_send(row_norms(self._x_GRK))
            label = self._engine.label()
            key = FeatureKey(self._desk.key, self._desk.scheme, label, groups=len(live), k=shape.k, n=shape.n)
            if self._centre is not None:
                self._centre = draw_centre(self._desk.key, label, self._x_GRK, Selection.where(both))
            pieces += self._fresh(both, key, None, want_w=True)
            self._engine.count_product("dy", "x")
        return pieces

    def _fresh(
        self, rows: Tensor, key: FeatureKey, weight: SealedWeight | None, *, want_w: bool
    ) -> list[GradientPiece]:
        """Pieces under fresh row keys; groups with too few rows are computed here."""
        shards, home = self._engine.shards(Selection.where(rows))
        self._at_home(home, want_x=weight is not None, want_w=want_w)
        return [GradientPiece(self._desk, key, shard, weight=weight, want_w=want_w) for shard in shards]

    def _rows_to_send(self, norms_GR: Tensor) -> Tensor:
        """(G, R) bool."""
        return self._engine.rows_to_send(self._lowering, norms_GR, self._dy_GRN.dtype).mask()

    def _count(self, pieces: list[GradientPiece]) -> None:
        if any(p.want_w for p in pieces):
            fresh_x = any(p.want_w and not p.shifted for p in pieces)
            self._engine.count_product("dy", *(["x"] if fresh_x else []))
        if any(p.want_x for p in pieces):
            self._engine.count_product(*([] if any(p.want_w for p in pieces) else ["dy"]))

    # -- run -------------------------------------------------------------------------------------

    def run(self, pieces: list[GradientPiece]) -> list[GradientPiece]:
        """One round over the fleet. Pieces that must be sealed again."""
        checks = self._desk.verifier.begin()
        outcomes = self._engine.exchange(self._sealed(pieces, checks), checks)
        again: list[GradientPiece] = []
        for piece, jobs in zip(pieces, outcomes, strict=True):
            wanted = ["w"] * piece.want_w + ["x"] * piece.want_x
            failed = {}
            for what, outcome in zip(wanted, jobs, strict=True):
                if isinstance(outcome, Failed):
                    failed[what] = outcome
                elif what == "w" and self._dw_GNK is not None:
                    self._add_dw(piece, outcome.value, self._dw_GNK)
                elif self._dx_GRK is not None:
                    piece.open_dx(outcome.value, self._dx_GRK)
                    for g, index in self._decoys(piece.where):
                        self._dx_GRK[g, index] = 0
            if not failed:
                continue
            lost = [f for f in failed.values() if isinstance(f.error, OperandMissing)]
            if lost:
                again.append(piece.without_kept(want_x="x" in failed, want_w="w" in failed))
                self._desk.stats.add("encoded_dy")
                self._desk.stats.add("encoded_x", int("w" in failed))
            else:
                self._engine.require_fallback(next(iter(failed.values())))
                self._at_home(piece.where, want_x="x" in failed, want_w="w" in failed)
        return again

    def _sealed(self, pieces: list[GradientPiece], checks: Checks) -> Iterator[list[Job]]:
        for piece in pieces:
            x = self._x_GRK if piece.want_w and not piece.shifted else None
            yield piece.seal(x, self._centre, self._dy_sent_GRN, checks)

    def _add_dw(self, piece: GradientPiece, dw_sealed: Tensor, dw_GNK: Tensor) -> None:
        """Sum in the order of the pieces, so that a run can be repeated."""
        sofar = self._dw_sealed.get(piece.key)
        self._dw_sealed[piece.key] = dw_sealed if sofar is None else sofar.add_(dw_sealed)
        if self._centre is not None:
            for g in range(len(self._dy_sum_GN1)):
                self._dy_sum_GN1[g, :, 0] += piece.where.take(self._dy_GRN, g).sum(0)
        for g, index in self._decoys(piece.where):
            x = self._x_GRK[g, index] if self._centre is None else self._x_GRK[g, index] - self._centre[g]
            dw_GNK[g].addmm_(self._dy_sent_GRN[g, index].mT, x, alpha=-1)

    def _add_decoys(self, lost_GR: Tensor) -> None:
        """Put random rows of the usual size where rows of dY are zero."""
        if not lost_GR.any():
            return
        if self._decoy_GR is None:
            self._decoy_GR = torch.zeros_like(lost_GR)
            self._dy_sent_GRN = self._dy_GRN.clone()
        self._decoy_GR |= lost_GR
        stream = self._desk.key.stream(("decoys", *self._engine.label()))
        n = self._dy_GRN.shape[2]
        for g, index in _rows_of(lost_GR):
            size = self._norms_dy[g].square().mean().sqrt() / n**0.5
            self._dy_sent_GRN[g, index] = (size * stream.gaussian(len(index), n)).to(self._dy_GRN.dtype)

    def _decoys(self, where: Selection) -> Iterator[tuple[int, Tensor]]:
        """Group and rows of the decoys among the rows of a piece."""
        return iter(()) if self._decoy_GR is None else _rows_of(where.mask() & self._decoy_GR)

    def _at_home(self, where: Selection, *, want_x: bool, want_w: bool) -> None:
        with self._desk.stats.timed("local"):
            for g, count in enumerate(where.counts):
                if not count:
                    continue
                dy = where.take(self._dy_GRN, g)
                if want_x and self._dx_GRK is not None:
                    where.put(self._dx_GRK, g, dy @ self._w_GNK[g])
                if want_w and self._dw_GNK is not None:
                    self._dw_GNK[g].addmm_(dy.mT, where.take(self._x_GRK, g))

    # -- finish ----------------------------------------------------------------------------------

    def finish(self) -> tuple[Tensor | None, Tensor | None]:
        stats, dw = self._desk.stats, self._dw_GNK
        if dw is not None:
            for key, total in self._dw_sealed.items():
                with stats.timed("decode"):
                    dw += key.open_dw(total)
            if self._centre is not None and self._dw_sealed:
                dw += self._dy_sum_GN1 * self._centre
        with stats.timed("lower"):
            return (
                None if self._dx_GRK is None else self._lowering.raise_dx(self._dx_GRK),
                None if dw is None else self._lowering.raise_dw(dw),
            )


def _rows_of(mask_GR: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(group, indices of its rows) for groups that have any."""
    for g, mask in enumerate(mask_GR):
        if mask.any():
            yield g, mask.nonzero().flatten()
