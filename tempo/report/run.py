"""A run as a file: what `Report.save` writes, `tempo report` gathers and the page shows. The format is frozen
(docs/report.md); units are in the names, and a section that the run did not have is absent.

Files are read as data of strangers (tempo/report/gather.py).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Final, final

import msgspec
from msgspec import field

from tempo.errors import OutsideError
from tempo.report.sections import Attacks, Attestation, Audit, Cost, Frozen, Source, Speed, Timeline, Training

#: Of the format.
VERSION: Final = 1


@final
class Placed(Frozen, frozen=True):
    """One kind of operation of one module, as `tempo.report.OpRow`."""

    module: str
    operation: str
    shape: str
    offloaded: bool
    reason: str
    calls: int
    forward_flops: int
    backward_flops: int
    visible: list[str] = field(default_factory=list)

    @property
    def flops(self) -> int:
        return self.forward_flops + self.backward_flops


@final
class Happened(Frozen, frozen=True):
    """An event, as `tempo.fleet.Event`."""

    kind: str
    worker: str
    detail: str


@final
class Promise(Frozen, frozen=True):
    """What a check finds, as `tempo.integrity.Guarantee`."""

    op: str
    dtype: str
    arithmetic: str
    inner: int
    outer: int
    probes: int
    miss: float
    of_norms: float
    of_row: float


@final
class SessionPart(Frozen, frozen=True):
    """As `tempo.Report.to_dict()`. settings: those that are not the defaults. jobs: answered, by worker."""

    scheme: str
    key_shift: bool
    rows: list[Placed]
    encodings: int
    encodings_without_key_shift: int
    bytes_sent: int
    bytes_received: int
    checks: int
    checks_failed: int
    retries: int
    local_fallbacks: int
    quarantined: list[str]
    seconds: dict[str, float]
    events: list[Happened] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    integrity: list[Promise] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)

    @property
    def offloaded_flops(self) -> int:
        return sum(row.flops for row in self.rows if row.offloaded)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def codes(self) -> set[str]:
        """Of what workers see by construction, of any layer."""
        return {code for row in self.rows for code in row.visible}


@final
class Run(Frozen, frozen=True):
    """tempo_run: version of the format. made_at: UTC, RFC 3339. machine: as of every `--json`."""

    tempo_run: int
    tempo: str
    made_at: str
    session: SessionPart
    title: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    commit: str | None = None
    training: Training | None = None
    timeline: Timeline | None = None
    attacks: Attacks | None = None
    speed: Speed | None = None
    cost: Cost | None = None
    attestations: list[Attestation] = field(default_factory=list)
    audit: Audit | None = None
    sources: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.tempo_run != VERSION:
            raise ValueError(f"this is version {self.tempo_run} of the format; expected {VERSION}")

    def save(self, path: str | PathLike[str]) -> None:
        """Raises OutsideError where the file cannot be written."""
        try:
            Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        except OSError as error:
            raise OutsideError(
                f"the report cannot be written to {path} ({error.strerror}). "
                "Name a file in a folder that exists"
            ) from error
