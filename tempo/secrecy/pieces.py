"""Pieces: the rows of one operation that one worker gets, sealed into jobs, and opened again.

A piece is sealed when it is dispatched, so that workers compute while the next is encoded. What each
needs of its predecessor is explicit: a forward piece leaves a `Kept`, a gradient piece may use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from tempo.integrity import Checks, Verifier, Witness
from tempo.memory import Pool
from tempo.ops import Job, Op, Operand
from tempo.secrecy.basis import Basis
from tempo.secrecy.cover import Aside, Cover, add_product
from tempo.secrecy.form import FULL, Form, Precision
from tempo.secrecy.keys import Label, SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import Scheme
from tempo.secrecy.seal import Added, FeatureKey, RowKey, open_rows
from tempo.secrecy.weights import Kept, Release, SealedWeight
from tempo.stats import Stats
from tempo.truth import UnsafeTruth


@final
@dataclass(frozen=True, slots=True)
class Desk:
    """What sealing needs of a session."""

    key: SessionKey
    scheme: Scheme
    verifier: Verifier
    stats: Stats
    #: Names of operands on the wire, and labels of keys: told apart, or gaps in one would tell workers
    #: how many of the other were drawn.
    ids: Iterator[int]
    labels: Iterator[int]
    release: Release
    precision: Precision = FULL
    #: Told the plain operands, where someone measures what attacks learn; for nothing else.
    truth: UnsafeTruth | None = None
    #: Memory of operands and results.
    pool: Pool = field(default_factory=Pool)

    def row_key(self, where: Selection) -> RowKey:
        label: Label = (next(self.labels),)
        return RowKey(self.key, self.scheme, label, where.counts)

    def rows(self, where: Selection, width: int, form: Form) -> Tensor:
        """Memory for the rows `where` of an operand as it is sent, (T, width)."""
        return self.pool.empty((sum(where.counts), width), form.dtype)

    def added(self, row_key: RowKey, z_GKs: Tensor | None) -> tuple[Added | None, list[Tensor]]:
        """What is added to the rows of X under this key, if anything, and its U by group."""
        if z_GKs is None:
            return None, []
        u = row_key.draws(z_GKs.shape[2], z_GKs.dtype)
        return Added(u, z_GKs, self.pool), u

    def operand(self, tensor: Tensor, *, keep: bool) -> Operand:
        return Operand(next(self.ids), tuple(tensor.shape), tensor.dtype, tensor, keep)


@final
@dataclass(slots=True, eq=False)
class KeptRows:
    """A forward piece as backward finds it: its rows, their key and form, X' at its worker, its witness."""

    where: Selection
    lane: int
    key: RowKey
    form: Form
    x: Kept
    witness: Witness


@final
class ForwardPiece:
    """Y = X W^T on the rows `where`. keep: leave X' at the worker for dW."""

    def __init__(
        self,
        desk: Desk,
        weight: SealedWeight,
        where: Selection,
        lane: int,
        cover: Cover,
        aside: Aside,
        form: Form,
        *,
        keep: bool,
    ) -> None:
        self.where = where
        self.lane = lane
        self.kept: KeptRows | None = None
        self._desk = desk
        self._weight = weight
        self._cover = cover
        self._aside = aside
        self._left: list[Tensor] = []
        self._form = form
        self._keep = keep
        self._row_key = desk.row_key(where)
        self._a: list[Basis] = []

    def seal(self, x_GRK: Tensor, checks: Checks) -> list[Job]:
        desk, key = self._desk, self._weight.key
        with desk.stats.timed("keys"):
            self._a = self._row_key.bases()
        with desk.stats.timed("encode"):
            out = desk.rows(self.where, x_GRK.shape[2], self._form)
            added, u = self._desk.added(self._row_key, self._aside.z_GKs)
            x_sealed = self._row_key.seal_x(
                self._a, key.b, x_GRK, self.where, self._cover.centre, added=added, out=out
            )
        if not self._aside.nothing:
            with desk.stats.timed("aside"):
                self._left = self._aside.left(x_GRK, self.where, u)
        operand = desk.operand(x_sealed, keep=self._keep)
        if desk.truth is not None:
            plain = self.where.rows_of(x_GRK)
            desk.truth.rows(operand.id, "x", self._weight.operand.id, plain, self._a, key.b)
        arithmetic = self._form.arithmetic
        job = Job(Op.PRODUCT, operand, self._weight.operand, self.where.counts, arithmetic)
        with desk.stats.timed("check"):
            if not self._keep:
                checks.expect(job)
                return [job]
            witness = checks.expect_and_keep(job)
            kept = Kept(operand, desk.release)
            self.kept = KeptRows(self.where, self.lane, self._row_key, self._form, kept, witness)
        return [job]

    def open(self, y_sealed: Tensor, y_GRN: Tensor, share_G1N: Tensor | None) -> None:
        """Decode into y_GRN and add the share of the centre, 1 (W c)^T, and what was computed here."""
        with self._desk.stats.timed("decode"):
            open_rows(y_sealed, self._a, self._weight.key.c, self.where, y_GRN, share_G1N)
        if self._left:
            with self._desk.stats.timed("aside"):
                self._aside.add(self._left, self.where, y_GRN)
        self._a, self._left = [], []


