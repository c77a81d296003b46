"""Run one measurement and add its row to recorded.json.

    python record.py PYTHON run_SYSTEM.py ARGUMENTS...

PYTHON: the interpreter of the system's environment; its path is not recorded. A row of the same command is
replaced. Needs nothing but Python.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded.json"


def machine() -> dict[str, Any]:
    """What a figure depends on; no host name, no path."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0].partition(":")[2].strip(), "cores": len(os.sched_getaffinity(0))}


def row_of(output: str) -> dict[str, Any]:
    """The JSON line of a script; SPU writes log lines around it."""
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    row: dict[str, Any] = json.loads(line)
    return row


def add(row: dict[str, Any], arguments: list[str]) -> None:
    command = shlex.join(["python", *arguments])
    row = row | {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "command": command,
    }
    rows = json.loads(RECORDED.read_text())["rows"] if RECORDED.exists() else []
    rows = [old for old in rows if old["command"] != command] + [row]
    rows.sort(key=lambda each: (each["op"], -each["shape"][1], each["system"]))
    RECORDED.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def main() -> None:
    python, *arguments = sys.argv[1:]
    done = subprocess.run([python, *arguments], cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
    add(row_of(done.stdout), arguments)


if __name__ == "__main__":
    main()
