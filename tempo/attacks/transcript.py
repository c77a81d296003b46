"""What workers saw, as an attacker reads it: the recordings of `tempo worker --record`, and nothing else.

Workers collude unless a scheme says otherwise, so the recordings of several may be read as one transcript.
Under `shares` owners do not collude, and an operand is shown as the centred integer, float64, that the shares
of one worker add up to; its reply too. Read the recordings of one owner only: others have the same ids.

Operands are named by public ids: which products share an operand, and in which order they came, is known to
whoever reads along.

Axes: G groups, R rows, K in-features, N out-features, T rows of all groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from torch import Tensor

from tempo.attacks.ring import held, integers
from tempo.errors import DataError, TempoError
from tempo.ops import Op, spans
from tempo.wire import Compute, Result, Ring
from tempo.worker.recording import Record, read


@final
@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One job as a worker computed it, operands resolved: what it kept from earlier jobs is filled in.

    left, right, result: as in `tempo.ops.job`; T rows, `rows[g]` of them in group g.
    seconds: monotonic, when the request was complete and when the reply had left.
    """

    worker: str
    op: Op
    left_id: int
    right_id: int
    left: Tensor
    right: Tensor
    result: Tensor
    rows: tuple[int, ...]
    seconds: tuple[float, float]

    def groups(self, t_TF: Tensor) -> list[Tensor]:
        """The rows of each group of an operand or result with T rows."""
        return [t_TF[lo:hi] for lo, hi in spans(self.rows)]


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """Size and time of one message, which is all that the network's observer has.

    nbytes: on the wire, within TLS. kind: the name of the message.
    """

    worker: str
    direction: Literal["arrived", "left"]
    seconds: float
    nbytes: int
    kind: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What was seen of the rows that were sealed together: a forward product and, under key shift, the
    gradients that refer to the same X'. Each is None where it was not seen.

    x (T, K), w (G, N, K), y (T, N), dy (T, N), dx (T, K), dw (G, N, K).
    """

    x_id: int
    w_id: int | None
    dy_id: int | None
    rows: tuple[int, ...]
    x: Tensor
    w: Tensor | None
    y: Tensor | None
    dy: Tensor | None
    dx: Tensor | None
    dw: Tensor | None

    def groups(self, t_TF: Tensor) -> list[Tensor]:
        """The rows of each group."""
        return [t_TF[lo:hi] for lo, hi in spans(self.rows)]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Transcript:
    """Everything that one worker, or several that collude, could write down. In order of time."""

    seen: tuple[Seen, ...]
    frames: tuple[Frame, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, *folders: Path) -> Transcript:
        """From recordings: a folder for each colluding worker. Raises DataError where nothing was recorded,
        or what a job refers to is not in it."""
        seen: list[Seen] = []
        frames: list[Frame] = []
        for folder in folders:
            records = list(read(folder))
            if not records:
                raise DataError(f"{folder} holds no recording: start the worker with --record {folder}")
            frames += _frames(folder.name, records)
            seen += _jobs(folder.name, records)
        return cls(
            tuple(sorted(seen, key=lambda each: each.seconds)),
            tuple(sorted(frames, key=lambda each: each.seconds)),
        )

    def weights(self) -> dict[int, Tensor]:
        """Every W' by its id, (G, N, K), in the order of first use."""
        return {s.right_id: s.right for s in self.seen if s.op is not Op.GRAD_W}

    def passes(self) -> list[Pass]:
        """Forward products in order, each with the gradients that belong to it by ids; then dW products
        whose X' had no forward product (X sealed again). A dX whose dY' stands in no dW product belongs
        to no pass: look in `seen`."""
        out: list[Pass] = []
        grads: dict[int, Seen] = {}
        for each in self.seen:
            if each.op is Op.GRAD_W:
                grads.setdefault(each.right_id, each)
        of_dy = {s.left_id: s for s in self.seen if s.op is Op.GRAD_X}
        for s in self.seen:
            if s.op is Op.PRODUCT:
                out.append(_pass(s, grads.pop(s.left_id, None), of_dy))
        out += [_pass(None, grad, of_dy) for grad in grads.values()]
        return out

    def layers(self) -> list[list[Pass]]:
        """Passes of one W' together, in the order in which each W' was first used."""
        found: dict[int, list[Pass]] = {}
        for each in self.passes():
            if each.w_id is not None:
                found.setdefault(each.w_id, []).append(each)
        return list(found.values())


def _pass(forward: Seen | None, grad: Seen | None, of_dy: dict[int, Seen]) -> Pass:
    first = forward or grad
    if first is None:
        raise AssertionError("a pass is made of a product or of a gradient")
    dx = of_dy.get(grad.left_id) if grad else None
    return Pass(
        x_id=forward.left_id if forward else first.right_id,
        w_id=forward.right_id if forward else None,
        dy_id=grad.left_id if grad else None,
        rows=first.rows,
        x=forward.left if forward else first.right,
        w=forward.right if forward else None,
        y=forward.result if forward else None,
        dy=grad.left if grad else None,
        dx=dx.result if dx else None,
        dw=grad.result if grad else None,
    )


def _frames(worker: str, records: Sequence[Record]) -> Iterator[Frame]:
    for r in records:
        if r.direction != "note" and r.message is not None:
            kind = type(r.message).__name__.lower()
            yield Frame(worker, r.direction, r.seconds, len(r.raw), kind)


def _jobs(worker: str, records: Sequence[Record]) -> Iterator[Seen]:
    """Requests met with their results. Operands that were sent stay known: an attacker forgets nothing."""
    known: dict[int, Tensor] = {}
    waiting: dict[tuple[str, int], tuple[Compute | Ring, float]] = {}
    # By the clock, since what one connection shipped another may refer to.
    for r in sorted(records, key=lambda each: each.seconds):
        message = r.message
        if isinstance(message, Compute | Ring):
            shipped = r.operands
            # Of shares, the most that one worker can make: the sum of those that it has.
            known |= shipped if isinstance(message, Compute) else {i: held(t) for i, t in shipped.items()}
            waiting[r.connection, message.job] = message, r.seconds
        elif isinstance(message, Result) and (r.connection, message.job) in waiting:
            request, arrived = waiting.pop((r.connection, message.job))
            try:
                yield _seen(worker, request, known, r, arrived)
            except TempoError as error:
                raise DataError(f"the recording of {worker} does not fit together: {error}") from error


def _seen(
    worker: str, request: Compute | Ring, known: dict[int, Tensor], reply: Record, arrived: float
) -> Seen:
    for part in request.parts:
        if part.id not in known:
            raise DataError(f"operand {part.id} was never seen; record from the worker's start")
    result = reply.result_of(request)
    return Seen(
        worker=worker,
        op=request.operation,
        left_id=request.left.id,
        right_id=request.right.id,
        left=known[request.left.id],
        right=known[request.right.id],
        result=result if isinstance(request, Compute) else integers(result),
        rows=request.rows,
        seconds=(arrived, reply.seconds),
    )
