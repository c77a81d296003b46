"""Sealed files from one key to another: what it takes to retire a key. Plain records are in memory only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tempo.errors import DataError, TempoError, UsageError
from tempo.trust.sealed.format import HEAD, MAGIC, Header, Manifest, header_length, unpack_header
from tempo.trust.sealed.keys import DataKey, OwnerKey, Recipient
from tempo.trust.sealed.reader import SealedFile
from tempo.trust.sealed.writer import SealedWriter

Progress = Callable[[int], None]


def header_of(path: Path) -> Header:
    """Who may open it; public, and not verified without the key.

    Raises UsageError for what is no sealed file, TamperedError for a damaged header, DataError for what
    cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            try:
                length = header_length(head)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from error
            return unpack_header(file.read(length))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def sealed_files(paths: list[Path]) -> Iterator[Path]:
    """The sealed files among these and in the folders among these, by their first bytes, in order of name.
    Raises UsageError for a path that is not there, DataError for one that cannot be read."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {path}")
        for each in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            try:
                with each.open("rb") as file:
                    ours = file.read(len(MAGIC)) == MAGIC
            except OSError as error:
                raise DataError(f"{each} cannot be read ({error.strerror})") from error
            if ours:
                yield each


def reseal(
    path: Path,
    opening: DataKey | OwnerKey,
    out: Path,
    sealing: DataKey | Recipient,
    progress: Progress,
    before: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write `out`: the same records, kind, name, fields and sequence under another key. Under a data key all
    of it is read back before it counts. before: called once all records are written, and `out` is not in its
    place yet nor can be opened; where it raises, there is no `out`. `path` stays: its owner removes it, with
    all copies.

    Raises as SealedFile and SealedWriter do; UsageError where `out` exists or both keys are one.
    """
    if sealing.name == opening.name:
        raise UsageError(f"{path} is sealed under the key {opening.name} already: name another key")
    with SealedFile(path, opening) as file:
        found = file.manifest
        with SealedWriter(
            out, sealing, kind=found.kind, name=found.name, fields=found.fields, sequence=found.sequence
        ) as writer:
            for number in range(len(file)):
                writer.add(file.record(number))
                progress(number + 1)
            before()
        if isinstance(sealing, DataKey):
            _read_back(out, sealing, found)
    return found


def _read_back(out: Path, key: DataKey, expected: Manifest) -> None:
    """Whoever retires a key on the strength of the new file must know that it opens."""
    try:
        with SealedFile(out, key) as made:
            made.verify()
            if made.manifest != expected:
                raise DataError(f"{out} does not hold what was written: the disk is at fault")
    except TempoError:
        os.unlink(out)
        raise
