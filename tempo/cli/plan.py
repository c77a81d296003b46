"""`tempo plan`: what is worth sending, what it takes and what it costs, before anything runs."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tempo.cli.guide import say_next
from tempo.cli.options import Json
from tempo.cli.output import document, print_json, stderr, stdout
from tempo.cli.pages import Language, ready_for_pages, write_plan
from tempo.cli.tls import Crl, require_certificates, tls_files
from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.plan.measure import Comparison
    from tempo.plan.money import Option, Prices

_TOML = Path("tempo.toml")


class SchemeName(StrEnum):
    mixing = "mixing"
    monomial = "monomial"
    shares = "shares"


class PlacementName(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:factory, script.py:factory (returns a module and example inputs), mlp:WIDTHxDEPTH, "
            "resnet50, vit-b16 or gpt2.",
        ),
    ],
    workers: Annotated[
        str, typer.Option(help="Workers to measure, as of Session; commas part them.")
    ] = "local:2",
    scheme: Annotated[SchemeName, typer.Option(help="How operands are hidden.")] = SchemeName.mixing,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of a step.")] = None,
    inference: Annotated[
        bool, typer.Option("--inference", help="Requests instead of training steps.")
    ] = False,
    placement: Annotated[
        PlacementName, typer.Option(help="auto: what is quicker. always: all that may be sent.")
    ] = PlacementName.auto,
    wire: Annotated[
        str, typer.Option(help="What operands are sent in, as the session's setting: fp32, bf16.")
    ] = "fp32",
    arithmetic: Annotated[
        str, typer.Option(help="What workers may round them to, as the setting: fp32, tf32, bf16.")
    ] = "fp32",
    keep: Annotated[list[str] | None, typer.Option(help="Modules that stay, as protect takes them.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Figures of another run; measures nothing.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the figures measured, for --calibration.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run some real steps too, and compare.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of --measure.")] = 3,
    samples: Annotated[int | None, typer.Option(min=1, help="Of an epoch: prices one.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of a pilot: gives it a budget.")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="TOML file with a [prices] table [default: tempo.toml, if there].")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Of all prices.")] = None,
    tee_per_hour: Annotated[float | None, typer.Option(help="Price of the TEE's machine.")] = None,
    gpu_per_hour: Annotated[float | None, typer.Option(help="Price of one worker's machine.")] = None,
    confidential_gpu_per_hour: Annotated[
        float | None, typer.Option(help="Price of a machine with a confidential GPU.")
    ] = None,
    egress_per_gb: Annotated[
        float | None, typer.Option(help="Price of 10^9 bytes that leave a machine.")
    ] = None,
    gpu_flops: Annotated[
        float | None, typer.Option(help="Flop/s a GPU reaches on this model [default: as measured].")
    ] = None,
    confidential_slowdown: Annotated[
        float | None, typer.Option(help="Step time of a confidential GPU against a plain one.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="The master's certificate, PEM, for remote workers.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The authority that signs workers, PEM.")] = None,
    crl: Crl = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the plan as one HTML page, with the stages of adoption.")
    ] = None,
    language: Annotated[Language, typer.Option("--lang", help="That the page opens in.")] = Language.en,
    as_json: Json = False,
) -> None:
    """Say, layer by layer, what is quicker at the workers, and what a step takes and costs."""
    if page is not None:
        ready_for_pages(page)
    if calibration is not None and save is not None:
        raise UsageError(
            "--save writes figures that are measured, --calibration measures none: leave one out"
        )
    shared = scheme is SchemeName.shares
    if shared and measure:
        raise UsageError(
            "--measure runs steps on workers of one owner, scheme shares takes three: leave it out, or train "
            "and read the session's report"
        )
    files = tls_files(cert, key, ca, crl)
    needed = calibration is None or measure
    if needed:
        require_certificates(workers.split(","), files)
    money = _prices(
        prices,
        currency=currency,
        tee_per_hour=tee_per_hour,
        gpu_per_hour=gpu_per_hour,
        confidential_gpu_per_hour=confidential_gpu_per_hour,
        egress_per_gb=egress_per_gb,
        gpu_flops_per_second=gpu_flops,
        confidential_slowdown=confidential_slowdown,
    )
    import torch

    from tempo.cli.plan_view import show
    from tempo.config import Config
    from tempo.facade import Session
    from tempo.plan.adoption import Facts, adoption
    from tempo.plan.breakeven import break_even
    from tempo.plan.machine import Machine
    from tempo.plan.measure import measure as compare
    from tempo.plan.models import load
    from tempo.plan.money import epoch_costs
    from tempo.plan.plan import make_plan
    from tempo.plan.trace import trace
    from tempo.report import verdicts
    from tempo.secrecy.visible import worst

    # A session of shares does not place by figures; this plan does.
    config = Config(
        scheme=scheme.value,
        placement="always" if shared else placement.value,
        wire=wire,
        arithmetic=arithmetic,
    )
    protect: dict[str, Any] = {"keep": keep or ()}
    machine = Machine.load(calibration) if calibration is not None else None
    network, inputs, size = load(model, batch)
    _say(f"operations of {model}")
    found = trace(network, inputs, config, inference=inference, **protect)
    # Workers and links are the same to every scheme, and figures say nothing of owners.
    measuring = config.with_options(scheme=SchemeName.mixing.value) if shared else config
    with Session(workers.split(","), tls=files, config=measuring) if needed else nullcontext() as session:
        if session is not None:
            _say("measuring the TEE, the links and the workers" if machine is None else "starting workers")
            machine = session.calibrate(machine, schemes=[scheme.value])
        assert machine is not None, "loaded or measured"
        if save is not None:
            machine.save(save)
        made = make_plan(found, machine, config, default=placement.value)
        comparisons: list[Comparison] = []
        if measure and session is not None:
            comparisons = compare(
                session,
                network,
                inputs,
                made,
                inference=inference,
                steps=steps,
                protect=protect,
                say=_say,
            )
    options: list[Option] = []
    step_bytes = made.bytes_up + made.bytes_down
    paid = len(machine.workers) if made.offloaded else 0
    if samples is not None:
        form = config.precision.best(torch.float32, delicate=False)
        fastest = max(w.rate("product", form) for w in machine.workers)
        options = epoch_costs(
            money,
            samples=samples,
            batch=size,
            tee_step_seconds=made.tee_seconds,
            tempo_step_seconds=made.tempo_seconds,
            step_flops=made.flops,
            step_bytes=step_bytes,
            workers=paid,
            worker_flops_per_second=fastest,
        )
    epoch_bytes = step_bytes * ceil((samples or 0) / size)
    even = break_even(money, options, workers=paid, epoch_bytes=epoch_bytes)
    facts = Facts(
        model=model,
        plan=made,
        scheme=scheme.value,
        inference=inference,
        wire=wire,
        arithmetic=arithmetic,
        leakage_class=worst(code for row in made.rows for code in row.visible),
        batch=size,
        samples=samples,
        epochs=epochs,
        options=options,
        even=even,
        comparisons=comparisons,
    )
    fields = document(
        "plan",
        [*(row.fields() for row in made.rows), *(row.fields() for row in made.kept)],
        model=model,
        scheme=scheme.value,
        placement=placement.value,
        inference=inference,
        wire=wire,
        arithmetic=arithmetic,
        batch=size,
        calibration=_figures(machine),
        totals=made.totals(),
        measured=[each.fields() for each in comparisons],
        money=[each.fields(money.currency) for each in options],
        break_even=[each.fields(money.currency) for each in even],
        adoption=[stage.fields() for stage in adoption(facts)],
        currency=money.currency,
        attacks={"note": verdicts.note(config), "verdicts": verdicts.findings(config.scheme)},
    )
    if page is not None:
        write_plan(fields, page, language)
    if as_json:
        print_json(fields)
    else:
        show(stdout(), made, fields)
        _next(model, scheme)


def _next(model: str, scheme: SchemeName) -> None:
    given, named, _ = model.rpartition(":")
    found = ("--fast", "--out", "found")
    if not named or given == "mlp":
        return say_next("tempo", "attack", "--reference", "mlp", "--scheme", scheme.value, *found)
    stdout().print(
        f"What workers could learn of it: give {given} a function subject() that returns the model and some "
        "batches (docs/secrecy.md), then",
        markup=False,
        soft_wrap=True,
    )
    say_next("tempo", "attack", "--script", f"{given}:subject", "--scheme", scheme.value, *found)


def _figures(machine: Any) -> dict[str, Any]:
    import msgspec

    figures: dict[str, Any] = msgspec.to_builtins(machine)
    return figures


def _prices(path: Path | None, **options: Any) -> Prices:
    from tempo.plan.money import Prices

    if path is None and _TOML.is_file():
        path = _TOML
    return (Prices() if path is None else Prices.load(path)).with_options(**options)


def _say(text: str) -> None:
    stderr().print(f"{text} ...", markup=False, soft_wrap=True)
