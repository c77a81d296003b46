"""A line on standard error that says how far it is and how the workers do."""

from __future__ import annotations

import sys
from typing import final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tempo.watch.figures import Figures
from tempo.watch.watch import Teller


@final
class Bar(Teller):
    """Shown where standard error is a terminal, nothing elsewhere. What the script prints stays where it was
    printed to; on the same terminal it goes above the line."""

    def __init__(self, begin: Figures) -> None:
        console = Console(file=sys.stderr, highlight=False)
        self._begin = begin
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.completed} steps"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            # Else rich would send to standard error what belongs into a file or pipe.
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def step(self, number: int, now: Figures) -> None:
        self._progress.update(self._task, advance=1, description=words(self._begin, now))

    def close(self) -> None:
        self._progress.stop()


def words(begin: Figures, now: Figures) -> str:
    """What the line says beside the number of steps."""
    added = now.since(begin)
    failed = int(added["checks_failed_total"])
    return (
        f"{added['sent_bytes'] / 1e6:,.0f} MB sent, {added['received_bytes'] / 1e6:,.0f} MB received, "
        f"{int(added['checks']):,} checks, {f'{failed} FAILED' if failed else 'none failed'}, "
        f"{now.usable} workers"
    )
