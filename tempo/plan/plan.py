"""A plan: where each linear operation of a model should run, why, and what the whole step takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from tempo.config import Config
from tempo.nn.placement import PLACES
from tempo.plan.machine import Machine
from tempo.plan.model import CostModel, OpCost
from tempo.plan.trace import Op, Trace, merged
from tempo.secrecy.visible import Layer, ordered, visible, worst

#: What workers see of an operation; docs/secrecy.md says what that is worth.
_LEAKAGE: Final = {
    "mixing": "shapes; operands mixed in secret bases (heuristic)",
    "monomial": "shapes; operands permuted and scaled (broken by several attacks)",
    "shares": "shapes; nothing else, if no two owners collude (proven)",
    "unsafe_none": "everything",
}
_SHIFT: Final = "; recognises a batch or model it knows"
NOTHING: Final = "nothing"


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Equal operations. Seconds, bytes and flops are of one of them."""

    modules: tuple[str, ...]
    op: Op
    count: int
    cost: OpCost
    offload: bool
    reason: str
    leakage: str
    #: Codes of the same (tempo.secrecy.visible), and their class.
    visible: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Where the plan puts it."""
        return self.cost.tempo_seconds if self.offload else self.cost.tee_seconds

    def fields(self) -> dict[str, Any]:
        g, r, k, n = self.op.shape
        c = self.cost
        return {
            "modules": list(self.modules),
            "operation": self.op.operation,
            "shape": {"groups": g, "rows": r, "in_features": k, "out_features": n},
            "count": self.count,
            "flops": c.flops,
            "bytes_up": c.bytes_up,
            "bytes_down": c.bytes_down,
            "tee_seconds": c.tee_seconds,
            "tee_fastest_seconds": c.tee_fastest_seconds,
            "tempo_seconds": c.tempo_seconds,
            "master_seconds": c.master_seconds,
            "link_seconds": c.link_seconds,
            "worker_seconds": c.worker_seconds,
            "law_speedup": c.law_speedup,
            "law_share": c.law_share,
            "decision": "offload" if self.offload else "stay",
            "reason": self.reason,
            "leakage": self.leakage,
            "leakage_class": worst(self.visible),
            "visible": list(self.visible),
        }


@final
@dataclass(frozen=True, slots=True)
class KeptRow:
    module: str
    operation: str
    shape: str
    reason: str
    calls: int
    flops: int
    seconds: float

    def fields(self) -> dict[str, Any]:
        return {
            "modules": [self.module],
            "operation": self.operation,
            "shape": self.shape,
            "count": self.calls,
            "flops": self.flops,
            "bytes_up": 0,
            "bytes_down": 0,
            "tee_seconds": self.seconds,
            "decision": "stay",
            "reason": self.reason,
            "leakage": NOTHING,
            "leakage_class": worst(()),
            "visible": [],
        }


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """Totals are of one training step, or of one request in inference."""

    rows: tuple[Row, ...]
    kept: tuple[KeptRow, ...]
    #: What is neither linear nor sent: element-wise work, norms, softmax. Without the optimizer.
    other_seconds: float
    memcpys: float

    @property
    def tee_seconds(self) -> float:
        """Nothing sent, in the model's own arithmetic."""
        return sum(r.count * r.cost.tee_seconds for r in self.rows) + self.stay_seconds

    @property
    def tee_fastest_seconds(self) -> float:
        """Nothing sent, the operations that may be sent in the fastest arithmetic of the TEE."""
        return sum(r.count * r.cost.tee_fastest_seconds for r in self.rows) + self.stay_seconds

    @property
    def tempo_seconds(self) -> float:
        """As the plan puts it."""
        return sum(r.count * r.seconds for r in self.rows) + self.stay_seconds

    @property
    def stay_seconds(self) -> float:
        return sum(k.seconds for k in self.kept) + self.other_seconds

    @property
    def offloaded(self) -> list[Row]:
        return [r for r in self.rows if r.offload]

    @property
    def flops(self) -> int:
        return sum(r.count * r.cost.flops for r in self.rows) + sum(k.flops for k in self.kept)

    @property
    def bytes_up(self) -> int:
        return sum(r.count * r.cost.bytes_up for r in self.offloaded)

    @property
    def bytes_down(self) -> int:
        return sum(r.count * r.cost.bytes_down for r in self.offloaded)

    def master_seconds(self) -> dict[str, float]:
        """The master's work on what is offloaded, by part."""
        found: dict[str, float] = {}
        for row in self.offloaded:
            for part, seconds in row.cost.master_seconds.items():
                found[part] = found.get(part, 0.0) + row.count * seconds
        return found

    @property
    def tee_peak_bytes(self) -> int:
        """Beyond plain training: witnesses, encoded weights, the buffers of the largest operation."""
        return _peak(self.offloaded, "tee")

    @property
    def worker_peak_bytes(self) -> int:
        """Of the busiest worker: X' kept until backward, encoded weights, one job."""
        return _peak(self.offloaded, "worker")

    def totals(self) -> dict[str, Any]:
        return {
            "flops": self.flops,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "tee_seconds": self.tee_seconds,
            "tee_fastest_seconds": self.tee_fastest_seconds,
            "tempo_seconds": self.tempo_seconds,
            "other_seconds": self.other_seconds,
            "kept_seconds": sum(k.seconds for k in self.kept),
            "master_seconds": self.master_seconds(),
            "speedup_over_tee": self.tee_seconds / self.tempo_seconds if self.tempo_seconds else 1.0,
            "tee_peak_extra_bytes": self.tee_peak_bytes,
            "worker_peak_bytes": self.worker_peak_bytes,
            "memcpys_per_element": self.memcpys,
        }


