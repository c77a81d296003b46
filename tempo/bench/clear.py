"""The same products on the same workers over the same connection, in the clear: a plain client of the wire.

No key, no encoding, no check; replies are received and not looked at. The operands of a convolution are
lowered here, since workers know products alone; that time counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, final

from torch import Tensor

from tempo.bench.timing import Repeats, Spread, measure
from tempo.fleet import Worker
from tempo.lowering.base import Lowering
from tempo.ops import Job, Op, Operand
from tempo.secrecy.rows import apportion

_FAR_S: Final = 3600.0


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
    """Forward and both gradients of one layer on workers in the clear, its rows divided evenly."""
    client = _Client(workers, lowering)
    client.step(x, w, dy)
    before = client.traffic()
    seconds = measure(lambda: client.step(x, w, dy), repeats, warm=False)
    after = client.traffic()
    sent, received = ((b - a) / seconds.count for a, b in zip(before, after, strict=True))
    return Plain(seconds, sent, received)


_ids = count(1 << 41)


@final
class _Client:
    """Each worker gets a share of the rows of every group, keeps X and W, and is told to drop them after."""

    def __init__(self, workers: Sequence[Worker], lowering: Lowering) -> None:
        self._workers = workers
        self._lowering = lowering
        sizes = apportion(lowering.shape.rows, [1.0] * len(workers), 1)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._parts = [(lo, lo + size) for lo, size in zip(starts, sizes, strict=True) if size]

    def traffic(self) -> tuple[int, int]:
        return sum(w.bytes_sent for w in self._workers), sum(w.bytes_received for w in self._workers)

    def step(self, x: Tensor, w: Tensor, dy: Tensor) -> None:
        lowering = self._lowering
        x_GRK, dy_GRN = lowering.lower_x(x), lowering.lower_dy(dy)
        weight = _operand(lowering.lower_w(w).contiguous())
        errors: list[BaseException] = []

        def share(worker: Worker, lo: int, hi: int) -> None:
            try:
                rows = (hi - lo,) * lowering.shape.groups
                rows_x = _operand(x_GRK[:, lo:hi].reshape(-1, lowering.shape.k))
                rows_dy = _operand(dy_GRN[:, lo:hi].reshape(-1, lowering.shape.n))
                until = time.monotonic() + _FAR_S
                worker.run(Job(Op.PRODUCT, rows_x, weight, rows), frozenset({rows_x.id, weight.id}), until)
                worker.run(Job(Op.GRAD_W, rows_dy, rows_x, rows), frozenset({rows_dy.id}), until)
                worker.run(Job(Op.GRAD_X, rows_dy, weight, rows), frozenset(), until)
                worker.release((rows_x.id, rows_dy.id, weight.id), until)
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=share, args=(worker, lo, hi))
            for worker, (lo, hi) in zip(self._workers, self._parts, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def _operand(tensor: Tensor) -> Operand:
    return Operand(next(_ids), tuple(tensor.shape), tensor.dtype, tensor, keep=True)
