"""What a report says of an audit log: verified first, then counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tempo.report.sections import Audit, Source
from tempo.trust.ledger import Checkpoint, Entry, Kind, VerifierKey, read_verified


def audit_of(folder: Path, key: VerifierKey, since: Checkpoint | None) -> tuple[Audit, Source]:
    """Raises TamperedError where anything was altered, UsageError where there is no log. The digest is its
    signed root."""
    found = read_verified(folder, key, since=since)
    kinds = Counter(entry.kind.value for entry in found.entries)
    root = found.checkpoint.root.hex()
    audit = Audit(
        origin=found.checkpoint.origin,
        entries=found.checkpoint.size,
        first=found.entries[0].at if found.entries else None,
        last=found.entries[-1].at if found.entries else None,
        root=root,
        kinds=dict(kinds.most_common()),
        unsigned_bytes=len(found.beyond),
        extends_entries=None if since is None else since.size,
        closed=[_counts(entry) for entry in found.entries if entry.kind is Kind.SESSION_CLOSED],
    )
    return audit, Source(name=folder.name, what="audit log", sha256=root)


def _counts(entry: Entry) -> dict[str, int]:
    return {name: value for name, value in entry.fields.items() if isinstance(value, int)}
