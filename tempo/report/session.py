"""The report of a session: what ran where and why, what it cost, what went wrong."""

from __future__ import annotations

import datetime
import io
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from os import PathLike
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tempo.fleet import Event
from tempo.integrity import Guarantee
from tempo.report.run import VERSION, Run, SessionPart
from tempo.secrecy.visible import ordered, worst


@dataclass(frozen=True, slots=True)
class OpRow:
    """One kind of operation of one module. Flops are those of the layer computed directly."""

    module: str
    operation: str
    shape: str
    offloaded: bool
    reason: str
    calls: int
    forward_flops: int
    backward_flops: int
    #: Codes of what workers see of it by construction (tempo.secrecy.visible).
    visible: tuple[str, ...] = ()

    @property
    def leakage(self) -> str:
        """The class of that, from "nothing" to "everything"."""
        return worst(self.visible)


@dataclass(frozen=True, slots=True)
class Report:
    scheme: str
    key_shift: bool
    rows: list[OpRow]
    encodings: int
    #: What the same products would have encoded, two operands each.
    encodings_without_key_shift: int
    bytes_sent: int
    bytes_received: int
    checks: int
    checks_failed: int
    retries: int
    #: Pieces that the master computed because no worker was left.
    local_fallbacks: int
    #: Workers that failed a check at least once.
    quarantined: list[str]
    #: Seconds of the master by part of its work, without double counting.
    seconds: dict[str, float]
    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: What the checks of each kind of operation find, and how surely.
    integrity: list[Guarantee] = field(default_factory=list)
    #: The scheme, and every setting that is not the default.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Jobs that each worker answered, by its name.
    jobs: dict[str, int] = field(default_factory=dict)

    @property
    def offloaded_flops(self) -> int:
        return sum(r.forward_flops + r.backward_flops for r in self.rows if r.offloaded)

    @property
    def kept_flops(self) -> int:
        return sum(r.forward_flops + r.backward_flops for r in self.rows if not r.offloaded)

    @property
    def visible(self) -> tuple[str, ...]:
        """Codes of what workers see of any layer."""
        return ordered(code for row in self.rows for code in row.visible)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, units in the names."""
        out = {k: v for k, v in asdict(self).items() if k != "events"}
        out["seconds"] = {part: round(s, 4) for part, s in self.seconds.items()}
        out["settings"] = {name: _plain(value) for name, value in self.settings.items()}
        out["events"] = [{"kind": e.kind.value, "worker": e.worker, "detail": e.detail} for e in self.events]
        return out | {"offloaded_flops": self.offloaded_flops, "kept_flops": self.kept_flops}

    def save(self, path: str | PathLike[str], *, title: str = "") -> None:
        """Write it as JSON for `tempo report` (docs/report.md). title: what the run was, for the page.

        Raises OutsideError where the file cannot be written.
        """
        from tempo import __version__

        session = msgspec.convert(self.to_dict(), SessionPart)
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        Run(tempo_run=VERSION, tempo=__version__, made_at=made, session=session, title=title).save(path)

    def tables(self) -> list[Table]:
        where = Table(title="What ran where", title_justify="left")
        for name in ("module", "operation", "shape", "where", "workers see"):
            where.add_column(name, overflow="fold")
        where.add_column("calls", justify="right")
        where.add_column("Gflop", justify="right")
        for row in self.rows:
            place = "workers" if row.offloaded else f"TEE: {row.reason}"
            flops = (row.forward_flops + row.backward_flops) / 1e9
            cells = (row.module, row.operation, row.shape, place, row.leakage)
            where.add_row(*cells, str(row.calls), f"{flops:.2f}")
        total = self.offloaded_flops + self.kept_flops
        share = f"{100 * self.offloaded_flops / total:.1f} %" if total else "none"
        figures = Table(title="Session", title_justify="left", show_header=False)
        for name, value in (
            ("scheme", f"{self.scheme}, key shift {'on' if self.key_shift else 'off'}"),
            ("linear flops offloaded", share),
            ("visible by construction", ", ".join(self.visible) or "nothing"),
            ("encodings", f"{self.encodings:,} (without key shift {self.encodings_without_key_shift:,})"),
            ("sent, received", f"{self.bytes_sent / 1e6:,.1f} MB, {self.bytes_received / 1e6:,.1f} MB"),
            ("checks", f"{self.checks:,}, failed {self.checks_failed:,}"),
            ("retries, in the master for want of workers", f"{self.retries}, {self.local_fallbacks}"),
            ("seconds", ", ".join(f"{part} {s:.2f}" for part, s in sorted(self.seconds.items()))),
        ):
            figures.add_row(name, value)
        return [where, figures]

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None)
        for table in self.tables():
            console.print(table)
        for event in self.events:
            console.print(f"{event.kind.value}: {event.worker}: {event.detail}", highlight=False)
        for note in self.notes:
            console.print(f"note: {note}", highlight=False)
        for each in self.integrity:
            console.print(str(each), highlight=False)
        if self.checks_failed:
            console.print(
                "INTEGRITY: at least one reply was wrong and was not used. Do not rent from these "
                f"workers again without an explanation: {', '.join(self.quarantined)}"
            )
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text


def _plain(value: Any) -> Any:
    """A setting as JSON has it; of settings within, those that are not the defaults."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        usual = type(value)()
        names = [f.name for f in fields(value) if getattr(value, f.name) != getattr(usual, f.name)]
        return ", ".join(f"{name} = {getattr(value, name)}" for name in names)
    return repr(value)
