"""What `tempo plan --json` wrote, as types: as much of it as its page shows."""

from __future__ import annotations

from typing import Any, final

from msgspec import field

from tempo.report.sections import CostRow, Frozen, Source


@final
class PlanRow(Frozen, frozen=True):
    """Equal operations; seconds of one of them. tempo_seconds, law_share: null where it must stay."""

    modules: list[str]
    operation: str
    shape: dict[str, int] | str
    count: int
    flops: int
    tee_seconds: float
    decision: str
    reason: str
    leakage_class: str
    visible: list[str]
    tempo_seconds: float | None = None
    law_share: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def sent(self) -> bool:
        return self.decision == "offload"

    @property
    def all_flops(self) -> int:
        """Of all of them. Those that must stay are counted together already."""
        return self.count * self.flops if isinstance(self.shape, dict) else self.flops


@final
class Totals(Frozen, frozen=True):
    flops: int
    bytes_up: int
    bytes_down: int
    tee_seconds: float
    tee_fastest_seconds: float
    tempo_seconds: float
    other_seconds: float
    kept_seconds: float
    master_seconds: dict[str, float]
    speedup_over_tee: float
    tee_peak_extra_bytes: int
    worker_peak_bytes: int


@final
class Compared(Frozen, frozen=True):
    part: str
    predicted_seconds: float
    measured_seconds: float
    ratio: float | None


@final
class EvenRow(Frozen, frozen=True):
    name: str
    price: float | None
    unit: str
    currency: str
    yours: float | None = None
    favours_tempo: bool | None = None


@final
class CriterionRow(Frozen, frozen=True):
    """values: units are in the names."""

    name: str
    values: dict[str, float | str]
    command: str
    state: str


@final
class StageRow(Frozen, frozen=True):
    name: str
    criteria: list[CriterionRow]


@final
class PlanFile(Frozen, frozen=True):
    tempo: str
    model: str
    scheme: str
    inference: bool
    batch: int
    rows: list[PlanRow]
    totals: Totals
    measured: list[Compared]
    money: list[CostRow]
    calibration: dict[str, Any]
    wire: str = "fp32"
    arithmetic: str = "fp32"
    machine: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    break_even: list[EvenRow] = field(default_factory=list)
    adoption: list[StageRow] = field(default_factory=list)
    currency: str = ""
    sources: list[Source] = field(default_factory=list)

    @property
    def codes(self) -> set[str]:
        return {code for row in self.rows for code in row.visible}

    @property
    def sent_share(self) -> float:
        """Of the linear arithmetic."""
        total = sum(row.all_flops for row in self.rows)
        return sum(row.all_flops for row in self.rows if row.sent) / total if total else 0.0
