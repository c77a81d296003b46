"""One round of pieces over the fleets of all owners: share, run, check, and say who lied.

    piece -> a job for each owner, all at once -> their replies together -> one check -> integers

A reply proves nothing by itself, so fleets hand replies on as they came. What fails the check is thrown
away whole. Then each reply is judged on its own operands, the liar is accused to its fleet, which
quarantines it, and the piece is for the caller to share anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from torch import Tensor

from tempo.errors import IntegrityError, NoWorkersLeft, TempoError
from tempo.fleet import Done, Failed, Task
from tempo.fleet.round import Round
from tempo.ops import RingJob, Unverified
from tempo.sharing.desk import Desk
from tempo.sharing.pieces import Deal, Piece

#: Pieces that are out, for each lane: one is computed, one on its way.
WINDOW = 2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Missed:
    """A piece did not come back, or not as it should. lasting: another try can meet no other worker."""

    error: TempoError
    lasting: bool


Outcome = tuple[Piece, Sequence[Tensor] | Missed]
_Round = Round[RingJob, Unverified]


@final
class Exchange:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @contextmanager
    def run(self, pieces: Iterable[Piece]) -> Iterator[Iterator[Outcome]]:
        """The integers of each piece, or what became of it. A piece is shared when one before it came back,
        and not at all while an owner has no worker for it."""
        rounds = [fleet.begin(_as_it_came) for fleet in self._desk.owners.fleets]
        try:
            yield self._outcomes(pieces, rounds)
        finally:
            for each in rounds:
                each.abandon()

    def _outcomes(self, pieces: Iterable[Piece], rounds: Sequence[_Round]) -> Iterator[Outcome]:
        out: deque[tuple[Piece, list[Deal]]] = deque()
        window = WINDOW * self._desk.owners.lanes
        for piece in pieces:
            if (empty := self._empty(piece)) is not None:
                yield piece, Missed(empty, lasting=True)
                continue
            deals = piece.deal()
            for deal in deals:
                for owner, job in zip(piece.span.crew.owners, deal.jobs, strict=True):
                    rounds[owner].place(Task(job, piece.span.lane))
            out.append((piece, deals))
            if len(out) >= window:
                yield self._collect(*out.popleft(), rounds)
        while out:
            yield self._collect(*out.popleft(), rounds)

    def _empty(self, piece: Piece) -> NoWorkersLeft | None:
        """Says so where an owner of the crew has no worker left."""
        owners = self._desk.owners
        for owner in piece.span.crew.owners:
            if not owners.fleets[owner].width:
                return NoWorkersLeft(f"no worker of owner {owners.names[owner]!r} is usable")
        return None

    def _collect(self, piece: Piece, deals: list[Deal], rounds: Sequence[_Round]) -> Outcome:
        stats, crew = self._desk.stats, piece.span.crew.owners
        with stats.timed("wait"):
            # All of it, also where one fails: rounds answer in order.
            answers = [[rounds[owner].collect() for owner in crew] for _ in deals]
        failed = [one for replies in answers for one in replies if isinstance(one, Failed)]
        if failed:
            empty = [one for one in failed if isinstance(one.error, NoWorkersLeft)]
            worst = (empty or failed)[0].error
            return piece, Missed(worst, lasting=bool(empty))
        results = []
        for deal, replies in zip(deals, answers, strict=True):
            done = [one for one in replies if isinstance(one, Done)]
            try:
                with stats.timed("check"):
                    stats.add("checks")
                    results.append(deal.proof.accept([one.value for one in done]))
            except IntegrityError as error:
                stats.add("checks_failed")
                self._accuse(deal, crew, done, error)
                return piece, Missed(error, lasting=False)
        return piece, results

    def _accuse(
        self, deal: Deal, crew: Sequence[int], done: Sequence[Done[Unverified]], error: IntegrityError
    ) -> None:
        """Quarantine whoever lied. Raises IntegrityError where nobody did: then the fault is ours, and going
        on would not be safe."""
        with self._desk.stats.timed("check"):
            liars = self._desk.verifier.liars(deal.judged(), [one.value for one in done])
        if not liars:
            raise IntegrityError(
                f"{error}; but every worker's reply is right by itself. This is a fault of the master's: "
                "report it"
            )
        for i in liars:
            self._desk.owners.fleets[crew[i]].accuse(done[i].worker, str(error))


def _as_it_came(job: RingJob, reply: Unverified) -> Unverified:
    return reply
