"""A page of docs/operations, read as what a person would do with it, from top to bottom.

    ```console                 commands after "$ ", each followed by what it prints (see operations_match.py);
    $ tempo log verify ...     a backslash at the end goes on; "# exit 1" after a command: so it ends
    ```
    ```console hardware        as above, but it needs hardware that is not here: its first line says which, so
    # hardware: a host ...     that the reader sees it too
    ```
    ```toml file=policy.toml   a file that the reader writes
    ```

`<!-- starts from: NAME ... -->` names the set-up, which the page tells its reader in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
STARTS = re.compile(r"<!-- starts from: ([a-z0-9 -]+) -->")
EXIT = re.compile(r"\s+# exit ([0-9]+)$")
FILE = re.compile(r"(?:toml|python|sh|yaml|json|text) file=(\S+)")
HARDWARE = "# hardware: "


@dataclass(frozen=True, slots=True)
class File:
    """What the reader writes."""

    line: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """shown: the lines printed under it; empty: the page shows none."""

    line: int
    text: str
    exit: int
    shown: tuple[str, ...]
    hardware: bool


@dataclass(frozen=True, slots=True)
class Page:
    path: Path
    starts: tuple[str, ...]
    steps: tuple[File | Command, ...]


class BadPage(Exception):
    """A page that cannot be read so."""


def read_page(path: Path) -> Page:
    """Raises BadPage, saying where."""
    text = path.read_text()
    starts = STARTS.findall(text)
    if len(starts) > 1:
        raise BadPage(f"{path.name} starts from {len(starts)} set-ups")
    steps: list[File | Command] = []
    for found in FENCE.finditer(text):
        info, body = found[1].strip(), found[2]
        line = text.count("\n", 0, found.start()) + 2
        if file := FILE.fullmatch(info):
            steps.append(File(line, file[1], body))
        elif info.split()[:1] == ["console"]:
            steps += _commands(path, line, body, info.split()[1:])
        elif re.search(r"^(\$ )?tempo ", body, re.MULTILINE) and info in ("", "sh", "bash", "shell"):
            raise BadPage(f"{path.name}:{line}: commands stand in ```console, where they are run")
    return Page(path, tuple(starts[0].split()) if starts else (), tuple(steps))


def _commands(path: Path, line: int, body: str, words: list[str]) -> list[Command]:
    if words not in ([], ["hardware"]):
        raise BadPage(f"{path.name}:{line}: ```console {' '.join(words)} means nothing")
    hardware = bool(words)
    lines = body.splitlines()
    if hardware != bool(lines and lines[0].startswith(HARDWARE)):
        raise BadPage(f"{path.name}:{line}: 'console hardware' and a first line '{HARDWARE}' go together")
    found: list[Command] = []
    at = 1 if hardware else 0
    while at < len(lines):
        if not lines[at].startswith("$ "):
            raise BadPage(f"{path.name}:{line + at}: expected a command after '$ '")
        start, text = at, lines[at][2:]
        while text.endswith("\\"):
            at += 1
            text += "\n" + lines[at]
        at += 1
        shown = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at])
            at += 1
        ends = EXIT.search(text)
        found.append(
            Command(line + start, EXIT.sub("", text), int(ends[1]) if ends else 0, tuple(shown), hardware)
        )
    return found