def make_plan(
    trace: Trace,
    machine: Machine,
    config: Config,
    *,
    default: str = "auto",
) -> Plan:
    """default: "auto" (what is quicker), "always" or "never"."""
    assert default in PLACES
    model = CostModel(machine, config, inference=not trace.training)
    rows = []
    for op, count, modules in merged(trace.ops):
        cost = model.cost(op)
        reason = why_stay(cost)
        if default == "always":
            offload, why = True, "as asked" if reason else _gain(cost)
        elif default == "never":
            offload, why = False, "as asked"
        else:
            offload, why = reason is None, reason or _gain(cost)
        seen = leakage(config) if offload else NOTHING
        layer = Layer(trains=trace.training)
        codes = ordered(visible(config.scheme, config, layer)) if offload else ()
        rows.append(Row(tuple(modules), op, count, cost, offload, why, seen, codes))
    kept = tuple(
        KeptRow(k.module, k.operation, k.shape, k.reason, k.calls, k.flops, model.plain(k.operation, k.flops))
        for k in trace.kept
    )
    steps = 1.0 if trace.training else 1 / 3
    other = trace.other_elements * machine.tee.other_element_seconds * steps
    return Plan(tuple(rows), kept, other, model.memcpys())


def why_stay(cost: OpCost) -> str | None:
    """Why an operation is better off in the TEE, or None."""
    if cost.tempo_seconds < cost.tee_seconds:
        return None
    return f"cheaper in the TEE: {_ms(cost.tee_seconds)} here, {_ms(cost.tempo_seconds)} there"


def leakage(config: Config) -> str:
    """What workers see of an operation that is sent."""
    known = config.key_shift and config.scheme not in ("shares", "unsafe_none")
    return _LEAKAGE[config.scheme] + (_SHIFT if known else "")


def _gain(cost: OpCost) -> str:
    return f"{_ms(cost.tempo_seconds)} there, {_ms(cost.tee_seconds)} here"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _peak(rows: Sequence[Row], side: str) -> int:
    kept = sum(r.count * int(getattr(r.cost, f"{side}_kept_bytes")) for r in rows)
    return kept + max((int(getattr(r.cost, f"{side}_working_bytes")) for r in rows), default=0)
