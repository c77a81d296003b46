"""`tempo run` but for what it prints: settings are read, the script runs, its sessions are closed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tempo.config_file import read_config
from tempo.errors import TempoError
from tempo.facade import Session
from tempo.plan.money import Option, Prices, run_cost
from tempo.report import Report
from tempo.run.current import settings
from tempo.run.script import Ended, run_script


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """reports: one for each session, in the order in which they were closed. cost: None without prices."""

    script: str
    ended: Ended
    seconds: float
    reports: list[Report]
    cost: Option | None
    currency: str

    @property
    def quarantined(self) -> list[str]:
        return sorted({name for report in self.reports for name in report.quarantined})

    def fields(self) -> dict[str, Any]:
        """For JSON. An error that is not Tempo's is named, its words are left out: they may show data."""
        error = self.ended.error
        total = {name: sum(getattr(report, name) for report in self.reports) for name in _TOTALS}
        return {
            "script": self.script,
            "error": None if error is None else type(error).__name__,
            "message": str(error) if isinstance(error, TempoError) else None,
            "seconds": round(self.seconds, 4),
            **total,
            "quarantined": self.quarantined,
            "sessions": [
                {k: v for k, v in report.to_dict().items() if k != "rows"} for report in self.reports
            ],
            "money": None if self.cost is None else self._money(self.cost),
        }

    def _money(self, cost: Option) -> dict[str, Any]:
        """cost: None where a price is missing, which `assumptions` name."""
        return {
            "currency": self.currency,
            "cost": cost.cost,
            "machine_cost": cost.machine_cost,
            "egress_cost": cost.egress_cost,
            "assumptions": list(cost.assumptions),
        }


_TOTALS = ("checks", "checks_failed", "bytes_sent", "bytes_received", "retries", "local_fallbacks")


def run(file: Path, script: Path, arguments: Sequence[str]) -> Outcome:
    """Raises UsageError, OutsideError for what is wrong in the file or with the script, before it runs."""
    read_config(file)
    prices = Prices.load(file)
    reports: list[Report] = []

    def opened(session: Session) -> None:
        session.at_close(reports.append)

    ended: Ended | None = None
    start = time.perf_counter()
    try:
        with settings(file, opened):
            ended = run_script(script, arguments)
    except TempoError as error:  # of a session that closes after the script: its audit log, say
        if ended is None:
            raise
        ended = Ended(ended.code or error.exit_code, ended.error or error)
    seconds = time.perf_counter() - start
    return Outcome(str(script), ended, seconds, reports, _cost(prices, seconds, reports), prices.currency)


def _cost(prices: Prices, seconds: float, reports: Sequence[Report]) -> Option | None:
    if prices == Prices(currency=prices.currency):
        return None
    nbytes = sum(report.bytes_sent + report.bytes_received for report in reports)
    return run_cost(
        prices, seconds=seconds, nbytes=nbytes, workers=len({name for r in reports for name in r.jobs})
    )
