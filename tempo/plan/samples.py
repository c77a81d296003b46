"""What timed jobs say of a worker and its link.

seconds of a job = round trip + sent / up + received / down + flops / rate(op)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from tempo.plan.fit import non_negative
from tempo.plan.machine import OPS, WorkerFigures

#: Bytes and flops that cost less than this are lost in a measurement.
_LEAST_SECONDS: Final = 1e-15


@final
@dataclass(frozen=True, slots=True)
class Sample:
    """One job: bytes, flops, seconds."""

    #: Of its rate; None: next to no flops.
    rate: str | None
    sent: int
    received: int
    flops: int
    seconds: float


def figures_of(name: str, samples: Sequence[Sample]) -> WorkerFigures:
    """By least squares of the relative errors. samples: some of each of OPS at least."""
    # The link and float32 first: then each other kind of numbers is one unknown, told by its longest product.
    base = [s for s in samples if s.rate is None or s.rate in OPS]
    amounts = [(1.0, s.sent, s.received, *(s.flops * (s.rate == op) for op in OPS)) for s in base]
    trip, up, down, *flop = non_negative(amounts, [s.seconds for s in base])
    known = dict(zip(OPS, flop, strict=True))
    for rate in dict.fromkeys(s.rate for s in samples if s.rate and s.rate not in OPS):
        s = max((s for s in samples if s.rate == rate and not s.sent), key=lambda s: s.flops)
        # What cannot be told from the link's part is bounded by a tenth of all.
        known[rate] = max(s.seconds - trip - s.received * down, s.seconds / 10) / s.flops
    # What cannot be told from nothing is bounded by the largest measurement that has it.
    flops = {
        rate: 1 / max(seconds, _LEAST_SECONDS)
        if seconds
        else max(s.flops / s.seconds for s in samples if s.rate == rate)
        for rate, seconds in known.items()
    }
    return WorkerFigures(
        name=name,
        round_trip_seconds=trip,
        up_bytes_per_second=1 / up if up else max(s.sent / s.seconds for s in samples),
        down_bytes_per_second=1 / down if down else max(s.received / s.seconds for s in samples),
        flops_per_second=flops,
    )
