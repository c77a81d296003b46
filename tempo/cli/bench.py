"""`tempo bench SUITE`: measured against its roofline and its baselines, in one run."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tempo.cli.failures import ended_in_json
from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, result_folder, stderr, stdout, table, to_json, writing
from tempo.errors import TempoError, UsageError

if TYPE_CHECKING:
    from tempo.bench.result import Result
    from tempo.bench.trace import Tracer


class SuiteName(StrEnum):
    kernels = "kernels"
    layers = "layers"
    paper = "paper"
    generate = "generate"
    crypto = "crypto"
    scale = "scale"
    chaos = "chaos"
    integrity = "integrity"
    frontier = "frontier"
    serve = "serve"
    seal = "seal"


#: Of a table that is not shown in a terminal.
_FILE_COLUMNS = 200
#: Suites without a protected step of their own here.
_NO_STEP = frozenset(
    {
        *(SuiteName.kernels, SuiteName.chaos, SuiteName.integrity, SuiteName.frontier),
        *(SuiteName.serve, SuiteName.seal),
    }
)


def bench(
    suite: Annotated[SuiteName, typer.Argument(help="What to measure: docs/bench.md.")],
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, report and pictures.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Small shapes, few repeats.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Timeline of the first protected step: .png, .svg, .pdf or .json.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="1,2,4: so many processes; 1@cuda:0: on a device; cuda:0: in-process.")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="mixing, monomial, unsafe_none, separated by commas.")
    ] = None,
    arithmetic: Annotated[
        str, typer.Option(help="Of protected products: fp32, tf32, bf16, separated by commas.")
    ] = "fp32",
    only: Annotated[
        str | None,
        typer.Option(help="layers, paper, integrity: those cases alone whose name contains this text."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the master [default: all cores].")] = None,
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds; what does not fit is listed as skipped.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="paper: folder with CIFAR-10's binary files, instead of MNIST.")
    ] = None,
    recorded: Annotated[
        Path | None, typer.Option(help="crypto: recorded figures of the other systems.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="chaos: of training while workers fail.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="chaos: of what fails when.")] = None,
) -> None:
    """Measure passes, layers, models, generation, a service, scaling or secrecy against baselines of the same
    run; sealed data; integrity; or whether training survives chaos. Exit 1: a promise was not kept."""
    if find_spec("matplotlib") is None and (out or (trace and trace.suffix != ".json")):
        raise UsageError("pictures are drawn with matplotlib: pip install 'tempo-confidential[demo]'")
    import torch

    from tempo.bench.trace import Tracer

    if threads is not None:
        torch.set_num_threads(threads)
    given = _given(suite, workers, scheme, arithmetic, only, budget, data_dir, recorded, minutes, seed)
    tracer = Tracer(trace) if trace is not None else None
    if tracer is not None and suite in _NO_STEP:
        raise UsageError(
            f"--trace shows a protected step, and bench {suite.value} runs none here: bench layers does"
        )
    result_folder(out)
    result = _run(suite, fast, given, tracer)
    fields = document(f"bench {suite.value}", result.rows, **result.more())
    if out is not None:
        _write(out, fields, result)
    if as_json:
        print_json(fields)
    else:
        show(result)
    if tracer is not None:  # last: where no step was traced, what was measured has been shown
        tracer.write()
        stderr().print(f"Written: {tracer.path}", markup=False, soft_wrap=True)
    if suite is SuiteName.chaos and not all(row["passed"] for row in result.rows):
        raise typer.Exit(1)
    if result.broken:
        error = TempoError(f"a promise was not kept: {'; '.join(result.broken)}")
        if not as_json:
            raise error
        ended_in_json(error)
    if out is not None and suite is SuiteName.layers and not as_json:
        say_next("tempo", "report", "run.json", "--bench", out)


def _given(
    suite: SuiteName,
    workers: str | None,
    scheme: str | None,
    arithmetic: str,
    only: str | None,
    budget: float | None,
    data_dir: Path | None,
    recorded: Path | None,
    minutes: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """What the user chose, as fields of the suite's Settings."""
    from tempo.bench.crew import Crew
    from tempo.bench.variant import variants

    given: dict[str, Any] = {}
    if suite is SuiteName.integrity:
        if workers is not None or arithmetic != "fp32" or scheme is not None:
            raise UsageError(
                "bench integrity has workers of its own, in every arithmetic and scheme: without --workers, "
                "--arithmetic, --scheme"
            )
    elif suite is SuiteName.frontier:
        if workers is not None or scheme is not None or arithmetic != "fp32":
            raise UsageError("bench frontier has settings of its own: no --workers, --scheme, --arithmetic")
        _attacking()
    elif suite is SuiteName.seal:
        if workers is not None or scheme is not None or arithmetic != "fp32":
            raise UsageError("bench seal computes no product: without --workers, --scheme, --arithmetic")
    elif suite is SuiteName.kernels:
        if workers is not None or arithmetic != "fp32":
            raise UsageError(
                "bench kernels measures passes of the master in float32: without --workers, --arithmetic"
            )
        if scheme is not None:
            given["schemes"] = tuple(each.scheme for each in variants(scheme))
    elif suite is SuiteName.chaos:
        if scheme is not None or arithmetic != "fp32":
            raise UsageError("bench chaos compares losses in full precision: without --scheme, --arithmetic")
        if workers is not None:
            if not workers.isascii() or not workers.isdecimal() or not 1 <= int(workers) <= 16:
                raise UsageError("bench chaos starts 1 to 16 workers of its own: give their number")
            given["workers"] = int(workers)
    else:
        crews = Crew.parse_all(workers) if workers is not None else None
        if crews is not None and suite is SuiteName.crypto:
            if len(crews) > 1:
                raise UsageError("bench crypto takes one kind of workers")
            given["crew"] = crews[0]
        elif crews is not None:
            given["crews"] = crews
        if scheme is not None or arithmetic != "fp32":
            default = "mixing" if suite in (SuiteName.scale, SuiteName.serve) else "mixing,monomial"
            given["variants"] = variants(scheme or default, arithmetic)
    for name, value, suites in (
        ("only", only, {SuiteName.layers, SuiteName.paper, SuiteName.integrity}),
        ("budget_s", budget, set(SuiteName) - {SuiteName.crypto, SuiteName.chaos, SuiteName.seal}),
        ("data_dir", data_dir, {SuiteName.paper}),
        ("recorded", recorded, {SuiteName.crypto}),
        ("minutes", minutes, {SuiteName.chaos}),
        ("seed", seed, {SuiteName.chaos}),
    ):
        if value is not None and suite not in suites:
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            raise UsageError(
                f"{option} is nothing to bench {suite.value}: leave it out. It is for bench "
                f"{', '.join(each for each in SuiteName if each in suites)}"
            )
        if value is not None:
            given[name] = value
    return given


