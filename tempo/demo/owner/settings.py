"""Settings of the owner's demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BATCH = 32
FULL_STEPS, FAST_STEPS = 20, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one run. seed: of parameters and batches, of nothing secret. unsafe_simulator: instead of a TPM."""

    steps: int = FULL_STEPS
    batch: int = BATCH
    workers: int = 2
    scheme: str = "mixing"
    seed: int = 0
    data_dir: Path | None = None
    unsafe_simulator: bool = False
