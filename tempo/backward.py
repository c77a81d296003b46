"""One layer's backward pass, piece by piece.

Which rows go where (X: rows of the forward operand, dY: of the arriving gradient):

    sent in forward, dY has them all     key shift: dY' joins X' and W' at the worker that keeps them
    sent in forward, dY lost a few       the same, with decoys for the rows that are zero
    sent in forward, dY lost many        X and dY sealed again under fresh keys, on what remains
    not sent in forward (zero in X)      dX alone, under a fresh key; their dW is zero
    too few of a group, or no worker     in the master, as all rows do where too many repeat

A decoy is a random row in the place of a zero one, which would give the basis of its block away. What
it adds to dW is known and taken off here; its row of dX is dropped.

A piece whose worker vanished with X' is sealed again for another one, under keys that are fresh on every
axis. Without key shift, dX and dW are two such products: six encodings a step instead of three.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from tempo.errors import OperandMissing
from tempo.fleet import Done, Failed
from tempo.integrity import Checks
from tempo.lowering.base import Lowering
from tempo.ops import Job
from tempo.secrecy.form import Form
from tempo.secrecy.pieces import GradientPiece, KeptRows
from tempo.secrecy.repeats import Survey, gradients
from tempo.secrecy.rows import Selection, largest, rms, row_norms, rows_of, unfit
from tempo.secrecy.seal import FeatureKey
from tempo.secrecy.weights import SealedWeight
from tempo.weight_gradient import WeightGradient

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
        self._ticket = ticket
        self._kept, ticket.kept = ticket.kept, []
        self._second, ticket.used = ticket.used, True
        with self._desk.stats.timed("lower"):
            self._dy_GRN = lowering.lower_dy(dy)
            self._cover = ticket.cover
            sums = None
            if want_w and self._cover.centre is not None:
                self._norms_dy, self._seen, sums = engine.survey_and_sums(self._dy_GRN)
            else:
                self._norms_dy, self._seen = engine.survey(self._dy_GRN)
        k = lowering.shape.k
        shape = (*self._norms_dy.shape, k)
        self._dx_GRK = self._desk.pool.empty(shape, dy.dtype) if want_x else None
        self._dw = WeightGradient(self._desk, self._dy_GRN, sums, self._cover, k)
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

    def plan(self) -> list[GradientPiece]:
        """The pieces to send; rows that stay are computed here at once."""
        everything = Selection.everything(*self._norms_dy.shape)
        weight = self._ticket.weight
        partners = (self._ticket.largest_x, self._ticket.largest_w)
        reason = unfit(largest(self._norms_dy), *partners, dtype=self._dy_GRN.dtype)
        if weight is None or reason:
            self._at_home(everything, want_x=self._want_x, want_w=self._want_w)
            return []
        if self._seen and self._engine.repeats(self._lowering, self._dy_GRN.dtype, self._seen):
            return self._distinct_at_home(self._seen)
        live = self._rows_to_send(self._norms_dy)
        if self._dx_GRK is not None and not live.all():
            self._dx_GRK.zero_()
        if not self._engine.key_shift:
            of_x = self._counted(self._fresh_dx(live, self._new_weight)) if self._want_x else []
            return of_x + (self._fresh_dw(live & self._live_x) if self._want_w else [])
        # C has hidden one dY of this graph; another one gets a W' of its own.
        weight = self._new_weight if self._second and self._want_x else weight
        pieces: list[GradientPiece] = []
        rest = live.clone()
        for kept in self._kept:
            rows = kept.where.mask()
            rest &= ~rows
            lost = rows & ~live
            if lost.sum() <= _DECOYS * rows.sum():
                self._add_decoys(lost)
                pieces.append(self._key_shifted(kept, weight))
            else:
                pieces += self._fresh_dw(rows & live)
                pieces += self._counted(self._fresh_dx(rows & live, weight))
        shifted = any(piece.shifted for piece in pieces)
        if shifted:
            self._engine.count_product("dy")
            if self._want_w and self._want_x:
                self._engine.count_product()  # the second product of the same dY
        return pieces + self._plan_rest(rest, weight, counted=shifted and self._want_x)

    def _distinct_at_home(self, seen: Survey) -> list[GradientPiece]:
        desk, dx = self._desk, self._dx_GRK
        desk.stats.add("repeated_dy")
        of_x = None if dx is None else (self._w_GNK, dx)
        of_w = (self._x_GRK, self._dw.local) if self._want_w else None
        with desk.stats.timed("local"):
            gradients(self._dy_GRN, seen, of_x=of_x, of_w=of_w)
        return []

    def _key_shifted(self, kept: KeptRows, weight: SealedWeight) -> GradientPiece:
        for_x, want_w, place = weight if self._want_x else None, self._want_w, (kept.where, kept.lane)
        desk, forms = self._desk, self._forms
        return GradientPiece(desk, weight.key, *place, forms, kept=kept, weight=for_x, want_w=want_w)

    def _plan_rest(self, rest: Tensor, weight: SealedWeight, *, counted: bool) -> list[GradientPiece]:
        """Rows of dY that no kept X stands for. Their dW: only rows kept at home in forward have an X;
        where nothing is kept at the workers (second backward), every row may. counted: the other rows of
        the same dY, and their dX, are in the account already."""
        if not rest.any():
            return []
        home = self._ticket.home
        at_home = home.mask() if home is not None else torch.zeros_like(rest)
        if self._want_w:
            self._at_home(Selection.where(rest & at_home), want_x=False, want_w=True)
        pieces = self._fresh_dx(rest, weight)
        pieces = pieces if counted else self._counted(pieces)
        if self._want_w and not self._kept:
            pieces += self._fresh_dw(rest & ~at_home & self._live_x)
        return pieces

    @cached_property
    def _forms(self) -> tuple[Form, Form]:
        """In which numbers X and dY are sent."""
        live = Selection.where(self._rows_to_send(self._norms_dy))
        form_dy = self._engine.form(self._lowering, self._norms_dy, live, self._dy_GRN.dtype)
        return self._ticket.form_x, form_dy

    @cached_property
    def _live_x(self) -> Tensor:
        return self._rows_to_send(row_norms(self._x_GRK))

    @cached_property
    def _new_weight(self) -> SealedWeight:
        """W' under keys of this backward pass alone."""
        return self._engine.fresh_weight(self._w_GNK, self._ticket.form_x.dtype, self._ticket.weight)

    def _fresh_dx(self, rows_GR: Tensor, weight: SealedWeight) -> list[GradientPiece]:
        """dX of these rows under fresh row keys; groups with too few rows are computed here."""
        if not self._want_x:
            return []
        shards, home = self._engine.shards(self._lowering, Selection.where(rows_GR), dw=False)
        self._at_home(home, want_x=True, want_w=False)
        desk, forms = self._desk, self._forms
        return [GradientPiece(desk, weight.key, where, lane, forms, weight=weight) for lane, where in shards]

    def _counted(self, pieces: list[GradientPiece]) -> list[GradientPiece]:
        """Enter pieces of dX as a product of their own, for which dY was encoded."""
        if pieces:
            self._engine.count_product("dy")
        return pieces

    def _fresh_dw(self, rows_GR: Tensor) -> list[GradientPiece]:
        """dW of these rows under keys that are fresh on every axis: X was sealed under B before."""
        if not self._want_w:
            return []
        shards, home = self._engine.shards(self._lowering, Selection.where(rows_GR), dw=True)
        self._at_home(home, want_x=False, want_w=True)
        if not shards:
            return []
        self._engine.count_product("dy", "x")
        s, desk = self._lowering.shape, self._desk
        label = ("dW", *self._engine.label())
        key = FeatureKey(desk.key, desk.scheme, label, groups=s.groups, k=s.k, n=s.n)
        return [GradientPiece(desk, key, where, lane, self._forms, want_w=True) for lane, where in shards]

    def _rows_to_send(self, norms_GR: Tensor) -> Tensor:
        """(G, R) bool."""
        return self._engine.rows_to_send(self._lowering, norms_GR, self._dy_GRN.dtype).mask()

    def run(self, pieces: list[GradientPiece]) -> list[GradientPiece]:
        """One round over the fleet. Pieces that must be sealed again."""
        checks = self._desk.verifier.begin(len(pieces))
        again: list[GradientPiece] = []
        with closing(self._engine.exchange(self._sealed(pieces, checks), checks)) as outcomes:
            for piece, jobs in zip(pieces, outcomes, strict=True):
                again += self._take(piece, jobs)
        return again

    def _take(self, piece: GradientPiece, jobs: list[Done[Tensor] | Failed]) -> list[GradientPiece]:
        """Enter what came back of a piece. Pieces for what did not."""
        wanted = ["w"] * piece.want_w + ["x"] * piece.want_x
        failed = {}
        for what, outcome in zip(wanted, jobs, strict=True):
            if isinstance(outcome, Failed):
                failed[what] = outcome
            elif what == "w":
                self._add_dw(piece, outcome.value)
            elif self._dx_GRK is not None:
                piece.open_dx(outcome.value, self._dx_GRK, self._dy_sent_GRN)
                for g, index in self._decoys(piece.where):
                    self._dx_GRK[g, index] = 0
        if not failed:
            return []
        again = []
        if any(isinstance(f.error, OperandMissing) for f in failed.values()):
            # A worker may say that it lost X' whenever it likes: it must not see X under B again.
            rows = piece.where.mask()
            rows = rows if self._decoy_GR is None else rows & ~self._decoy_GR
            again += self._fresh_dw(rows) if "w" in failed else []
            again += self._counted(self._fresh_dx(rows, self._new_weight)) if "x" in failed else []
        else:
            self._engine.require_fallback(next(iter(failed.values())))
            self._at_home(piece.where, want_x="x" in failed, want_w="w" in failed)
        return again

    def _sealed(self, pieces: list[GradientPiece], checks: Checks) -> Iterator[tuple[int, list[Job]]]:
        for piece in pieces:
            x = self._x_GRK if piece.want_w and not piece.shifted else None
            yield piece.lane, piece.seal(x, self._cover, self._dy_sent_GRN, checks)

    def _add_dw(self, piece: GradientPiece, dw_sealed: Tensor) -> None:
        self._dw.add(piece, dw_sealed, self._dy_sent_GRN)
        centre = self._cover.centre
        for g, index in self._decoys(piece.where):
            x = self._x_GRK[g, index] if centre is None else self._x_GRK[g, index] - centre[g]
            self._dw.local[g].addmm_(self._dy_sent_GRN[g, index].mT, x, alpha=-1)

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
        for g, index in rows_of(lost_GR):
            # A group without any dY takes the size of the others.
            size = max(rms(self._norms_dy[g]), 1e-3 * rms(self._norms_dy)) / n**0.5
            self._dy_sent_GRN[g, index] = (size * stream.gaussian(len(index), n)).to(self._dy_GRN.dtype)

    def _decoys(self, where: Selection) -> Iterator[tuple[int, Tensor]]:
        """Group and rows of the decoys among the rows of a piece."""
        return iter(()) if self._decoy_GR is None else rows_of(where.mask() & self._decoy_GR)

    def _at_home(self, where: Selection, *, want_x: bool, want_w: bool) -> None:
        with self._desk.stats.timed("local"):
            for g, count in enumerate(where.counts):
                if not count:
                    continue
                dy = where.take(self._dy_GRN, g)
                if want_x and self._dx_GRK is not None:
                    where.put(self._dx_GRK, g, dy @ self._w_GNK[g])
                if want_w:
                    self._dw.local[g].addmm_(dy.mT, where.take(self._x_GRK, g))

    def finish(self) -> tuple[Tensor | None, Tensor | None]:
        dw = self._dw.finish() if self._want_w else None
        with self._desk.stats.timed("lower"):
            return (
                None if self._dx_GRK is None else self._lowering.raise_dx(self._dx_GRK),
                None if dw is None else self._lowering.raise_dw(dw),
            )
