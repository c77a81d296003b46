"""The same products on the same workers over the same connection, in the clear: a plain client of the wire.

No key, no encoding, no check; replies are received and neither looked at nor added. The operands of a
convolution are lowered here, since workers know products alone; that time counts. As many jobs are under way
as the connection takes, as in the engine, and rows go in one chunk a worker or in as many as the engine would
cut them into, whichever was quicker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count
from typing import Final, final

from torch import Tensor

from tempo.bench.timing import Repeats, Spread, interleaved
from tempo.chunks import cut
from tempo.fleet import Worker
from tempo.lowering.base import Lowering
from tempo.ops import Job, Op, Operand
from tempo.secrecy.rows import apportion

_FAR_S: Final = 3600.0
#: Rows of a chunk are a multiple of this. Nothing is permuted here: it keeps kernels from ragged tiles.
_GRAIN: Final = 256


@final
@dataclass(frozen=True, slots=True)
class Plain:
    """seconds of a step on workers in the clear, bytes to and from them."""

    seconds: Spread
    sent: float
    received: float


def unprotected(
    workers: Sequence[Worker], lowering: Lowering, x: Tensor, w: Tensor, dy: Tensor, repeats: Repeats
) -> Plain:
    """Forward and both gradients of one layer on workers in the clear, its rows divided evenly. The better of
    one chunk a worker and several, measured in turns."""
    clients = {str(parts): _Client(workers, lowering, parts) for parts in _ways(len(workers), lowering)}
    spreads = interleaved({name: partial(client.step, x, w, dy) for name, client in clients.items()}, repeats)
    best = min(spreads, key=lambda name: spreads[name].median)
    sent, received = clients[best].traffic
    return Plain(spreads[best], sent, received)


#: Rows lo to hi of every group, and the worker that gets them.
Part = tuple[int, int, int]


def _ways(workers: int, lowering: Lowering) -> list[list[Part]]:
    """One chunk a worker; and, where they are several, those of the engine."""
    shape = lowering.shape
    counts, speeds = (shape.rows,) * shape.groups, [1.0] * workers
    pieces = cut(counts, shape.k, shape.n, speeds, chunk=_GRAIN, dw=True)
    ways = [_parts(shape.rows, speeds, list(range(workers)), 1)]
    if len(pieces.weights) > workers:
        ways.append(_parts(shape.rows, pieces.weights, pieces.lanes, pieces.grain))
    return ways


def _parts(rows: int, weights: Sequence[float], lanes: Sequence[int], grain: int) -> list[Part]:
    sizes = apportion(rows, weights, 1, grain)
    ends = list(accumulate(sizes))
    return [(end - size, end, lane) for size, end, lane in zip(sizes, ends, lanes, strict=True) if size]


_ids = count(1 << 41)


@final
class _Client:
    """Each worker gets its parts of the rows of every group, keeps X, dY and W, and drops them after."""

    def __init__(self, workers: Sequence[Worker], lowering: Lowering, parts: Sequence[Part]) -> None:
        self._workers = workers
        self._lowering = lowering
        self._parts = parts
        #: Bytes to and from all workers in the last step.
        self.traffic = (0, 0)

    def _counted(self) -> tuple[int, int]:
        return sum(w.bytes_sent for w in self._workers), sum(w.bytes_received for w in self._workers)

    def step(self, x: Tensor, w: Tensor, dy: Tensor) -> None:
        lowering, before = self._lowering, self._counted()
        x_GRK, dy_GRN = lowering.lower_x(x), lowering.lower_dy(dy)
        weight = _operand(lowering.lower_w(w).contiguous())
        errors: list[BaseException] = []

        def share(lane: int) -> None:
            try:
                mine = [(lo, hi) for lo, hi, whose in self._parts if whose == lane]
                _share(self._workers[lane], x_GRK, dy_GRN, weight, mine)
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=share, args=(lane,))
            for lane in sorted({lane for _, _, lane in self._parts})
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        after = self._counted()
        self.traffic = (after[0] - before[0], after[1] - before[1])


def _share(
    worker: Worker, x_GRK: Tensor, dy_GRN: Tensor, weight: Operand, parts: Sequence[tuple[int, int]]
) -> None:
    """Forward of all chunks, then backward of all, as a training step has them."""
    until = time.monotonic() + _FAR_S
    groups, k, n = len(x_GRK), x_GRK.shape[2], dy_GRN.shape[2]
    pieces = [
        (
            _operand(x_GRK[:, lo:hi].reshape(-1, k)),
            _operand(dy_GRN[:, lo:hi].reshape(-1, n)),
            (hi - lo,) * groups,
        )
        for lo, hi in parts
    ]
    forward, backward, fresh = list[Sent](), list[Sent](), {weight.id}
    for x, dy, rows in pieces:
        forward.append((Job(Op.PRODUCT, x, weight, rows), frozenset({x.id} | fresh)))
        backward.append((Job(Op.GRAD_W, dy, x, rows), frozenset({dy.id})))
        backward.append((Job(Op.GRAD_X, dy, weight, rows), frozenset()))
        fresh = set()
    _stream(worker, forward, until)
    _stream(worker, backward, until)
    worker.release([weight.id, *(each.id for x, dy, _ in pieces for each in (x, dy))], until)


#: A job, and which of its operands are shipped with it.
Sent = tuple[Job, frozenset[int]]


def _stream(worker: Worker, jobs: Sequence[Sent], until: float) -> None:
    """As many under way as the connection takes."""
    if worker.depth == 1:
        for job, ship in jobs:
            worker.run(job, ship, until)
        return
    under_way = 0
    for job, ship in jobs:
        if under_way == worker.depth:
            worker.end(until)
            under_way -= 1
        worker.begin(job, ship, until)
        under_way += 1
    for _ in range(under_way):
        worker.end(until)


def _operand(tensor: Tensor) -> Operand:
    return Operand(next(_ids), tuple(tensor.shape), tensor.dtype, tensor, keep=True)
