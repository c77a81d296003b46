"""What a linear operation costs in the TEE and under Tempo. Pure functions; equations in docs/plan.md.

Axes: G groups, R rows of each, K in-features, N out-features, T = G R rows of all groups. Pieces: the
rows of one job, one or several for each worker.

    forward    lower, norms, centre | keys, encode X', check | send X', Y = X' W', receive | check, decode
    backward   lower, norms         | keys, encode dY', check | send dY', dW, dX, receive  | check, decode
    W          encoded once per W epoch: each training step, or every `weight_uses` pieces of requests
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch

from tempo.config import Config
from tempo.plan.machine import Cost, Machine
from tempo.plan.phases import FLOAT32, Phase, Work
from tempo.plan.shared import SHARED_BYTES, SharedCost, SharedModel
from tempo.plan.trace import Op
from tempo.secrecy.scheme import SHARES

#: Elements of an operand that no cache holds.
REFERENCE: Final = 1 << 23

_KINDS: Final = {"bmm": "bmm", "linear": "linear", "linear, weight transposed": "linear"}


@final
@dataclass(frozen=True, slots=True)
class OpCost:
    """One operation for one training step, or one request: predicted seconds, bytes, flops."""

    flops: int
    #: In the TEE, in the operands' own arithmetic, and in the fastest it has.
    tee_seconds: float
    tee_fastest_seconds: float
    tempo_seconds: float
    #: The master's own work by part, as the engine times it: lower (with the norms of rows), keys, encode,
    #: check, decode; and other, which it does not time (the common mean of rows).
    master_seconds: dict[str, float]
    #: The busiest worker: sending to and from it, and computing.
    link_seconds: float
    worker_seconds: float
    bytes_up: int
    bytes_down: int
    #: Largest speed-up over the fastest arithmetic if workers and links were free, and the share of it that
    #: is reached.
    law_speedup: float
    law_share: float
    #: Kept until backward, by the TEE and by the busiest worker; and while the op runs.
    tee_kept_bytes: int
    tee_working_bytes: int
    worker_kept_bytes: int
    worker_working_bytes: int

    @property
    def master_total_seconds(self) -> float:
        return sum(self.master_seconds.values())


@final
class CostModel:
    """Costs on one machine under one configuration. Raises UsageError where the machine's figures are of
    other schemes or numbers."""

    def __init__(self, machine: Machine, config: Config, *, inference: bool) -> None:
        self._machine = machine
        self._config = config
        self._passes = machine.scheme(config.scheme)
        for delicate in (False, True):
            form = config.precision.best(torch.float32, delicate=delicate)
            for worker in machine.workers:
                worker.rate("product", form)
        self._inference = inference
        self._mixes = config.scheme == "mixing"
        self._shared = None
        if config.scheme == SHARES:
            self._shared = SharedModel(machine, config, self._passes, inference=inference)

    def plain(self, kind: str, flops: float, *, calls: float = 1.0) -> float:
        """Seconds of linear algebra that stays. kind: name of an operation or a lowering."""
        plain = self._machine.tee.plain
        return plain[_plain_kind(kind)].of(flops, calls=calls)

    def cost(self, op: Op) -> OpCost:
        if self._shared is not None:
            return self._of_shares(op, self._shared.cost(op))
        machine = self._machine
        _, fastest = machine.tee.fastest
        wide = op.itemsize / FLOAT32
        tee = self.plain(op.operation, op.step_flops, calls=op.products) * wide
        work = Work(op, self._passes, machine, self._config, mixes=self._mixes)
        forward, backward = self._forward(work), self._backward(work)
        parts = {p: forward.parts[p] + backward.parts[p] for p in (*forward.parts, *backward.parts)}
        seconds = forward.seconds + backward.seconds
        law = self._law(op)
        best = op.step_flops / fastest
        g, r, k, n = op.shape
        share = work.largest_share / max(1, r)
        w_bytes = g * n * k * work.sent
        kept_x = g * r * k * work.sent if op.want_w and self._config.key_shift else 0
        probes = machine.probes * 8
        return OpCost(
            flops=op.step_flops,
            tee_seconds=tee,
            tee_fastest_seconds=best,
            tempo_seconds=seconds,
            master_seconds=parts,
            link_seconds=forward.link + backward.link,
            worker_seconds=forward.worker + backward.worker,
            bytes_up=forward.up + backward.up,
            bytes_down=forward.down + backward.down,
            law_speedup=law,
            law_share=best / seconds / law if seconds and law else 0.0,
            tee_kept_bytes=(g * r * probes if op.want_w and self._config.key_shift else 0) + w_bytes,
            tee_working_bytes=g * r * (k + n) * (op.itemsize + work.sent) + w_bytes,
            worker_kept_bytes=round(kept_x * share) + w_bytes,
            worker_working_bytes=round(g * r * share * (k + n) * work.sent)
            + g * n * k * work.received["grad_w"] * op.want_w,
        )

    def _of_shares(self, op: Op, both: SharedCost) -> OpCost:
        g, r, k, n = op.shape
        _, fastest = self._machine.tee.fastest
        x, w, y = g * r * k, g * n * k, g * r * n
        best, law = op.step_flops / fastest, self._law(op)
        kept_x = x if op.want_w and self._config.key_shift else 0
        return OpCost(
            flops=op.step_flops,
            tee_seconds=self.plain(op.operation, op.step_flops, calls=op.products) * op.itemsize / FLOAT32,
            tee_fastest_seconds=best,
            tempo_seconds=both.seconds,
            master_seconds=both.master,
            link_seconds=both.link,
            worker_seconds=both.worker,
            bytes_up=both.up,
            bytes_down=both.down,
            law_speedup=law,
            law_share=best / both.seconds / law if both.seconds and law else 0.0,
            # Integers of W, and a witness of eight bytes a row.
            tee_kept_bytes=w * FLOAT32 + (8 * g * r if kept_x else 0),
            tee_working_bytes=SHARED_BYTES * (x + y) + w * FLOAT32,
            worker_kept_bytes=SHARED_BYTES * (kept_x + w),
            worker_working_bytes=SHARED_BYTES * (x + y),
        )

    def memcpys(self) -> float:
        """Copies per element that encoding or decoding and its check cost at best, m of the law: at
        REFERENCE elements of one group, since a fit's slope alone may have lost some of them to the call."""
        p = self._passes

        def each(cost: Cost) -> float:
            return cost.of(groups=1, rows=0, elements=REFERENCE) / REFERENCE

        pairs = zip(p.encode.costs, p.decode.costs, p.check.costs, strict=True)
        best = min(min(each(e), each(d)) + each(c) for e, d, c in pairs)
        return self._machine.tee.memcpy_elements_per_second * best

    def _law(self, op: Op) -> float:
        """S <= (flops / F) / (m elements / b). For G = 1 that is 3 h b / (m F), h = K N / (K + N), in
        training with both gradients, and 2 h b / (m F) in inference. F: flop per second of the fastest
        arithmetic, b: elements copied per second."""
        g, r, k, n = op.shape
        tensors = (k + n) + (n if op.want_x or op.want_w else 0) + (k if op.want_x else 0)
        _, fastest = self._machine.tee.fastest
        m = self.memcpys()
        copied = m * g * r * tensors / self._machine.tee.memcpy_elements_per_second
        # No elements, or passes too quick to measure: nothing is limited by copying.
        return op.step_flops / fastest / copied if copied else 0.0

    # ---- the two passes -----------------------------------------------------------------------

    def _forward(self, work: Work) -> Phase:
        g, _, k, n = work.op.shape
        once = 0.0 if work.op.weight_shared else 1.0
        if self._inference and not work.op.weight_computed:
            once /= max(1, self._config.weight_uses // max(1, len(work.pieces)))
        phase = Phase(work)
        w_elements = g * n * k
        phase.alone("lower", work.map("lower_x", work.x) + work.map("lower_w", w_elements))
        phase.alone("lower", work.run("scan", work.rows, work.x, k) + work.run("scan", g * n, w_elements, k))
        phase.alone("encode", once * work.run("encode", g * n, w_elements, k))
        phase.alone("keys", once * work.run("features", 0, g * (k + n), min(k, n)))
        if self._mixes:
            phase.alone("other", work.run("centre", work.rows, work.x + work.y, k))
        told: set[int] = set()  # workers that have W
        for worker, count in work.pieces:
            rows, x, y = g * count, g * count * k, g * count * n
            phase.piece(
                worker,
                keys=work.run("keys", rows, 0, k),
                encode=work.run("encode", rows, x, k),
                # With the witness for dW, from one reading.
                expect=work.run("check", rows, x, k) + work.run("check", g * n, w_elements, k),
                up=x + round(once * w_elements) * (worker not in told),
                jobs=[("product", 2 * g * count * k * n, y)],
                check=work.run("check", rows, y, n),
                decode=work.run("decode", rows, y, n),
            )
            told.add(worker)
        phase.after(0.0, work.map("raise_y", work.y))
        return phase.close(self._machine.overlap)

    def _backward(self, work: Work) -> Phase:
        op = work.op
        g, _, k, n = op.shape
        phase = Phase(work)
        if not (op.want_x or op.want_w):
            return phase
        shift = self._config.key_shift
        w_elements = g * n * k
        phase.alone("lower", work.map("lower_dy", work.y))
        phase.alone("lower", work.run("scan", work.rows, work.y, n))
        # Without key shift each gradient is a product under fresh keys, with two encodings of its own.
        fresh_w = op.want_x and not shift
        fresh_x = op.want_w and not shift
        phase.alone("encode", fresh_w * work.run("encode", g * n, w_elements, k))
        phase.alone("keys", (fresh_w + fresh_x) * work.run("features", 0, g * (k + n), min(k, n)))
        if shift:
            self._gradients(phase, work, work.pieces, want_x=op.want_x, want_w=op.want_w)
        if fresh_w:
            self._gradients(phase, work, work.cut(dw=False), want_x=True, want_w=False)
        if fresh_x:
            self._gradients(phase, work, work.cut(dw=True), want_x=False, want_w=True)
        decode = op.want_w * work.run("decode", g * n, w_elements, k)
        lower = op.want_x * work.map("raise_dx", work.x) + op.want_w * work.map("raise_dw", w_elements)
        phase.after(decode, lower)
        return phase.close(self._machine.overlap)

    def _gradients(
        self, phase: Phase, work: Work, pieces: list[tuple[int, int]], *, want_x: bool, want_w: bool
    ) -> None:
        """Pieces that send dY' for these gradients; under fresh keys with W' for dX and X' for dW."""
        g, _, k, n = work.op.shape
        w_elements, fresh = g * n * k, not self._config.key_shift
        told: set[int] = set()  # workers that have the fresh W'
        for worker, count in pieces:
            rows, x, y = g * count, g * count * k, g * count * n
            flops = 2 * g * count * k * n
            sent_x, sent_w = fresh and want_w, fresh and want_x and worker not in told
            told.add(worker)
            # dW: dY' with the projection of X', which is made here where X' is. dX: dY' and W'. Of dY' they
            # share one reading.
            expect = work.run("check", rows, y, n)
            expect += want_x * work.run("check", g * n, w_elements, k)
            expect += sent_x * work.run("check", rows, x, k)
            check = want_w * work.run("check", g * n, w_elements, k)
            check += want_x * work.run("check", rows, x, k)
            jobs = [("grad_w", flops, w_elements)] * want_w
            jobs += [("grad_x", flops, x)] * want_x
            phase.piece(
                worker,
                keys=work.run("keys", rows, 0, n),
                encode=work.run("encode", rows, y, n) + sent_x * work.run("encode", rows, x, k),
                expect=expect,
                up=y + sent_x * x + sent_w * w_elements,
                jobs=jobs,
                check=check,
                decode=want_x * work.run("decode", rows, x, k),
            )


def _plain_kind(operation: str) -> str:
    if operation in _KINDS:
        return _KINDS[operation]
    if operation in ("attention", "matmul", "einsum", "baddbmm"):
        return "bmm"
    return "conv" if "conv" in operation or "winograd" in operation or operation == "im2col" else "linear"