def _run(suite: SuiteName, fast: bool, given: dict[str, Any], tracer: Tracer | None) -> Result:
    from tempo.bench import chaos, crypto, generate, integrity, kernels, layers, paper, scale, serve

    match suite:
        case SuiteName.frontier:
            from tempo.bench import frontier  # needs the attacks' packages

            return frontier.run(replace(frontier.FAST if fast else frontier.Settings(), **given), say)
        case SuiteName.seal:
            from tempo.bench import seal

            return seal.run(replace(seal.FAST if fast else seal.Settings(), **given), say)
        case SuiteName.kernels:
            return kernels.run(replace(kernels.FAST if fast else kernels.Settings(), **given), say)
        case SuiteName.layers:
            return layers.run(replace(layers.FAST if fast else layers.Settings(), **given), say, tracer)
        case SuiteName.paper:
            return paper.run(replace(paper.FAST if fast else paper.Settings(), **given), say, tracer)
        case SuiteName.generate:
            return generate.run(replace(generate.FAST if fast else generate.Settings(), **given), say, tracer)
        case SuiteName.crypto:
            return crypto.run(replace(crypto.Settings(), **given), say, tracer)
        case SuiteName.scale:
            return scale.run(replace(scale.FAST if fast else scale.Settings(), **given), say, tracer)
        case SuiteName.chaos:
            return chaos.run(replace(chaos.FAST if fast else chaos.Settings(), **given), say)
        case SuiteName.serve:
            return serve.run(replace(serve.FAST if fast else serve.Settings(), **given), say)
        case SuiteName.integrity:
            return integrity.run(replace(integrity.FAST if fast else integrity.Settings(), **given), say)


def _attacking() -> None:
    for package in ("scipy", "sklearn"):
        if find_spec(package) is None:
            raise UsageError(f"attacks need {package}: pip install 'tempo-confidential[attack]'")


def say(text: str) -> None:
    """Progress, on standard error."""
    stderr().print(text, markup=False, soft_wrap=True)


def show(result: Result) -> None:
    """A table for people, and what to mind. Everything is in the JSON."""
    from tempo.bench.report import masters_table, short_table

    console = stdout()
    if not console.is_terminal:  # a file has no edge: else words are cut into columns of four letters
        console.width = max(console.width, _FILE_COLUMNS)
    console.print(table(f"bench {result.suite}", *short_table(result)))
    if (masters := masters_table(result))[1]:
        console.print(table("masters: the same training", *masters))
    for crew, known in result.constants.items():
        rates = ", ".join(f"{name} {value:.3g}" for name, value in known.items() if isinstance(value, float))
        console.print(f"workers {crew}: {rates}", markup=False)
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
    for each in result.skipped:
        console.print(f"skipped: {each['what']}: {each['why']}", markup=False)


def _write(out: Path, fields: dict[str, Any], result: Result) -> None:
    from tempo.bench.figures import draw
    from tempo.bench.report import markdown

    name = f"bench-{result.suite}"
    with writing(out):
        pictures = draw(result, out) if result.rows and result.suite != SuiteName.chaos else []
        (out / f"{name}.json").write_text(to_json(fields) + "\n")
        (out / f"{name}.md").write_text(markdown(fields, result, pictures))
    say(f"Written: {out / name}.json, {out / name}.md, {', '.join(map(str, pictures))}")
