"""The engine: seal, run, check, open, in that order.

    pieces = scheme.seal(operands)              tempo/secrecy
    replies = fleet.run(jobs, accept=checks)    tempo/fleet, tempo/integrity
    result = pieces.open(replies)               tempo/secrecy

Around the four steps stands what keeps a training step whole: rows that must not be sent are
computed here, pieces whose worker vanished are sealed again under fresh keys, and with no worker
left the master computes (or says so).

Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import final

import torch
from torch import Tensor

from tempo.backward import Backward
from tempo.chunks import cut
from tempo.fleet import Done, Failed, Fleet, Task
from tempo.integrity import Checks
from tempo.lowering.base import Lowering
from tempo.ops import Job, Unverified
from tempo.products import Products, Receipt
from tempo.secrecy.cover import Aside, Cover, draw_cover
from tempo.secrecy.form import Form
from tempo.secrecy.pieces import Desk, ForwardPiece, KeptRows
from tempo.secrecy.repeats import Survey, repeated, survey
from tempo.secrecy.rows import Selection, largest, negligible, row_norms, row_norms_and_sums, unfit, union
from tempo.secrecy.seal import draw_centre
from tempo.secrecy.weights import SealedWeight, Weights

#: Jobs that are sealed and not opened yet, for each worker: one is computed, one on its way, one
#: waits for the link and one for the master. What is sealed and sent takes memory.
WINDOW = 4


@final
@dataclass(slots=True, eq=False, repr=False)
class Ticket(Receipt):
    """What backward needs of a forward pass."""

    weight: SealedWeight | None = None
    kept: list[KeptRows] = field(default_factory=list)
    #: Rows the master computed because too few of their group were left to send.
    home: Selection | None = None
    #: What was added to X, and taken off.
    cover: Cover = field(default_factory=lambda: Cover(None, 0, None, ()))
    #: In which numbers the rows of X were sent.
    form_x: Form = field(default_factory=lambda: Form(torch.float32))
    #: Largest row norms of X and W.
    largest_x: float = 0.0
    largest_w: float = 0.0
    #: A backward pass has begun.
    used: bool = False


@final
class Engine(Products[Ticket]):
    """Runs lowered products and their gradients on one fleet, in secret bases."""

    def __init__(
        self, desk: Desk, fleet: Fleet, weights: Weights, *, key_shift: bool, local_fallback: bool
    ) -> None:
        self.desk = desk
        self._fleet = fleet
        self._weights = weights
        self.key_shift = key_shift
        self._local_fallback = local_fallback

    def forward(
        self, lowering: Lowering, x: Tensor, w: Tensor, *, train_w: bool, public: bool = False
    ) -> tuple[Tensor, Ticket]:
        stats = self.desk.stats
        with stats.timed("lower"):
            x_GRK, w_GNK = lowering.lower_x(x), lowering.lower_w(w)
            norms_x, seen = self.survey(x_GRK)
            largest_x, largest_w = largest(norms_x), largest(row_norms(w_GNK))
        y_GRN = self.desk.pool.empty((*x_GRK.shape[:2], w_GNK.shape[1]), x_GRK.dtype)
        reason = unfit(largest_x, largest_w, dtype=x.dtype) or (
            "all weights are zero" if largest_w == 0 else self.repeats(lowering, x.dtype, seen)
        )
        if reason:
            home, ticket = Selection.everything(*norms_x.shape), Ticket(reason=reason)
        else:
            home, ticket = self._offload(lowering, x_GRK, w, w_GNK, norms_x, y_GRN, train_w=train_w)
        ticket.home, ticket.largest_x, ticket.largest_w = home, largest_x, largest_w
        with stats.timed("local"):
            for g, count in enumerate(home.counts):
                if count:
                    home.put(y_GRN, g, home.take(x_GRK, g) @ w_GNK[g].mT)
        with stats.timed("lower"):
            return lowering.raise_y(y_GRN), ticket

    def backward(
        self,
        ticket: Ticket,
        lowering: Lowering,
        x: Tensor,
        w: Tensor,
        dy: Tensor,
        *,
        want_x: bool,
        want_w: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        # Takes the ticket's kept operands: a second backward of the same graph seals under fresh keys.
        step = Backward(self, ticket, lowering, x, w, dy, want_x=want_x, want_w=want_w)
        pieces = step.plan()
        while pieces:
            pieces = step.run(pieces)
        return step.finish()

    def _offload(
        self,
        lowering: Lowering,
        x_GRK: Tensor,
        w: Tensor,
        w_GNK: Tensor,
        norms_x: Tensor,
        y_GRN: Tensor,
        *,
        train_w: bool,
    ) -> tuple[Selection, Ticket]:
        """Fill y with the rows that workers compute. Those left for the master, and the ticket."""
        desk = self.desk
        where = self.rows_to_send(lowering, norms_x, x_GRK.dtype)
        if sum(where.counts) < norms_x.numel():
            y_GRN.zero_()  # rows that neither workers nor we compute
        keep = train_w and self.key_shift
        shards, home = self.shards(lowering, where, dw=keep)
        form = self.form(lowering, norms_x, where, x_GRK.dtype)
        weight = self.weight(lowering, w, w_GNK, form.dtype, len(shards))
        ticket = Ticket(weight, form_x=form)
        ticket.cover = cover = self.cover(x_GRK, where)
        if shards:
            self.count_product("x")
        with desk.stats.timed("aside"):
            aside = Aside(cover, weight.key, weight.taken, x_GRK, w_GNK)
        pieces = [ForwardPiece(desk, weight, w, lane, cover, aside, form, keep=keep) for lane, w in shards]
        checks = desk.verifier.begin(len(pieces))
        sealed = ((piece.lane, piece.seal(x_GRK, checks)) for piece in pieces)
        share = None if cover.centre is None else torch.bmm(cover.centre, w_GNK.mT)
        with closing(self.exchange(sealed, checks)) as outcomes:
            for piece, (outcome,) in zip(pieces, outcomes, strict=True):
                if isinstance(outcome, Failed):
                    self.require_fallback(outcome)
                    home = union(home, piece.where)
                    continue
                piece.open(outcome.value, y_GRN, share)
                if piece.kept is not None:
                    ticket.kept.append(piece.kept)
        return home, ticket

    # What forward and backward share.

    def exchange(
        self, sealed: Iterator[tuple[int, list[Job]]], checks: Checks
    ) -> Generator[list[Done[Tensor] | Failed], None, None]:
        """Seal, run, check: the outcomes of the jobs of each piece, given with its lane. A piece is
        sealed when one before it was opened, so that workers compute meanwhile and memory is bounded.
        To be closed by the caller."""
        sizes: deque[int] = deque()
        stats = self.desk.stats

        def tasks() -> Iterator[Task[Job]]:
            for lane, jobs in sealed:
                sizes.append(len(jobs))
                yield from (Task(job, lane) for job in jobs)

        def accept(job: Job, reply: Unverified) -> Tensor:
            with stats.timed("check"):
                return checks.accept(job, reply)

        window = WINDOW * max(1, self._fleet.width)
        try:
            with closing(self._fleet.stream(tasks(), accept, window)) as stream:
                while True:
                    with stats.timed("wait"):  # less what is sealed and checked within
                        outcomes = list(islice(stream, 1))
                        if not outcomes:
                            return
                        outcomes += islice(stream, sizes.popleft() - 1)
                    yield outcomes
        finally:
            stats.add("checks", checks.made)
            stats.add("checks_failed", checks.failed)

    def rows_to_send(self, lowering: Lowering, norms_GR: Tensor, dtype: torch.dtype) -> Selection:
        """Rows that count by shape and, where rows are mixed, that are not zero."""
        live_GR = lowering.live_GR
        if not self.desk.scheme.blurs_rows:
            return Selection.everything(*norms_GR.shape) if live_GR is None else Selection.where(live_GR)
        sent_GR = ~negligible(norms_GR, dtype)
        return Selection.where(sent_GR if live_GR is None else sent_GR & live_GR)

    def form(self, lowering: Lowering, norms_GR: Tensor, where: Selection, dtype: torch.dtype) -> Form:
        """In which numbers the rows `where` of an operand are sent: as the session's settings say, in full
        where the rows are too uneven for that. Where rows are not mixed, each errs for itself alone."""
        desk = self.desk
        if not desk.scheme.blurs_rows:
            norms_GR = torch.ones_like(norms_GR)
        form = desk.precision.rows(lowering, norms_GR, where, dtype)
        if not desk.precision.full and dtype == torch.float32:
            desk.stats.add("sent_full" if form == Form(dtype) else "sent_rounded")
        return form

    def shards(
        self, lowering: Lowering, where: Selection, *, dw: bool
    ) -> tuple[list[tuple[int, Selection]], Selection]:
        """Shards with their lanes: each usable worker's share by its speed, in chunks that keep the
        pipeline full; and the rows that are too few to send. dw: each will have a partial dW."""
        speeds, shape, scheme = self._fleet.speeds or [1.0], lowering.shape, self.desk.scheme
        shares = cut(where.counts, shape.k, shape.n, speeds, chunk=scheme.chunk, dw=dw)
        shards, home = where.shards(shares.weights, scheme.smallest, shares.grain)
        return [(shares.lanes[position], shard) for position, shard in shards.items()], home

    @property
    def _looks_for_repeats(self) -> bool:
        return self.desk.scheme.hardening.repeats < 1.0

    def survey(self, t_GRF: Tensor) -> tuple[Tensor, Survey | None]:
        """Norms of the rows (G, R) and, where somebody looks for rows that repeat, what tells them."""
        if not self._looks_for_repeats:
            return row_norms(t_GRF), None
        seen = self._survey(t_GRF, sums=False)
        return seen.norms_GR, seen

    def survey_and_sums(self, t_GRF: Tensor) -> tuple[Tensor, Survey | None, Tensor | None]:
        """As `survey`, and the sums over the rows of each group (G, F), float64."""
        if not self._looks_for_repeats:
            norms_GR, sums_GF = row_norms_and_sums(t_GRF)
            return norms_GR, None, sums_GF
        seen = self._survey(t_GRF, sums=True)
        return seen.norms_GR, seen, seen.sums_GF

    def _survey(self, t_GRF: Tensor, *, sums: bool) -> Survey:
        with self.desk.stats.timed("repeats"):
            return survey(t_GRF, self.desk.key.stream(("repeats", *self.label())), sums=sums)

    def repeats(self, lowering: Lowering, dtype: torch.dtype, seen: Survey | None) -> str | None:
        """Why rows that repeat keep an operand here, or None."""
        if seen is None:
            return None
        most = self.desk.scheme.hardening.repeats
        with self.desk.stats.timed("repeats"):
            share = repeated(seen, self.rows_to_send(lowering, seen.norms_GR, dtype).mask())
        return None if share <= most else f"more than {100 * most:g} % of the rows repeat"

    def cover(self, x_GRK: Tensor, where: Selection) -> Cover:
        """What the rows `where` of X are covered with."""
        desk = self.desk
        if not desk.scheme.blurs_rows:
            return Cover(None, 0, None, ())
        centre = draw_centre(desk.key, self.label(), x_GRK, where)
        with desk.stats.timed("aside"):
            cover = draw_cover(desk.scheme.hardening, x_GRK, where, centre)
        desk.stats.add("filled", cover.filled)
        desk.stats.add("unfilled", cover.unfilled)
        return cover

    def weight(
        self, lowering: Lowering, w: Tensor, w_GNK: Tensor, sent: torch.dtype, uses: int
    ) -> SealedWeight:
        with self.desk.stats.timed("encode"):
            weight, fresh = self._weights.of(w, lowering, w_GNK, sent, uses)
        if fresh:
            self.desk.stats.add("encoded_w")
        return weight

    def fresh_weight(self, w_GNK: Tensor, sent: torch.dtype, like: SealedWeight | None) -> SealedWeight:
        """W' under keys that nothing else shares. like: an earlier W' of the same W."""
        taken = None if like is None else like.taken
        with self.desk.stats.timed("encode"):
            weight = self._weights.seal(w_GNK, sent, None if taken is None else taken.subspace)
        self.desk.stats.add("encoded_w")
        return weight

    def label(self) -> tuple[int]:
        return (next(self.desk.labels),)

    def count_product(self, *encoded: str) -> None:
        """A product was sent, for which these operands were encoded. One by itself encodes two."""
        self.desk.stats.add("products")
        for operand in encoded:
            self.desk.stats.add(f"encoded_{operand}")

    def require_fallback(self, failed: Failed) -> None:
        """Go on in the master, or raise what failed where the user forbids that."""
        if not self._local_fallback:
            raise failed.error
        self.desk.stats.add("local_fallbacks")
