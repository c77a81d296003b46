"""What a linear operation costs under `shares`: three owners, five primes, one byte a residue.

    up      10 bytes for each entry of X, W and dY, two owners get 5 each and a seed, the third two seeds
    down    15 bytes for each entry of Y, dX and dW, 5 from each owner
    worker  2 products of residues for each of 5 primes at each of 3 owners: 20 T K N flops at each, 30
            products where plain training has one

Every owner gets all rows, so an operation waits for the slowest. Workers are dealt to owners in turn: the
first, second and third given belong to three owners. A weight is taken for secret; W is shared once for each
W epoch in training, and once for all requests in inference. Axes as in model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

from tempo.chunks import cut
from tempo.config import Config
from tempo.errors import UsageError
from tempo.ops import PRIMES
from tempo.plan.machine import RING, Machine, Passes, WorkerFigures
from tempo.plan.phases import Work
from tempo.plan.pipeline import Piece, elapsed
from tempo.plan.trace import Op
from tempo.secrecy.rows import apportion
from tempo.secrecy.shares import REPLICATED
from tempo.sharing.engine import GRAIN

_PRIMES: Final = len(PRIMES)
#: Bytes of an entry of an operand at a worker, its two shares expanded.
SHARED_BYTES: Final = 2 * _PRIMES
#: Owners that are sent residues of an operand; products of residues at each owner for each prime.
_SENT: Final = 2
_PRODUCTS: Final = 2


@final
@dataclass(slots=True)
class SharedCost:
    """Both passes of one operation."""

    master: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("lower", "encode", "check", "decode"), 0.0)
    )
    seconds: float = 0.0
    link: float = 0.0
    worker: float = 0.0
    up: int = 0
    down: int = 0


@final
class SharedModel:
    """Raises UsageError where there are fewer workers than owners, or figures without rates on residues."""

    def __init__(self, machine: Machine, config: Config, passes: Passes, *, inference: bool) -> None:
        count = len(machine.workers)
        if count < REPLICATED:
            raise UsageError(
                f"scheme 'shares' takes workers of {REPLICATED} owners, the figures are of {count}: name at "
                f"least {REPLICATED}, as --workers local:{REPLICATED}"
            )
        if any(RING not in worker.flops_per_second for worker in machine.workers):
            raise UsageError(
                "these figures say nothing of products of residues: calibrate again with --scheme shares"
            )
        self._machine, self._config, self._passes = machine, config, passes
        self._inference = inference
        self._lanes = count // REPLICATED

    def cost(self, op: Op) -> SharedCost:
        work = Work(op, self._passes, self._machine, self._config, mixes=False)
        total = SharedCost()
        self._forward(op, work, total)
        if op.want_x or op.want_w:
            self._backward(op, work, total)
        return total

    def cut(self, op: Op) -> list[tuple[int, int]]:
        """(lane, rows of each group) of every piece, as the engine cuts them."""
        g, r, k, n = op.shape
        keep = op.want_w and self._config.key_shift
        shares = cut([r] * g, k, n, [1.0] * self._lanes, chunk=GRAIN, dw=keep)
        sizes = apportion(r, shares.weights, 1, shares.grain)
        return [(lane, rows) for lane, rows in zip(shares.lanes, sizes, strict=True) if rows]

    def _forward(self, op: Op, work: Work, total: SharedCost) -> None:
        g, _, k, n = op.shape
        w, keep = g * n * k, op.want_w and self._config.key_shift
        # Shares of a weight serve until it changes.
        once = 0 if op.weight_shared or (self._inference and not op.weight_computed) else 1
        lower = work.map("lower_x", work.x) + work.map("lower_w", w)
        lower += work.run("scan", work.rows, work.x, k) + work.run("scan", g * n, w, k)
        encode_w = once * work.run("encode", g * n, w, k)
        total.master["lower"] += lower + work.map("raise_y", work.y)
        total.master["encode"] += encode_w
        pieces, told = [], set[int]()
        for lane, count in self.cut(op):
            rows, x, y = g * count, g * count * k, g * count * n
            encode = work.run("encode", rows, x, k)
            expect = (1 + keep) * work.run("check", rows, x, k) + work.run("check", g * n, w, k)
            sent = x + w * once * (lane not in told)
            told.add(lane)
            pieces.append(
                self._piece(total, work, lane, encode, expect, sent, [(2 * g * count * k * n, y, n)])
            )
        total.seconds += (
            lower + encode_w + elapsed(pieces, work.map("raise_y", work.y), self._machine.overlap)
        )

    def _backward(self, op: Op, work: Work, total: SharedCost) -> None:
        g, _, k, n = op.shape
        w, fresh = g * n * k, op.want_w and not self._config.key_shift
        lower = work.map("lower_dy", work.y) + work.run("scan", work.rows, work.y, n)
        after = op.want_x * work.map("raise_dx", work.x) + op.want_w * work.map("raise_dw", w)
        total.master["lower"] += lower + after
        pieces = []
        for lane, count in self.cut(op):
            rows, x, y = g * count, g * count * k, g * count * n
            encode = work.run("encode", rows, y, n) + fresh * work.run("encode", rows, x, k)
            expect = (op.want_w + op.want_x) * work.run("check", rows, y, n)
            expect += op.want_x * work.run("check", g * n, w, k) + fresh * work.run("check", rows, x, k)
            flops = 2 * g * count * k * n
            jobs = [(flops, w, k)] * op.want_w + [(flops, x, k)] * op.want_x
            pieces.append(self._piece(total, work, lane, encode, expect, y + fresh * x, jobs))
        total.seconds += lower + elapsed(pieces, after, self._machine.overlap)

    def _piece(
        self,
        total: SharedCost,
        work: Work,
        lane: int,
        encode: float,
        expect: float,
        sent: int,
        jobs: list[tuple[int, int, int]],
    ) -> Piece:
        """sent: entries that are shared. jobs: (flops of plain training, entries of the result, width)."""
        got = sum(entries for _, entries, _ in jobs)
        decode = sum(work.run("decode", entries / width, entries, width) for _, entries, width in jobs)
        flops = _PRODUCTS * _PRIMES * sum(each for each, _, _ in jobs)
        owners = self._machine.workers[lane * REPLICATED : (lane + 1) * REPLICATED]
        away = [self._away(owner, sent, got, flops, len(jobs)) for owner in owners]
        link, worker = max(away, key=sum)
        total.master["encode"] += encode
        total.master["check"] += expect
        total.master["decode"] += decode
        total.link, total.worker = total.link + link, total.worker + worker
        total.up += _SENT * _PRIMES * sent
        total.down += REPLICATED * _PRIMES * got
        return Piece(lane, encode + expect, link + worker, decode)

    def _away(self, owner: WorkerFigures, sent: int, got: int, flops: int, jobs: int) -> tuple[float, float]:
        """Seconds of the link and of the worker, of one owner that is sent residues."""
        link = jobs * owner.round_trip_seconds
        link += _PRIMES * (sent / owner.up_bytes_per_second + got / owner.down_bytes_per_second)
        together = self._machine.together
        return link / together, flops / owner.flops_per_second[RING] / together
