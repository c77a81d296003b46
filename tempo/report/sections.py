"""Sections of a run's file beside the session itself: each is what another verb's `--json` said.

Types are checked when a file is read; fields that are not named here are ignored.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

#: Shades of a picture, at most.
_LARGEST_PICTURE: Final = 1 << 20


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


@final
class Training(Frozen, frozen=True):
    """Beside the same training in plain PyTorch, step by step; accuracies from 0 to 1."""

    plain_losses: list[float]
    tempo_losses: list[float]
    allowed_differences: list[float]
    plain_accuracy: float
    tempo_accuracy: float
    plain_seconds: float
    tempo_seconds: float
    steps: int
    batch: int
    data: str
    parameters: int
    #: Lies that a worker told on purpose, and the steps at which they were caught.
    lies_told: int = 0
    lie_steps: list[int] = []
    #: Step at which a worker was killed.
    kill_step: int | None = None
    broken_promises: list[str] = []

    @property
    def worst_difference(self) -> float:
        pairs = zip(self.plain_losses, self.tempo_losses, strict=False)
        return max((abs(a - b) for a, b in pairs), default=0.0)


@final
class Bar(Frozen, frozen=True):
    """A span of a timeline; start: seconds from the first one."""

    part: str
    lane: str
    start: float
    seconds: float


@final
class Timeline(Frozen, frozen=True):
    bars: list[Bar]
    title: str = ""


@final
class AttackRow(Frozen, frozen=True):
    """A row of `tempo attack --json`; figures that there are not are null."""

    attack: str
    scheme: str
    reference: str
    operand: str
    verdict: str
    side_knowledge: str = ""
    note: str = ""
    score: float | None = None
    chance: float | None = None
    undefended: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    #: Measured for the release, not for this report.
    shipped: bool = False


@final
class Picture(Frozen, frozen=True):
    """Shades of 8 bits, row by row, base64 in JSON: what an attack recovered, and what was true."""

    attack: str
    scheme: str
    reference: str
    title: str
    width: int
    height: int
    recovered: bytes
    true: bytes

    def __post_init__(self) -> None:
        size = self.width * self.height
        if not 0 < size <= _LARGEST_PICTURE or len(self.recovered) != size or len(self.true) != size:
            raise ValueError(f"a picture of {self.width} x {self.height} does not have that many shades")


@final
class Attacks(Frozen, frozen=True):
    """of: "shipped" with this release, on reference runs, or "given" to the report."""

    of: Literal["shipped", "given"]
    date: str
    command: str
    rows: list[AttackRow]
    pictures: list[Picture] = []
    #: Pictures that were left out because they show inputs of one's own.
    pictures_left_out: int = 0


@final
class SpeedRow(Frozen, frozen=True):
    """A row of `tempo bench layers|paper`, mode tempo."""

    op: str
    shape: str | list[int] | dict[str, int]
    scheme: str | None = None
    workers: int | None = None
    seconds: float | None = None
    master_seconds: float | None = None
    roofline_share: float | None = None
    speedup_over_tee_only: float | None = None
    law_speedup: float | None = None
    law_share: float | None = None


@final
class Speed(Frozen, frozen=True):
    command: str
    rows: list[SpeedRow]


@final
class CostRow(Frozen, frozen=True):
    """One way to run an epoch, as `tempo plan --samples` prices it. cost: null where a price is missing."""

    option: str
    epoch_seconds: float
    cost: float | None
    currency: str
    egress_cost: float = 0.0
    assumptions: list[str] = []


@final
class Cost(Frozen, frozen=True):
    model: str
    rows: list[CostRow]


@final
class Attestation(Frozen, frozen=True):
    """What `tempo attest verify --json` found."""

    kind: str
    policy: str
    accepted: bool
    simulated: bool
    detail: str


@final
class Audit(Frozen, frozen=True):
    """An audit log, verified while the report was made. kinds: entries of each."""

    origin: str
    entries: int
    first: str | None
    last: str | None
    root: str
    kinds: dict[str, int]
    unsigned_bytes: int
    #: Entries of the earlier checkpoint that it extends; null where none was given.
    extends_entries: int | None = None
    #: Counts of each session that was closed, as entered.
    closed: list[dict[str, int]] = []


@final
class Source(Frozen, frozen=True):
    """A file that the report was made from. name: without folders."""

    name: str
    what: str
    sha256: str
