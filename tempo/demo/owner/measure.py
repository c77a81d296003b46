"""What is measured before a master starts: the code of Tempo, and the program that will hold the key.

    package    SHA-256 over all that Python loads from Tempo: names and digests of files, sorted
    program    SHA-256 of the file that is started

Python prefers compiled code in its cache to the source: masters are told of a cache that is empty. It also
loads compiled code that lies where source would (`errors/__init__.pyc` before `errors.py`): that is measured.

In a confidential VM firmware and boot loader do this, from a place that the machine's renter cannot reach.
Here the demo does it itself, in the same order: measure, note it in the TPM, start.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import tempo
from tempo.errors import UsageError

_LOADED: Final = (".py", ".so", ".pyc")
_CACHE: Final = "__pycache__"
#: A line of master.py, and what a dishonest operator would put behind it.
_ANCHOR: Final = "    key = asked_for(orders, witness)\n"
_ALTERATION: Final = '    Path(orders.folder, "stolen").write_bytes(key.unsafe_bytes())\n'


def package(root: Path = Path(tempo.__file__).parent) -> bytes:
    """32 bytes: all files of a package that Python would load."""
    found = (path for path in root.rglob("*") if path.suffix in _LOADED and path.is_file())
    files = sorted(path for path in found if path.parent.name != _CACHE)
    lines = [f"{program(path).hex()} {path.relative_to(root).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).digest()


def program(path: Path) -> bytes:
    """32 bytes."""
    return hashlib.sha256(path.read_bytes()).digest()


def extended(digest: bytes) -> bytes:
    """A PCR of zeros, once `digest` was noted in it (TPM 2.0 Library, Part 1: 11.4.5)."""
    return hashlib.sha256(bytes(len(digest)) + digest).digest()


def altered(source: Path, target: Path) -> str:
    """The program with one line more, which would copy the key to the disk; that line. Raises UsageError
    where the program is not the one that this knows."""
    text = source.read_text()
    if text.count(_ANCHOR) != 1:
        raise UsageError(f"{source} does not have the line {_ANCHOR.strip()!r} once")
    target.write_text(text.replace(_ANCHOR, _ANCHOR + _ALTERATION))
    return _ALTERATION.strip()
