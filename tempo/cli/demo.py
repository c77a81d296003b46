"""`tempo demo`: plain and protected training side by side, with a liar and a kill in the middle."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tempo.cli import demo_owner
from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import print_json, result_folder, stderr, stdout, table, writing
from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.demo.run import Outcome

_LEAST_STEPS = 20


class SchemeName(StrEnum):
    mixing = "mixing"
    monomial = "monomial"


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Fewer steps: under a minute on two cores.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes to start.")] = 2,
    scheme: Annotated[SchemeName, typer.Option(help="How operands are hidden.")] = SchemeName.mixing,
    steps: Annotated[
        int | None, typer.Option(min=_LEAST_STEPS, help="Training steps [default: 120, or 30 with --fast].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for demo.json and the pictures.")] = Path("demo-results"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with CIFAR-10's binary files, instead of MNIST.")
    ] = None,
    as_json: Json = False,
    seed: Annotated[int, typer.Option(help="Of parameters and batches; keys never depend on it.")] = 0,
    owner: Annotated[
        bool, typer.Option("--owner", help="The owner's story instead: vault, attested master, audit log.")
    ] = False,
    unsafe_simulator: Annotated[
        bool, typer.Option("--unsafe-simulator", help="With --owner: no software TPM; proves nothing.")
    ] = False,
) -> None:
    """Train a small ResNet plainly, then on untrusted workers, one of which lies and one is killed."""
    if find_spec("matplotlib") is None:  # an optional extra, missed now and not after two minutes
        raise UsageError("the demo draws with matplotlib: pip install 'tempo-confidential[demo]'")
    if unsafe_simulator and not owner:
        raise UsageError("--unsafe-simulator is for --owner alone: nothing else of the demo is attested")
    if owner:
        from tempo.demo.owner import settings as owner_settings

        return demo_owner.owner(
            owner_settings.Settings(
                steps=steps or (owner_settings.FAST_STEPS if fast else owner_settings.FULL_STEPS),
                workers=workers,
                scheme=scheme.value,
                seed=seed,
                data_dir=data_dir,
                unsafe_simulator=unsafe_simulator,
            ),
            out,
            as_json=as_json,
        )
    from tempo.demo import run as story

    settings = story.Settings(
        steps=steps or (story.FAST_STEPS if fast else story.FULL_STEPS),
        test_count=story.FAST_TEST_COUNT if fast else story.FULL_TEST_COUNT,
        workers=workers,
        scheme=scheme.value,
        seed=seed,
        out=out,
        data_dir=data_dir,
    )
    result_folder(out)
    with _Screen() as screen:
        outcome = story.run(settings, screen)
    with writing(out):
        paths = story.write(outcome, out)
    if as_json:
        print_json(outcome.fields())
    else:
        _print(outcome, paths)
    for promise in outcome.broken:
        stderr().print(f"[red]Not kept:[/red] {promise}", soft_wrap=True)
    if outcome.broken:
        raise typer.Exit(1)


@final
class _Screen:
    """Progress bars and notices on standard error."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=40),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[loss]}"),
            console=stderr(),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def begin(self, phase: str, steps: int) -> None:
        self._task = self._progress.add_task(phase, total=steps, loss="")

    def step(self, step: int, loss: float) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=step + 1, loss=f"loss {loss:.3f}")

    def end(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)


def _print(outcome: Outcome, paths: list[Path]) -> None:
    report, console = outcome.report, stdout()
    steps = outcome.settings.steps
    rows: list[tuple[object, ...]] = [
        ("accuracy on test images", f"{outcome.plain.accuracy:.2%}", f"{outcome.tempo.accuracy:.2%}"),
        ("last loss", f"{outcome.plain.losses[-1]:.4f}", f"{outcome.tempo.losses[-1]:.4f}"),
        ("greatest loss difference", "", f"{max(outcome.differences):.2g}"),
        ("  allowed at most", "", f"{max(outcome.allowed):.2g}"),
        (
            "seconds per step",
            f"{outcome.plain.seconds / steps:.3f}",
            f"{outcome.tempo.seconds / steps:.3f}",
        ),
        ("encodings per step", "", f"{outcome.encodings_per_step:g}"),
        ("  without key shift", "", f"{outcome.encodings_without_key_shift:g}"),
        ("sent, received", "", f"{report.bytes_sent / 1e6:,.0f} MB, {report.bytes_received / 1e6:,.0f} MB"),
        ("checks made, failed", "", f"{report.checks:,}, {report.checks_failed:,}"),
        ("lies told, caught", "", f"{outcome.lies_told}, {report.checks_failed}"),
        ("quarantined", "", ", ".join(report.quarantined) or "none"),
        ("jobs redone", "", f"{report.retries:,}"),
    ]
    rows += [
        (f"seconds: {part}", "", f"{taken:.1f}")
        for part, taken in sorted(report.seconds.items(), key=lambda each: -each[1])
    ]
    title = f"ResNet of {outcome.parameters:,} parameters on {outcome.images}, {steps} steps"
    console.print(table(title, ["", "plain PyTorch", "Tempo"], rows))
    console.print(
        f"The same training, {outcome.seconds:.0f} s in all. Written: {', '.join(map(str, paths))}",
        soft_wrap=True,
    )
    say_next("tempo", "report", outcome.settings.out)
