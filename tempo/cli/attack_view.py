"""How `tempo attack` is seen: progress on standard error, a table on standard output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tempo.attacks.suite.report import SHORT, short
from tempo.attacks.suite.rows import Picture, Result, Row
from tempo.attacks.suite.run import Watcher
from tempo.cli.output import stdout

#: Text columns of the table; the rest are figures.
_TEXT: Final = ("attack", "reference", "scheme", "operand", "verdict")
#: Left out below so many columns of a terminal.
_WIDE: Final = ("clear", "interval", "n")
_COMFORT: Final = 110
_STYLES: Final = {"broken": "red", "leaks": "yellow", "holds": "green", "visible": "cyan", "skipped": "dim"}


@final
class Screen(Watcher):
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("attacks"),
            BarColumn(bar_width=40),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def begin(self, runs: int) -> None:
        self._task = self._progress.add_task("attacks", total=runs, what="")

    def running(self, what: str, limit_s: float = math.inf) -> None:
        if self._task is not None:
            self._progress.update(self._task, what=what)

    def done(self, rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> None:
        if self._task is not None:
            self._progress.advance(self._task)
        if not self._progress.console.is_terminal:  # a bar is drawn on terminals alone: logs get lines
            for row in rows:
                operand = "" if row.finding is None else f", {row.finding.operand}"
                self.say(
                    f"{row.reference}, {row.scheme}, {row.attack}{operand}: {row.verdict} {row.why}".strip()
                )


def show(result: Result) -> None:
    """A table for people, and why what was not run was not. Notes and details are in the JSON."""
    console = stdout()
    run = [row for row in result.rows if row.finding is not None]
    every = [dict(zip(SHORT, map(escape, short(row)), strict=True)) for row in run]
    # What is the same everywhere is said once, and a narrow terminal gets the columns that decide.
    same = [name for name in ("reference", "scheme") if len({row[name] for row in every}) == 1]
    left_out = {*same, *(_WIDE if console.width < _COMFORT else ())}
    columns = [name for name in SHORT if name not in left_out]
    title = ", ".join(["What each attack found", *(f"{name} {every[0][name]}" for name in same)])
    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    for row in every:
        style = _STYLES.get(row["verdict"], "")
        verdict = f"[{style}]{row['verdict']}[/{style}]" if style else row["verdict"]
        made.add_row(*(verdict if name == "verdict" else row[name] for name in columns))
    if run:
        console.print(made)
    for each in result.rows:
        if each.finding is None:
            of = f"{each.attack} ({each.reference}, {each.scheme})"
            console.print(f"{each.verdict}: {of}: {each.why}", markup=False, soft_wrap=True)
