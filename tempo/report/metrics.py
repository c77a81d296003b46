"""Counters of a session in Prometheus's text format (version 0.0.4), with no library: a few lines of text.

    name{label="value"} number

Names are ours, label values are names of workers, kinds of events and parts of the master's work. Write it to
a file for node_exporter's textfile collector, or answer GET /metrics with it (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tempo.fleet import EventKind
from tempo.fleet import Stats as FleetStats

#: Ours: count in the session's counters, its name for Prometheus, help.
_COUNTS: Final = (
    ("checks", "tempo_checks_total", "Replies that were checked."),
    (
        "checks_failed",
        "tempo_checks_failed_total",
        "Replies that were false and not used. Above 0: an alarm.",
    ),
    ("steps", "tempo_steps_total", "Steps of an optimizer while the session was watched."),
    ("products", "tempo_products_total", "Products sent to workers, gradients among them."),
    (
        "local_fallbacks",
        "tempo_local_fallbacks_total",
        "Pieces that the master computed for want of workers.",
    ),
)
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(
    counts: Mapping[str, int], seconds: Mapping[str, float], fleet: FleetStats, usable: int
) -> str:
    """counts, seconds: of the session's Stats. usable: workers that may get a job now."""
    lines: list[str] = []
    for key, name, words in _COUNTS:
        lines += _family(name, "counter", words, [({}, counts.get(key, 0))])
    kinds = [({"kind": kind.value}, counts.get(f"event_{kind.value}", 0)) for kind in EventKind]
    lines += _family("tempo_events_total", "counter", "Events of the fleet by kind.", kinds)
    lines += _family("tempo_retries_total", "counter", "Jobs that were redone.", [({}, fleet.retries)])
    operands = [({"operand": o}, counts.get(f"encoded_{o}", 0)) for o in ("x", "w", "dy")]
    lines += _family("tempo_encodings_total", "counter", "Operands that were hidden.", operands)
    lines += _family("tempo_sent_bytes_total", "counter", "Bytes to workers.", [({}, fleet.bytes_sent)])
    lines += _family(
        "tempo_received_bytes_total", "counter", "Bytes from workers.", [({}, fleet.bytes_received)]
    )
    jobs = [({"worker": name}, n) for name, n in fleet.jobs.items()]
    lines += _family("tempo_jobs_total", "counter", "Jobs that a worker answered.", jobs)
    busy = [({"worker": name}, s) for name, s in fleet.busy_seconds.items()]
    lines += _family("tempo_busy_seconds_total", "counter", "Seconds that a worker had a job.", busy)
    parts = [({"part": part}, s) for part, s in sorted(seconds.items())]
    lines += _family("tempo_master_seconds_total", "counter", "Seconds of the master by part.", parts)
    lines += _family("tempo_workers_usable", "gauge", "Workers that may get a job now.", [({}, usable)])
    return "\n".join(lines) + "\n"


def _family(
    name: str, kind: str, words: str, samples: Sequence[tuple[dict[str, str], int | float]]
) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        yield f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"
