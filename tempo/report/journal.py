"""What became of each event of a session: kept for the report, counted, logged, entered in the audit log."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, final

from tempo.fleet import Event, EventKind
from tempo.report.log import log_event, log_line
from tempo.stats import Stats
from tempo.trust.ledger import SessionLog

#: A worker that misbehaves for days must not fill the master's memory: the latest are kept.
_EVENTS: Final = 10_000

#: Of a report: what the last line of a session says.
COUNTS: Final = ("checks", "checks_failed", "retries", "local_fallbacks", "bytes_sent", "bytes_received")

_CAUGHT: Final = frozenset({EventKind.CHECK_FAILED, EventKind.PROTOCOL})


@final
class Journal:
    """`note` may be called from any thread. What is counted under event_KIND goes into checkpoints too."""

    def __init__(self, stats: Stats, log: SessionLog | None) -> None:
        self._stats = stats
        self._log = log
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._caught: set[str] = set()

    def attach(self, log: SessionLog) -> None:
        """From now on events are entered in the audit log too."""
        self._log = log

    def note(self, event: Event) -> None:
        """Raises OutsideError where the audit log cannot be written: nothing goes on without it."""
        self._events.append(event)
        self._stats.add(f"event_{event.kind.value}")
        if event.kind in _CAUGHT:
            self._caught.add(event.worker)
        log_event(event)
        if self._log is not None:
            self._log.event(event)

    def opened(self, version: str, scheme: str, workers: int) -> None:
        fields = {"version": version, "scheme": scheme, "workers": workers}
        log_line(logging.INFO, "session_opened", f"scheme {scheme}, {workers} workers", fields)

    def checkpoint(self, event: str, name: str, step: int) -> None:
        """event: checkpoint_written or checkpoint_resumed. name: the file's, without folders."""
        log_line(logging.INFO, event, f"{name} at step {step}", {"name": name, "step": step})

    def closed(self, counts: dict[str, int]) -> None:
        """The last line: an ERROR if a check ever failed."""
        level = logging.ERROR if counts["checks_failed"] or self._caught else logging.INFO
        words = f"{counts['checks']} checks, {counts['checks_failed']} failed"
        log_line(level, "session_closed", words, counts)
        if self._log is not None:
            self._log.close(counts)

    @property
    def events(self) -> list[Event]:
        return list(self._events)

    @property
    def caught(self) -> list[str]:
        """Names of workers that failed a check or broke the protocol."""
        return sorted(self._caught)
