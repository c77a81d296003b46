"""Each event of a session as one line of the logger "tempo", for people and for machines.

    logging.getLogger("tempo").addHandler(handler)      # the standard library's way, as any library's
    handler.setFormatter(tempo.report.JsonLines())      # one JSON object a line

Fields of a record, as attributes and in JSON: `event` (the event's kind, or session_opened, session_closed,
checkpoint_written, checkpoint_resumed), `worker`, `detail`, and figures. Names and words are ours or the
user's: never a peer's, never an operand, a key or a path's content.

    ERROR     a reply failed its check, or a worker broke the protocol
    WARNING   a worker was lost, late, refused a job, is quarantined; jobs were done in the master
    INFO      it came back, the session began and ended, a checkpoint
    DEBUG     daily business: evicted, hedged, retried
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final, final

from tempo.fleet import Event, EventKind

#: A library says nothing unless it is asked to: no line reaches standard error by itself.
_LOGGER: Final = logging.getLogger("tempo")
_LOGGER.addHandler(logging.NullHandler())

LEVELS: Final[Mapping[EventKind, int]] = {
    EventKind.CHECK_FAILED: logging.ERROR,
    EventKind.PROTOCOL: logging.ERROR,
    EventKind.LOST: logging.WARNING,
    EventKind.DEADLINE: logging.WARNING,
    EventKind.REFUSED: logging.WARNING,
    EventKind.QUARANTINED: logging.WARNING,
    EventKind.REJOINED: logging.INFO,
    EventKind.PROBATION: logging.INFO,
    EventKind.EVICTED: logging.DEBUG,
    EventKind.HEDGED: logging.DEBUG,
    EventKind.RETRIED: logging.DEBUG,
}

_FIELDS: Final = "tempo_fields"


def log_event(event: Event) -> None:
    """The line of an event of the fleet."""
    fields = {"worker": event.worker, "detail": event.detail}
    log_line(LEVELS[event.kind], event.kind.value, f"{event.worker}: {event.detail}", fields)


def log_line(level: int, event: str, words: str, fields: Mapping[str, object]) -> None:
    """The line of something else. fields: what JSON has for them."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, "%s: %s", event, words, extra={"event": event, _FIELDS: dict(fields)})


@final
class JsonLines(logging.Formatter):
    """time (seconds since 1970), level, event, and the fields of the event. Other libraries' records get
    `message` alone."""

    def format(self, record: logging.LogRecord) -> str:
        """One line without a line feed in it."""
        out: dict[str, object] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        fields = getattr(record, _FIELDS, None)
        if isinstance(fields, dict):
            out |= {"event": getattr(record, "event", ""), **fields}
        else:
            out["message"] = record.getMessage()
        return json.dumps(out)
