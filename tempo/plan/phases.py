"""One operation on a machine: the master's passes over its elements, and its pieces with their workers."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final, final

import torch

from tempo.chunks import cut
from tempo.config import Config
from tempo.ops import Op as Kind
from tempo.ops import result_dtype
from tempo.plan.machine import Cost, Machine, Pass, Passes, WorkerFigures, is_alone, is_large
from tempo.plan.pipeline import Piece, elapsed
from tempo.plan.trace import Op
from tempo.secrecy.rows import apportion

#: Figures of a machine are of this many bytes an element.
FLOAT32: Final = 4
#: Passes over keys, not over tiles.
_DRAWN: Final = ("keys", "features")


@final
class Work:
    """An op on a machine: amounts, and seconds of the master's passes over them."""

    def __init__(self, op: Op, passes: Passes, machine: Machine, config: Config, *, mixes: bool) -> None:
        g, r, k, n = op.shape
        self.op = op
        self.machine = machine
        self.rows, self.x, self.y = g * r, g * r * k, g * r * n
        self._passes = passes
        self._maps = machine.lowerings.get(op.operation)
        self._large = is_large(r, k, n)
        self._scale = op.itemsize / FLOAT32
        #: In which numbers operands cross the boundary, where rows are even enough for them.
        self.form = config.precision.best(
            torch.float32 if op.itemsize == FLOAT32 else torch.float64, delicate=op.delicate
        )
        #: Bytes of an entry that is sent, and of one of the result of each product.
        self.sent = self.form.dtype.itemsize
        self.received = {
            kind.value: result_dtype(kind, self.form.dtype, self.form.dtype, self.form.arithmetic).itemsize
            for kind in Kind
        }
        speeds = [1 / self._away(worker, g * r) for worker in machine.workers]
        fastest = max(speeds)
        # In quarters, as Fleet.speeds; no shard below the smallest that is sent.
        speeds = [max(1, round(4 * speed / fastest)) / 4 for speed in speeds]
        self._speeds, self._chunk = speeds, config.chunk
        self._smallest = max(1, min(config.min_size, r))
        #: (worker, rows of each group) of every piece of the forward pass.
        self.pieces = self.cut(dw=op.want_w and config.key_shift)

    def cut(self, *, dw: bool) -> list[tuple[int, int]]:
        """(worker, rows of each group) of every piece, as `Engine.shards` cuts them. dw: each will have a
        partial dW."""
        g, r, k, n = self.op.shape
        shares = cut([r] * g, k, n, self._speeds, chunk=self._chunk, dw=dw)
        sizes = apportion(r, shares.weights, self._smallest, shares.grain)
        return [(lane, rows) for lane, rows in zip(shares.lanes, sizes, strict=True) if rows]

    @property
    def largest_share(self) -> int:
        """Rows of each group that the busiest worker gets."""
        totals: Counter[int] = Counter()
        for lane, rows in self.pieces:
            totals[lane] += rows
        return max(totals.values(), default=0)

    def run(self, name: str, rows: float, elements: float, width: int) -> float:
        """Seconds of one pass over all groups."""
        pass_: Pass = getattr(self._passes, name)
        alone = name not in _DRAWN and is_alone(elements)
        cost = pass_.at(width, large=self._large and not alone)
        return self._scale * cost.of(groups=self.op.shape[0], rows=rows, elements=elements)

    def _away(self, worker: WorkerFigures, rows: int) -> float:
        """Seconds that all rows of a product would take on one worker: what the fleet knows of its speed."""
        _, _, k, n = self.op.shape
        up, down = rows * k * self.sent, rows * n * self.received["product"]
        moved = up / worker.up_bytes_per_second + down / worker.down_bytes_per_second
        return worker.round_trip_seconds + moved + 2 * rows * k * n / worker.rate("product", self.form)

    def map(self, name: str, elements: float) -> float:
        if self._maps is None:
            return 0.0
        cost: Cost = self._maps[name].all if self._large else self._maps[name].one
        return self._scale * cost.of(groups=0, rows=0, elements=elements)


@final
class Phase:
    """The forward or the backward pass of one op, piece by piece."""

    def __init__(self, work: Work) -> None:
        self.parts: defaultdict[str, float] = defaultdict(float)
        self.seconds = 0.0
        self._links: defaultdict[int, float] = defaultdict(float)
        self._workers: defaultdict[int, float] = defaultdict(float)
        self.up = self.down = 0
        self._work = work
        self._alone = 0.0
        self._after = 0.0
        self._pieces: list[Piece] = []

    def alone(self, part: str, seconds: float) -> None:
        """The master's work before any piece."""
        self._add(**{part: seconds})
        self._alone += seconds

    def piece(
        self,
        worker: int,
        *,
        keys: float,
        encode: float,
        expect: float,
        up: int,
        jobs: list[tuple[str, int, int]],
        check: float,
        decode: float,
    ) -> None:
        """up: entries that are sent. jobs: (operation, flops, entries of the result) of each."""
        work = self._work
        figures, together = work.machine.workers[worker], work.machine.together
        up *= work.sent
        down = sum(entries * work.received[op] for op, _, entries in jobs)
        link = (
            len(jobs) * figures.round_trip_seconds
            + up / figures.up_bytes_per_second
            + down / figures.down_bytes_per_second
        )
        compute = sum(flops / figures.rate(op, work.form) for op, flops, _ in jobs)
        # Workers that share cores, or a link, slow each other down.
        link, compute = link / together, compute / together
        self._add(keys=keys, encode=encode, check=expect + check, decode=decode)
        self.up += up
        self.down += down
        self._links[worker] += link
        self._workers[worker] += compute
        self._pieces.append(Piece(worker, keys + encode + expect, link + compute, check + decode))

    @property
    def link(self) -> float:
        """Of the busiest worker."""
        return max(self._links.values(), default=0.0)

    @property
    def worker(self) -> float:
        """Of the busiest worker."""
        return max(self._workers.values(), default=0.0)

    def after(self, decode: float, lower: float) -> None:
        """The master's work once all pieces are back."""
        self._add(decode=decode, lower=lower)
        self._after = decode + lower

    def _add(self, **seconds: float) -> None:
        for part, each in seconds.items():
            self.parts[part] += each

    def close(self, overlap: float) -> Phase:
        self.seconds = self._alone + elapsed(self._pieces, self._after, overlap)
        return self
