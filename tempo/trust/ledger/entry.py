"""What the audit log records. One line of JSON per entry; its bytes are the leaf of the tree.

    {"at":"2026-11-23T04:05:06.789Z","kind":"session_opened","fields":{"scheme":"mixing"}}

Fields are numbers, booleans, short strings of ours, and lists of them: never an operand, a key or a peer's
words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, final

import msgspec

from tempo.errors import TamperedError, UsageError

MAX_LINE_BYTES: Final = 16_384
_MAX_TEXT: Final = 1000
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

Scalar = str | int | float | bool | None
Value = Scalar | list[Scalar]


class Kind(StrEnum):
    """What happened."""

    LOG_OPENED = "log_opened"
    LOG_RECOVERED = "log_recovered"  # a torn record was cut off
    SESSION_OPENED = "session_opened"
    SESSION_CLOSED = "session_closed"
    CONFIGURATION = "configuration"
    INTEGRITY_FAILURE = "integrity_failure"
    WORKER_EVENT = "worker_event"  # lost, quarantined, back, late
    CHECKPOINT_WRITTEN = "checkpoint_written"
    CHECKPOINT_RESUMED = "checkpoint_resumed"
    ATTESTATION = "attestation"
    KEY_RELEASED = "key_released"
    KEY_REFUSED = "key_refused"
    KEY_CHANGED = "key_changed"  # added, granted, rotated, revoked


@final
class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """at: UTC, RFC 3339 with milliseconds."""

    at: str
    kind: Kind
    fields: dict[str, Value]


_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder(Entry)


def make(at: str, kind: Kind, fields: Mapping[str, Value]) -> bytes:
    """The line of an entry, without its newline. Raises UsageError for what a log does not take."""
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            raise UsageError(f"a field of the audit log is named like a variable, not {name!r}")
        for one in value if isinstance(value, list) else [value]:
            if not (one is None or isinstance(one, (str, int, float, bool))):
                raise UsageError(f"field {name} of the audit log: a {type(one).__name__} cannot be recorded")
            if isinstance(one, str) and len(one) > _MAX_TEXT:
                raise UsageError(f"field {name} of the audit log is longer than {_MAX_TEXT} characters")
    line = _encoder.encode(Entry(at, kind, dict(fields)))
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"an entry of {len(line)} bytes; the audit log takes {MAX_LINE_BYTES}")
    return line


def parse(line: bytes) -> Entry:
    """Raises TamperedError where the line is no entry."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TamperedError("a line of the log is no entry") from error
