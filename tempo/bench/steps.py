"""Rows of a step: its seconds beside its roofline, the TEE-only step of the same run, and the law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from tempo.bench.crew import Crew
from tempo.bench.protected import Protected
from tempo.bench.result import Result
from tempo.bench.roofline import Constants, Load, allowed_seconds, law, tee_roofline, worker_roofline
from tempo.bench.timing import Spread
from tempo.bench.variant import Variant


@final
@dataclass(frozen=True, slots=True)
class Case:
    """op: what ran. phase: "forward and backward", "training", "inference", ... samples: rows, images or
    tokens of a step. flops: of its linear layers computed directly."""

    op: str
    shape: list[int]
    phase: str
    samples: int
    flops: float

    def fields(self) -> dict[str, Any]:
        return {"op": self.op, "shape": self.shape, "phase": self.phase}


@final
class StepRows:
    """Adds the rows of one case, TEE-only first: the others are measured against it."""

    def __init__(self, result: Result, case: Case, crew: Crew, known: Constants) -> None:
        self._result = result
        self._case = case
        self._crew = crew
        self._known = known
        self._tee = float("inf")

    def tee_only(self, spreads: Mapping[str, Spread]) -> None:
        """By arithmetic. The fastest is what speed-ups are against."""
        self._tee = min(spread.median for spread in spreads.values())
        for arithmetic, spread in spreads.items():
            roofline = tee_roofline(Load(self._case.flops), self._known, arithmetic)
            self._add("tee-only", spread, roofline, arithmetic=arithmetic, workers=0, verify=False)

    def unprotected(self, spread: Spread, load: Load, arithmetic: str = "fp32") -> None:
        roofline = worker_roofline(load, self._known)
        traffic = round(load.up + load.down)
        self._add("unprotected", spread, roofline, arithmetic=arithmetic, verify=False, bytes=traffic)

    def tempo(
        self,
        variant: Variant,
        found: Protected,
        *,
        memcpys: float | None = None,
        elements: float | None = None,
        with_rest: bool = False,
    ) -> None:
        """Two rows: with verification, and with its measured part taken off.

        memcpys: m, where it was measured. elements: E of the law; None: all that was sent and received.
        with_rest: the model does more than products, which the law must leave it time for.
        """
        load = Load(
            flops=self._case.flops,
            worker_flops=found.flops,
            elements=(found.sent + found.received) / variant.element_bytes,
            up=found.sent,
            down=found.received,
        )
        known = self._known
        roofline, master = worker_roofline(load, known), found.master.median
        values: dict[str, Any] = {
            "scheme": variant.scheme,
            "arithmetic": variant.arithmetic,
            "bytes": round(load.up + load.down),
        }
        if memcpys is not None and load.elements > 0:
            rest = max(0.0, master - found.passes) if with_rest else 0.0
            counted = load.elements if elements is None else elements
            if with_rest:
                allowed = self._tee / (memcpys * counted / known.copy + rest)
            else:
                allowed = law(
                    flops=self._case.flops,
                    elements=counted,
                    copy=known.copy,
                    memcpys=memcpys,
                    tee_flops=known.best_flops,
                )
            least = allowed_seconds(replace(load, elements=counted), known, memcpys=memcpys, rest=rest)
            # A layer alone in the TEE takes flops / F at least; what a whole model takes was measured.
            alone = self._tee if with_rest else self._case.flops / known.best_flops
            values |= {
                "memcpys_per_element": memcpys,
                "law_speedup": allowed,
                "law_share": alone / master / allowed,
                "allowed_speedup": alone / least,
                "allowed_share": least / found.seconds.median,  # (alone / seconds) / (alone / least)
            }
        self._add(
            "tempo",
            found.seconds,
            roofline,
            verify=True,
            master_seconds=master,
            check_seconds=found.check,
            speedup_if_workers_were_free=self._tee / master,
            **values,
        )
        without = max(1e-9, master - found.check_quiet)
        for of_verified in (
            "law_share",
            "allowed_share",
            "memcpys_per_element",
            "law_speedup",
            "allowed_speedup",
        ):
            values.pop(of_verified, None)  # m and what follows from it include the check
        self._add(
            "tempo",
            found.seconds.less(found.check),
            roofline,
            verify=False,
            master_seconds=without,
            check_seconds=0.0,
            speedup_if_workers_were_free=self._tee / without,
            **values,
        )

    def _add(self, mode: str, spread: Spread, roofline: float, **values: Any) -> None:
        seconds = max(spread.median, 1e-9)
        row: dict[str, Any] = {
            "mode": mode,
            "workers": self._crew.count,
            "workers_are": self._crew.text,
            "seconds": spread.median,
            "master_seconds": spread.median if mode == "tee-only" else None,
            "bytes": 0,
            "roofline_seconds": roofline,
            "speedup_over_tee_only": self._tee / seconds,
            "samples_per_second": self._case.samples / seconds,
            "seconds_min": spread.low,
            "seconds_max": spread.high,
            "repeats": spread.count,
            "roofline_share": roofline / seconds,
        }
        self._result.add(**(self._case.fields() | row | values))
