"""The report of a session, put together from what counted and noted while it ran."""

from __future__ import annotations

from collections.abc import Collection

from tempo.config import Config
from tempo.fleet import Fleet
from tempo.integrity import Verifier
from tempo.nn.placement import Account
from tempo.report.journal import Journal
from tempo.report.notes import session_notes, with_visible
from tempo.report.session import Report
from tempo.sharing import Owners
from tempo.stats import Stats


def report_of(
    config: Config,
    stats: Stats,
    fleet: Fleet | Owners,
    account: Account,
    journal: Journal,
    verifier: Verifier | None,
    *,
    public: Collection[str],
    truth: bool,
) -> Report:
    """Up to now. public: modules whose weights were declared public. truth: plain operands were written
    down."""
    figures = fleet.stats
    return Report(
        scheme=config.scheme,
        key_shift=config.key_shift,
        rows=with_visible(account.rows(), config, public),
        encodings=sum(stats.count(f"encoded_{operand}") for operand in ("x", "w", "dy")),
        encodings_without_key_shift=2 * stats.count("products"),
        bytes_sent=figures.bytes_sent,
        bytes_received=figures.bytes_received,
        checks=stats.count("checks"),
        checks_failed=stats.count("checks_failed"),
        retries=figures.retries,
        local_fallbacks=stats.count("local_fallbacks"),
        quarantined=journal.caught,
        seconds=stats.seconds,
        events=journal.events,
        notes=session_notes(config, stats, fleet, public=public, truth=truth),
        integrity=[] if verifier is None else verifier.guarantees(config.miss),
        settings=config.chosen(),
        jobs=dict(figures.jobs),
    )
