"""The files of a log, and what reading them proves.

    entries.jsonl   one entry per line; the line is the leaf
    hashes          SHA-256 of each leaf, 32 bytes each: tells which entry was altered
    checkpoint      the signed note of the newest checkpoint

An entry counts once a checkpoint covers it. What lies beyond the checkpoint was never acknowledged: a crash
left it there, whole or torn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.errors import DataError, TamperedError
from tempo.trust.ledger.entry import Entry, parse
from tempo.trust.ledger.merkle import HASH_BYTES, leaf_hash, root_hash
from tempo.trust.ledger.note import MAX_NOTE_BYTES, Checkpoint, VerifierKey

ENTRIES: Final = "entries.jsonl"
HASHES: Final = "hashes"
CHECKPOINT: Final = "checkpoint"


@final
@dataclass(frozen=True, slots=True)
class Contents:
    """A log that was verified: its checkpoint, its entries with their lines and leaf hashes, and what lies
    beyond."""

    checkpoint: Checkpoint
    note: str
    entries: tuple[Entry, ...]
    lines: tuple[bytes, ...]
    leaves: tuple[bytes, ...]
    #: Bytes of entries.jsonl that no checkpoint covers.
    beyond: bytes
    #: Length of the part of entries.jsonl that is covered.
    covered: int


def read_note(directory: Path) -> str:
    """Raises DataError where there is none."""
    path = directory / CHECKPOINT
    try:
        with path.open("rb") as file:
            return file.read(MAX_NOTE_BYTES + 1).decode()
    except OSError as error:
        raise DataError(
            f"{directory} is no audit log: {path.name} cannot be read ({error.strerror})"
        ) from error
    except UnicodeDecodeError as error:
        raise TamperedError("the checkpoint is not text") from error


def read_verified(directory: Path, key: VerifierKey, *, since: Checkpoint | None = None) -> Contents:
    """Everything that the newest checkpoint covers, checked, in five steps:

    1. the checkpoint is signed by `key`
    2. the stored hashes have the root that was signed
    3. each entry has its stored hash, and none is missing
    4. each entry is one
    5. the log extends `since`, a checkpoint that was seen before (else it was rolled back or forked)

    Without `since` a log that somebody took back to an older state passes: keep checkpoints elsewhere.
    Raises TamperedError, which names the step and the entry, and DataError for files that cannot be read.
    """
    note = read_note(directory)
    checkpoint = key.open(note)
    try:
        data = (directory / ENTRIES).read_bytes()
        hashes = (directory / HASHES).read_bytes()
    except OSError as error:
        raise DataError(f"{directory} is no audit log ({error.strerror}: {error.filename})") from error
    size = checkpoint.size
    leaves = [hashes[i : i + HASH_BYTES] for i in range(0, size * HASH_BYTES, HASH_BYTES)]
    lines, covered = _lines(data, size)
    located = len(hashes) >= size * HASH_BYTES and root_hash(leaves) == checkpoint.root
    if len(lines) < size:
        raise TamperedError(
            f"step 3: the checkpoint covers {size} entries, {len(lines)} are left: the log was cut at "
            f"its end, or taken back to an older state"
        )
    found = [leaf_hash(line) for line in lines]
    if not located and root_hash(found) != checkpoint.root:
        raise TamperedError(
            "step 2: neither the entries nor the stored hashes have the root that was signed: the log was "
            "altered, and where cannot be told"
        )
    if located:
        for number, (leaf, stored) in enumerate(zip(found, leaves, strict=True)):
            if leaf != stored:
                raise TamperedError(f"step 3: entry {number} (line {number + 1} of {ENTRIES}) was altered")
    entries = []
    for number, line in enumerate(lines):
        try:
            entries.append(parse(line))
        except TamperedError as error:
            raise TamperedError(
                f"step 4: entry {number} is signed but is no entry of this version"
            ) from error
    if since is not None:
        _check_extends(since, checkpoint, found)
    return Contents(checkpoint, note, tuple(entries), tuple(lines), tuple(found), data[covered:], covered)


def _lines(data: bytes, size: int) -> tuple[list[bytes], int]:
    """The first `size` lines that end with a newline, and where they end."""
    lines: list[bytes] = []
    at = 0
    while len(lines) < size and (end := data.find(b"\n", at)) >= 0:
        lines.append(data[at:end])
        at = end + 1
    return lines, at


def _check_extends(since: Checkpoint, now: Checkpoint, leaves: list[bytes]) -> None:
    if since.origin != now.origin:
        raise TamperedError(
            f"step 5: this is the log {now.origin}, the earlier checkpoint is of {since.origin}"
        )
    if since.size > now.size:
        raise TamperedError(
            f"step 5: the log had {since.size} entries before and has {now.size} now: it was rolled back"
        )
    if root_hash(leaves[: since.size]) != since.root:
        raise TamperedError(f"step 5: the first {since.size} entries are not those that were signed before")
