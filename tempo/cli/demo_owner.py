"""`tempo demo --owner` on a terminal: numbered steps as they are done, a bar while one takes its time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from tempo.cli.guide import say_next
from tempo.cli.output import print_json, result_folder, stderr, stdout, writing

if TYPE_CHECKING:
    from tempo.demo.owner.settings import Settings
    from tempo.demo.owner.story import Outcome
    from tempo.demo.owner.telling import Row

#: Lines that are longer are hard to read, however wide the terminal is.
_WIDTH: Final = 100
_INDENT: Final = " " * 6


def owner(settings: Settings, out: Path, *, as_json: bool) -> None:
    """Run the story and print it. Raises typer.Exit with 1 where a promise was not kept."""
    from tempo.demo.owner import story

    result_folder(out)
    with Screen(None if as_json else stdout()) as screen:
        outcome = story.run(settings, screen)
    with writing(out):
        paths = story.write(outcome, out)
    if as_json:
        print_json(outcome.fields())
    else:
        _close(outcome, paths)
    for promise in outcome.broken:
        stderr().print(f"Not kept: {promise}", style="red", markup=False, soft_wrap=True)
    if outcome.broken:
        raise typer.Exit(1)


@final
class Screen:
    """Steps that are done on `console`; what is under way on standard error, where that is a terminal."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def open(self, cast: list[str]) -> None:
        if self._console is not None:
            self._console.print(Text("Rent the box out, keep the keys at home", style="bold"))
            for text in cast:
                self._console.print(text, markup=False)

    def begin(self, number: int, title: str) -> None:
        # Not redirected: what is done goes to standard output, wherever that leads.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=stderr(),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not stderr().is_terminal,
        )
        self._progress.start()
        # What follows, and how it came out, has its place in the finished step: here the bar needs it.
        short = re.split("[,:]", title)[0]
        self._task = self._progress.add_task(f"{number:2} {short}", total=None, note="")

    def progress(self, done: int, total: int, note: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, note=f"{done}/{total} {note}")

    def end(self, row: Row) -> None:
        self._stop()
        if self._console is not None:
            show(self._console, row)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def show(console: Console, row: Row) -> None:
    """One step: number, tick, title and time; below, what was shown, and the words of whoever refused."""
    width, utf8 = min(console.width, _WIDTH), console.encoding.lower().replace("-", "") == "utf8"
    tick, cross, quoted = ("\u2713", "\u2717", "\u201c{}\u201d") if utf8 else ("+", "!", '"{}"')
    seconds = f"{row.seconds:.1f} s"
    head = Text.assemble(
        f"{row.number:3} ",
        (tick, "green") if row.kept else (cross, "bold red"),
        " ",
        (row.title, "bold"),
    )
    head.append(seconds.rjust(max(1 + len(seconds), width - head.cell_len)), "dim")
    console.print()
    console.print(head, soft_wrap=True)
    for text in row.shown.says:
        _indented(console, Text(text), width)
    if row.shown.message:
        _indented(console, Text(quoted.format(row.shown.message), "yellow"), width)
    for text in row.shown.broken:
        _indented(console, Text(f"Not kept: {text}", "red"), width)


def _indented(console: Console, text: Text, width: int) -> None:
    for line in text.wrap(console, width - len(_INDENT)):
        line.rstrip()
        console.print(Text(_INDENT) + line, soft_wrap=True)


def _close(outcome: Outcome, paths: list[Path]) -> None:
    console = stdout()
    console.print()
    kept = sum(row.kept for row in outcome.rows)
    console.print(f"{kept} of {len(outcome.rows)} steps as promised, {outcome.seconds:.0f} s in all.")
    if outcome.settings.unsafe_simulator:
        console.print(
            "The simulator vouches for nothing: anybody can say what it says. With swtpm the same steps rest "
            "on a TPM's signature.",
            style="yellow",
        )
    console.print(f"Written: {', '.join(map(str, paths))}", markup=False, soft_wrap=True)
    if outcome.papers:
        papers = paths[-1]
        for whose in ("vault", "master"):
            say_next("tempo", "log", "verify", f"{papers}/{whose}-log", "--key", f"{papers}/{whose}-log.pub")
