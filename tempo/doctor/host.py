"""The machine as the findings see it. Tests give another root, environment and path."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

_VERSION_S = 10.0


@final
@dataclass(frozen=True, slots=True)
class Host:
    """root: where /proc, /sys and /dev are. environ: of this process, of which only OpenMP's and PATH
    are ever looked at."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def text(self, path: str) -> str | None:
        """The text of a file of the system, None where there is none."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        try:
            return (self.root / path).exists()
        except OSError:
            return False

    def version_of(self, program: str) -> str | None:
        """The first line of `program --version`, None where it is not found or does not answer."""
        path = shutil.which(program, path=self.environ.get("PATH", ""))
        if path is None:
            return None
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.partition("\n")[0].strip() or None if done.returncode == 0 else None

    def cores(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
