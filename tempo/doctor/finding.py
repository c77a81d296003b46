"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, but worth knowing
    PROBLEM = "problem"  # does not work, or not safely


@dataclass(frozen=True, slots=True)
class Finding:
    """found: what is there. mend: what to do about it, empty where nothing is to be done."""

    name: str
    status: Status
    found: str
    mend: str = ""

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "status": self.status.value, "found": self.found, "mend": self.mend}


def ok(name: str, found: str) -> Finding:
    return Finding(name, Status.OK, found)


def note(name: str, found: str, mend: str = "") -> Finding:
    return Finding(name, Status.NOTE, found, mend)


def problem(name: str, found: str, mend: str) -> Finding:
    return Finding(name, Status.PROBLEM, found, mend)
