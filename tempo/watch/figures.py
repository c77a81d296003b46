"""The public counters of a session at one moment, and what one step added to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from tempo.fleet import Stats as FleetStats
from tempo.stats import Stats


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """at: seconds of time.perf_counter(). totals: since the session began, by name, units in the names:
    counts and timings, which workers and the network see as well."""

    at: float
    usable: int
    totals: Mapping[str, float]

    @classmethod
    def of(cls, stats: Stats, fleet: FleetStats, usable: int) -> Figures:
        counts = stats.counts
        totals: dict[str, float] = {
            "sent_bytes": fleet.bytes_sent,
            "received_bytes": fleet.bytes_received,
            "checks": counts.get("checks", 0),
            "checks_failed": counts.get("checks_failed", 0),
            "products": counts.get("products", 0),
            "encodings": sum(counts.get(f"encoded_{operand}", 0) for operand in ("x", "w", "dy")),
            "retries": fleet.retries,
            "local_fallbacks": counts.get("local_fallbacks", 0),
        }
        totals |= {f"master_seconds/{part}": seconds for part, seconds in stats.seconds.items()}
        totals |= {f"jobs/{worker}": jobs for worker, jobs in fleet.jobs.items()}
        return cls(time.perf_counter(), usable, totals)

    def since(self, before: Figures) -> dict[str, float]:
        """What was added since `before`, with the seconds that went by; `checks_failed_total` and
        `workers_usable` are as they stand."""
        added = {name: total - before.totals.get(name, 0) for name, total in self.totals.items()}
        return added | {
            "seconds": self.at - before.at,
            "checks_failed_total": self.totals["checks_failed"],
            "workers_usable": self.usable,
        }
