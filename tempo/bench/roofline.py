"""What a step cannot beat, from constants measured in the same run. Pure arithmetic.

The law (DESIGN.md). One layer, forward and backward, worker and link free: the master touches every element
of X, Y, dY, dX once, E = 2 R (K + N) of them, at m memcpys each; alone it would do 6 R K N flops. With b
elements copied a second and F flop a second in its fastest arithmetic

    S <= (6 R K N / F) / (m E / b) = 3 h b / (m F),    h = K N / (K + N)

The roofline of a step: no part of it may be faster than its slowest resource.

    tee-only      flops / F
    unprotected   max(up / link, down / link, flops / worker)
    tempo         max(E / b, up / link, down / link, flops / worker)          m = 1: one touch is the least

Both directions of a link may be busy at once. Its rate is the bare transport's where that was measured and is
faster than what went through a worker. Where workers share the master's cores all of this takes turns on
them, and the sum takes the place of the maximum.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

from tempo.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Constants:
    """Of one machine, one crew of workers and one run.

    copy: float32 elements that the TEE copies a second, into memory already touched (b).
    tee_flops: flop/s of the TEE by arithmetic, "fp32" and, where the CPU has it, "bf16".
    up, down: bytes a second to all workers together, and back, each measured alone.
    alone: bytes a second of the bare transport, both ways together, or None where there is none to measure.
    round_trip: the same through the worker, from `up` and `down`; None likewise.
    worker_flops: flop/s of all workers together.
    shared: the workers compute on the master's cores.
    """

    copy: float
    tee_flops: dict[str, float]
    up: float
    down: float
    worker_flops: float
    shared: bool
    alone: float | None = None
    round_trip: float | None = None

    def __post_init__(self) -> None:
        rates = (self.copy, self.up, self.down, self.worker_flops, *self.tee_flops.values())
        if not (self.tee_flops and all(rate > 0 for rate in rates)):
            raise UsageError(f"constants are positive rates, not {self}")

    @property
    def fastest(self) -> str:
        """The TEE's fastest arithmetic."""
        return max(self.tee_flops, key=lambda name: self.tee_flops[name])

    @property
    def best_flops(self) -> float:
        """F: flop/s in that."""
        return self.tee_flops[self.fastest]

    def fields(self) -> dict[str, Any]:
        """For the report, units in the names."""
        values = asdict(self)
        return {
            "copy_elements_per_second": values["copy"],
            "tee_flops_per_second": values["tee_flops"],
            "tee_fastest_arithmetic": self.fastest,
            "link_up_bytes_per_second": values["up"],
            "link_down_bytes_per_second": values["down"],
            "transport_alone_bytes_per_second": values["alone"],
            "worker_round_trip_bytes_per_second": values["round_trip"],
            "worker_share_of_transport": (
                self.round_trip / self.alone if self.round_trip and self.alone else None
            ),
            "worker_flops_per_second": values["worker_flops"],
            "workers_share_the_masters_cores": values["shared"],
        }


@final
@dataclass(frozen=True, slots=True)
class Load:
    """What one step asks of the machine. flops: of the layers computed directly. worker_flops: of the
    products they were lowered to. elements: encoded or decoded. up, down: bytes to and from the workers."""

    flops: float
    worker_flops: float = 0.0
    elements: float = 0.0
    up: float = 0.0
    down: float = 0.0


def tee_roofline(load: Load, constants: Constants, arithmetic: str) -> float:
    """Seconds of a step in the TEE alone."""
    return load.flops / constants.tee_flops[arithmetic]


def worker_roofline(load: Load, constants: Constants) -> float:
    """Seconds of a step on workers, in the clear or (load.elements > 0) encoded."""
    return allowed_seconds(load, constants, memcpys=1.0)


def allowed_seconds(load: Load, constants: Constants, *, memcpys: float, rest: float = 0.0) -> float:
    """The least that law and link leave of a protected step: m memcpys an element, and `rest` seconds of the
    master for what is no product."""
    bare = constants.alone or 0.0
    parts = (
        memcpys * load.elements / constants.copy + rest,
        load.up / max(constants.up, bare),
        load.down / max(constants.down, bare),
        load.worker_flops / constants.worker_flops,
    )
    return sum(parts) if constants.shared else max(parts)


def law(*, flops: float, elements: float, copy: float, memcpys: float, tee_flops: float) -> float:
    """Greatest speed-up over TEE-only with worker and link free: (flops / F) / (m E / b).

    flops: of the whole step. elements: E. copy: b. memcpys: m. tee_flops: F.
    """
    if min(flops, elements, copy, memcpys, tee_flops) <= 0:
        raise UsageError("the law takes positive numbers")
    return (flops / tee_flops) / (memcpys * elements / copy)


def law_width(*, copy: float, memcpys: float, tee_flops: float, speedup: float = 1.0) -> float:
    """Width K = N of a linear layer at which the law allows this speed-up; at 1 it breaks even.
    3 h b / (m F) = S with h = K / 2."""
    return 2 * speedup * memcpys * tee_flops / (3 * copy)
