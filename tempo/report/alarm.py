"""The last word of a run in which a worker answered falsely: on standard error, in red."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from tempo.report.session import Report


def alarm(report: Report) -> str | None:
    """What to say, or None where every reply passed its check and no worker broke the protocol."""
    if not report.checks_failed and not report.quarantined:
        return None
    names = ", ".join(report.quarantined) or "not known"
    what = f"{report.checks_failed} of {report.checks} checks failed"
    if not report.checks_failed:
        what = "a worker broke the protocol"
    return (
        f"INTEGRITY: {what}. Workers: {names}. No such reply was used: the work was done again elsewhere, or "
        "the run ended with an error. What to do: take these workers out of your settings (or "
        "session.remove_worker), rent no more from their operator without an explanation, and keep the audit "
        "log, the session's report and this run's log as evidence."
    )


def sound(report: Report) -> None:
    """Print it, if there is anything to say."""
    if (words := alarm(report)) is not None:
        console = Console(file=sys.stderr, highlight=False)
        console.print(f"[bold red]{escape(words)}[/bold red]", soft_wrap=True)
