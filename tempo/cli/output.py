"""What commands print: a JSON object or tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tempo.errors import OutsideError

_PROJECT = Path(__file__).resolve().parents[2]


def stdout() -> Console:
    return Console(file=sys.stdout, highlight=False)


def stderr() -> Console:
    return Console(file=sys.stderr, highlight=False)


def tempo_version() -> str:
    try:
        return version("tempo-confidential")
    except PackageNotFoundError:
        return "unknown (not installed)"


def document(verb: str, rows: Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """The object that `--json` prints: the fields every verb has, `rows`, and those of this verb."""
    head = {"tempo": tempo_version(), "verb": verb, "machine": machine(), "commit": commit()}
    clash = set(fields) & {*head, "rows"}
    if clash:
        raise ValueError(f"fields {sorted(clash)} belong to every verb")
    return {**head, "rows": [dict(row) for row in rows], **fields}


def to_json(fields: Mapping[str, Any]) -> str:
    # NaN is no JSON: a figure that is not a number is a fault of ours, and must not pass for a result.
    return json.dumps(fields, indent=2, allow_nan=False)


def print_json(fields: Mapping[str, Any]) -> None:
    sys.stdout.write(to_json(fields) + "\n")
    sys.stdout.flush()


def result_folder(out: Path | None) -> None:
    """Make the folder of `--out`, if one was named. Raises OutsideError, before anything was measured."""
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutsideError(f"--out {out} cannot be made ({error.strerror}). Name another folder") from error


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Inside, results go into the folder of `--out`. Raises OutsideError where they cannot."""
    try:
        yield
    except OSError as error:
        raise OutsideError(
            f"--out {out} cannot be written ({error.strerror}). Name another folder"
        ) from error


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """The first column is text, the others are figures."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def machine() -> dict[str, Any]:
    """What a figure depends on; no host name, no user."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of the checkout that runs, with "-dirty" for uncommitted changes; None outside of one."""
    if not (_PROJECT / ".git").exists():
        return None
    head, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return head and head + ("-dirty" if status else "")


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_PROJECT), *command],  # noqa: S607 (git from the user's own PATH)
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