@final
class GradientPiece:
    """dX = dY W and dW = dY^T X on the rows `where`, whichever of the two are wanted.

    With `kept` the worker has X' already (key shift); otherwise X is sealed again under a fresh key.
    `key` holds B and C; `weight` is needed for dX alone. forms: of X and of dY.
    """

    def __init__(
        self,
        desk: Desk,
        key: FeatureKey,
        where: Selection,
        lane: int,
        forms: tuple[Form, Form],
        *,
        kept: KeptRows | None = None,
        weight: SealedWeight | None = None,
        want_w: bool = False,
    ) -> None:
        self.where = where
        self.lane = lane
        self.key = key
        self.want_x = weight is not None
        self.want_w = want_w
        self._desk = desk
        self._form_x, self._form_dy = kept.form if kept else forms[0], forms[1]
        self._kept = kept
        self._weight = weight
        self._row_key = kept.key if kept else desk.row_key(where)
        self._a: list[Basis] = []
        self._sent_dy: Kept | None = None

    @property
    def shifted(self) -> bool:
        """X' of the forward pass is reused."""
        return self._kept is not None

    @property
    def row_key(self) -> RowKey:
        return self._row_key

    def seal(self, x_GRK: Tensor | None, cover: Cover, dy_GRN: Tensor, checks: Checks) -> list[Job]:
        """Jobs in the order dW, dX: the first ships dY', the second refers to it."""
        desk = self._desk
        with desk.stats.timed("keys"):
            self._a = self._row_key.bases()
        with desk.stats.timed("encode"):
            out = desk.rows(self.where, dy_GRN.shape[2], self._form_dy)
            dy_sealed = self._row_key.seal_dy(self._a, self.key.c, dy_GRN, self.where, out=out)
        left = desk.operand(dy_sealed, keep=self.want_w and self.want_x)
        if desk.truth is not None:
            met = self._kept.x.operand.id if self._kept else self._weight.operand.id if self._weight else 0
            a, c = [basis.dual() for basis in self._a], [basis.dual() for basis in self.key.c]
            desk.truth.rows(left.id, "dy", met, self.where.rows_of(dy_GRN), a, c)
        self._sent_dy = Kept(left, desk.release)
        jobs = []
        if self.want_w:
            right = self._kept.x.operand if self._kept else self._seal_x(x_GRK, cover)
            both = self._form_x.arithmetic.stricter(self._form_dy.arithmetic)
            jobs.append(Job(Op.GRAD_W, left, right, self.where.counts, both))
        if self._weight is not None:
            own = self._form_dy.arithmetic
            jobs.append(Job(Op.GRAD_X, left, self._weight.operand, self.where.counts, own))
        with desk.stats.timed("check"):
            checks.expect_all(jobs, self._kept.witness if self._kept and self.want_w else None)
        return jobs

    def _seal_x(self, x_GRK: Tensor | None, cover: Cover) -> Operand:
        if x_GRK is None:
            raise AssertionError("dW without a kept X needs the plain X")
        with self._desk.stats.timed("encode"):
            out = self._desk.rows(self.where, x_GRK.shape[2], self._form_x)
            added, _ = self._desk.added(self._row_key, cover.directions(self.key, x_GRK))
            x_sealed = self._row_key.seal_x(
                self._a, self.key.b, x_GRK, self.where, cover.centre, added=added, out=out
            )
        operand = self._desk.operand(x_sealed, keep=False)
        if self._desk.truth is not None:
            self._desk.truth.rows(operand.id, "x", 0, self.where.rows_of(x_GRK), self._a, self.key.b)
        return operand

    def open_dx(self, dx_sealed: Tensor, dx_GRK: Tensor, dy_GRN: Tensor) -> None:
        """Decode into dx_GRK and add (dY P) Q^T. dy_GRN: as it was sealed."""
        with self._desk.stats.timed("decode"):
            a, b = [basis.dual() for basis in self._a], [basis.dual() for basis in self.key.b]
            open_rows(dx_sealed, a, b, self.where, dx_GRK)
        taken = None if self._weight is None else self._weight.taken
        if taken is not None:
            with self._desk.stats.timed("aside"):
                for g, p_Nr in enumerate(taken.p_GNr):
                    add_product(dx_GRK, self.where, g, self.where.take(dy_GRN, g) @ p_Nr, taken.q_GKr[g])
