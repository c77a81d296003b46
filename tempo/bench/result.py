"""What a suite hands back: rows with fixed fields, and what they must be read with."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

from tempo.errors import UsageError
from tempo.kernels import native_status

Row = dict[str, Any]

#: Fields of a row, in this order: first those of DESIGN.md, then what a report must say beside them.
KERNEL_FIELDS = (
    *("scheme", "pass", "shape", "dtype", "seconds", "memcpy_seconds", "memcpy_ratio", "threads"),
    *(
        "lowering",
        "row_rounds",
        "isa",
        "seconds_min",
        "seconds_max",
        "memcpy_seconds_min",
        "memcpy_seconds_max",
    ),
    *("repeats", "roofline_seconds", "roofline_share"),
)
STEP_FIELDS = (
    *("op", "shape", "mode", "scheme", "verify", "workers", "seconds", "master_seconds", "bytes"),
    *("roofline_seconds", "speedup_over_tee_only", "samples_per_second"),
    *(
        "workers_are",
        "phase",
        "arithmetic",
        "seconds_min",
        "seconds_max",
        "repeats",
        "roofline_share",
        "check_seconds",
    ),
    *("speedup_if_workers_were_free", "memcpys_per_element", "law_speedup", "law_share"),
    *("allowed_speedup", "allowed_share"),
)
#: Of suite scale: of several masters too.
SCALE_FIELDS = (*STEP_FIELDS, "masters", "master_cpu_seconds", "exchange_seconds", "exchange_bytes")
SERVE_FIELDS = (
    *("op", "shape", "mode", "scheme", "arithmetic", "verify", "workers", "workers_are", "clients"),
    *("requests", "batches", "seconds", "latency_p50_seconds", "latency_p95_seconds", "latency_max_seconds"),
    *("requests_per_second", "samples_per_second", "bytes", "offloaded_share", "speedup_over_tee_only"),
)
#: Of suite chaos: one thing that must hold; measured <= allowed, or for least figures the other way.
CHAOS_FIELDS = ("check", "passed", "measured", "allowed", "unit", "detail")
INTEGRITY_FIELDS = (
    *("op", "dtype", "tamper", "relative_size", "trials", "detected", "checks", "false_alarms"),
    *("shape", "operands", "probes", "tolerances", "threshold", "expected", "row_checks", "products"),
    *("largest_ratio", "accuracy", "loss", "loss_difference", "rounds"),
)
#: Of suite seal. Shares: plain bytes per second over those of the baseline, fastest runs.
SEAL_FIELDS = (
    *("op", "how", "record_bytes", "bytes", "seconds", "gb_per_second", "share_of_aes_gcm"),
    *("share_of_cached_aes_gcm", "share_of_plain", "records_per_second"),
    *("cpu_seconds", "cpu_share_of_aes_gcm", "seconds_min", "seconds_max", "repeats"),
)
MODES = ("tee-only", "unprotected", "tempo")

_FLAGS = re.compile(r"sse4_2|avx\w*|fma|f16c|amx\w*|asimd\w*|sve\w*|bf16")


@final
@dataclass(slots=True)
class Result:
    """suite: its name. fields: of every row. constants: measured in this run. skipped: what did not fit.
    notes: what a reader must know to read the rows rightly."""

    suite: str
    fields: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    #: Promises that were not kept.
    broken: list[str] = field(default_factory=list)

    def add(self, **values: Any) -> Row:
        """One row. A field that was not measured is None; a field that there is none of is a fault."""
        unknown = set(values) - set(self.fields)
        if unknown:
            raise UsageError(f"rows of bench {self.suite} have no fields {sorted(unknown)}")
        row = {name: values.get(name) for name in self.fields}
        self.rows.append(row)
        return row

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def more(self) -> dict[str, Any]:
        """The fields of the JSON object beside those that every verb has."""
        return {
            "command": command(),
            "environment": environment(),
            "constants": self.constants,
            "skipped": self.skipped,
            "notes": self.notes,
            **self.extra,
        }


def command() -> str:
    """How this was started, without the folders that are one user's."""
    first = Path(sys.argv[0]).name
    return shlex.join(["tempo" if first in ("-c", "-m", "__main__.py") else first, *sys.argv[1:]])


def environment() -> dict[str, Any]:
    """What a figure depends on beside the machine: versions, instruction sets, threads."""
    import torch

    return {
        "cpu_flags": cpu_flags(),
        "isa": isa(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "numpy", "msgspec", "cryptography")},
        },
    }


def cpu_flags() -> list[str]:
    """Instruction sets that matter to the passes and to products; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return sorted(flag for flag in value.split() if _FLAGS.fullmatch(flag))
    return []


def isa() -> str:
    """What serves the passes: the native kernels' name for it ("avx2", ...), or the plain PyTorch twin."""
    return native_status().serving


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
