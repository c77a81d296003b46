"""What a session enters in the audit log.

    session_opened      Tempo's version, scheme, workers
    configuration       every setting that is not the default
    integrity_failure   a reply failed its check, or broke the protocol: worker, what was done
    worker_event        lost, late, quarantined, back, refused
    session_closed      counts: checks, failures, retries, bytes, events that were only counted

A failure is on disk before the run goes on: where the log cannot be written, nothing goes on without it. A
worker that misbehaves for days must not fill the disk, so of each worker so many events are entered, the rest
is counted. Of its failures as many again: no number of other events keeps one out. Evictions, hedging and
retries are daily business, counted too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, final

from tempo.errors import TempoError
from tempo.fleet import Event, EventKind
from tempo.trust.ledger.entry import Kind, Value
from tempo.trust.ledger.ledger import Ledger

#: Events of one worker that are entered one by one.
EACH: Final = 1000

_FAILURES: Final = frozenset({EventKind.CHECK_FAILED, EventKind.PROTOCOL})
_COUNTED: Final = frozenset({EventKind.EVICTED, EventKind.HEDGED, EventKind.RETRIED})


@final
class SessionLog:
    """Thread-safe. Opening it enters the session."""

    def __init__(self, ledger: Ledger, version: str, settings: Mapping[str, Any], workers: list[str]) -> None:
        """settings: those that differ from the defaults, `scheme` always."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._entered: Counter[tuple[str, bool]] = Counter()
        self._only_counted: Counter[str] = Counter()
        self._closed = False
        scheme = str(settings["scheme"])
        ledger.append(Kind.SESSION_OPENED, version=version, scheme=scheme, workers=[w[:200] for w in workers])
        ledger.append(Kind.CONFIGURATION, **{name: _plain(value) for name, value in settings.items()})

    def event(self, event: Event) -> None:
        """Raises OutsideError where the log cannot be written."""
        failure = event.kind in _FAILURES
        whose = (event.worker, failure)
        with self._lock:
            enter = event.kind not in _COUNTED and self._entered[whose] < EACH
            if not enter:
                self._only_counted[event.kind.value] += 1
                return
            self._entered[whose] += 1
        kind = Kind.INTEGRITY_FAILURE if failure else Kind.WORKER_EVENT
        fields = {"event": event.kind.value, "worker": event.worker[:200], "detail": event.detail[:900]}
        try:
            self._ledger.append(kind, **fields)
        except TempoError:
            self._closed = True  # one error is enough: the run ends by this one
            raise

    def checkpoint(self, name: str, step: int) -> None:
        """Raises OutsideError where the log cannot be written."""
        self._ledger.append(Kind.CHECKPOINT_WRITTEN, name=name, step=step)

    def resumed(self, name: str, step: int) -> None:
        """As `checkpoint`."""
        self._ledger.append(Kind.CHECKPOINT_RESUMED, name=name, step=step)

    def newest_checkpoint(self, name: str) -> int:
        """Step of the newest checkpoint of that name that the log knows, 0 for none."""
        written = (e for e in self._ledger.entries() if e.kind is Kind.CHECKPOINT_WRITTEN)
        return max(
            (s for e in written if e.fields["name"] == name and isinstance(s := e.fields["step"], int)),
            default=0,
        )

    def close(self, counts: Mapping[str, int]) -> None:
        """Enter the end, unless the log failed before. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            counted = {f"only_counted_{kind}": n for kind, n in self._only_counted.items()}
        self._ledger.append(Kind.SESSION_CLOSED, **{**counts, **counted})


def _plain(value: Any) -> Value:
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)[:900]
