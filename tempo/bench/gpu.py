"""One call on a machine with a GPU: is it right there, and what does it gain? `bench/gpu` is its script.

Correctness first, whatever it costs; then subsets of the suites `layers`, `paper` and `scale` within a
budget, with the device in this process and in worker processes. What does not fit is listed as skipped.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch

from tempo.bench import correctness, layers, paper, scale
from tempo.bench.budget import Budget
from tempo.bench.calibrate import SMALL
from tempo.bench.correctness import Finding
from tempo.bench.crew import Crew
from tempo.bench.layers import ConvCase, LinearCase
from tempo.bench.result import Result
from tempo.bench.timing import Repeats
from tempo.bench.variant import Variant, usable, variants
from tempo.cli.output import document, to_json
from tempo.errors import OutsideError, TempoError

#: Seconds of a call, all in.
DEFAULT_BUDGET: Final = 540.0

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. lies: as correctness.LIES. steps: of training for correctness. in_process, spawned: dtypes
    of that on the device in this process, and in a worker process."""

    device: str
    variants: tuple[Variant, ...]
    lies: Sequence[str]
    steps: int
    in_process: Sequence[torch.dtype]
    spawned: Sequence[torch.dtype]
    layers: layers.Settings
    paper: paper.Settings
    scale: scale.Settings

    @property
    def crews(self) -> tuple[Crew, Crew]:
        """The device in this process, and a worker process on it."""
        return Crew.parse(self.device), Crew.parse(f"1@{self.device}")


def full(device: str) -> Plan:
    crews = (Crew.parse(device), Crew.parse(f"1@{device}"))
    every = variants("mixing,monomial") + variants("mixing", "tf32,bf16")
    few = Repeats(least=1, most=5, seconds=1.0)
    return Plan(
        device,
        every,
        correctness.LIES,
        steps=8,
        in_process=correctness.DTYPES,
        spawned=correctness.DTYPES,
        layers=layers.Settings(
            cases=(
                LinearCase(25088, 768, 3072),
                LinearCase(8192, 4096, 4096),
                LinearCase(8192, 8192, 8192),
                ConvCase(64, 256, 28),
                *(LinearCase(8192, width, width) for width in (2048, 1024, 512)),
                ConvCase(64, 64, 56),
                LinearCase(65536, 4096, 4096),
            ),
            crews=crews,
            variants=every,
            repeats=few,
        ),
        paper=paper.Settings(
            cases=tuple(
                paper.Case(model, image, batch, trains)
                for image, batch in ((32, 128), (224, 64), (32, 512))
                for trains in (True, False)
                for model in ("ResNet-50", "ViT-B/16")
            ),
            crews=crews,
            variants=variants("mixing,monomial") + variants("mixing", "bf16"),
            repeats=few,
            offline=True,
        ),
        scale=scale.Settings(
            rows=8192,
            width=4096,
            doublings=2,
            crews=tuple(Crew.parse(f"{count}@{device}") for count in (1, 2, 4)),
            variants=variants("mixing"),
            training=None,  # `tempo bench scale --workers 1@cuda:0`: ten minutes are too few
            repeats=few,
        ),
    )


def fast(device: str) -> Plan:
    """The same code on small shapes: the test path."""
    crews, once = (Crew.parse(device), Crew.parse(f"1@{device}")), Repeats(1, 1, 0.1)
    only = variants("mixing")
    return Plan(
        device,
        only,
        ("flip_entry:2",),
        steps=2,
        in_process=correctness.DTYPES,
        spawned=(torch.float32,),
        layers=replace(
            layers.FAST, cases=(LinearCase(256, 128, 192),), crews=crews, variants=only, repeats=once
        ),
        paper=replace(
            paper.FAST,
            cases=(paper.Case("ViT, 1 block", 32, 8, True),),
            crews=crews[:1],
            variants=only,
            repeats=once,
            typical=(1, 256, 128, 128),
        ),
        scale=scale.Settings(
            rows=256,
            width=128,
            doublings=0,
            crews=crews[:1],
            variants=only,
            training=None,
            repeats=once,
            sizes=SMALL,
        ),
    )


def run(plan: Plan, seconds: float, say: Say) -> tuple[dict[str, Any], bool]:
    """The JSON object, and whether everything was right."""
    budget = Budget(seconds)
    findings: list[Finding] = []
    for finding in _correctness(plan, budget):
        findings.append(finding)
        say(f"{'right' if finding.passed else 'WRONG'}: {finding.check}: {finding.measured:.3g} "
            f"(at most {finding.allowed:.3g}; {finding.detail})")  # fmt: skip
    right = all(finding.passed for finding in findings)
    results: list[Result] = []
    errors: list[str] = []
    # Shares of what is left when each begins.
    for name, share, suite in (
        ("layers", 0.45, lambda part: layers.run(replace(plan.layers, budget_s=part), say)),
        ("paper", 0.75, lambda part: paper.run(replace(plan.paper, budget_s=part), say)),
        ("scale", 1.0, lambda part: scale.run(replace(plan.scale, budget_s=part), say)),
    ):
        if budget.left < 10:
            budget.skip(name, "no time is left")
            continue
        try:
            results.append(suite(budget.part(share).seconds))
        except (TempoError, RuntimeError) as error:
            # Ten minutes of a rented machine are not thrown away for one suite; the run is not right either.
            right = False
            errors.append(f"{name}: {type(error).__name__}: {error}")
            say(traceback.format_exc())
    rows = [{"suite": result.suite, **row} for result in results for row in result.rows]
    fields = document(
        "bench gpu",
        rows,
        command="bench/gpu " + " ".join(sys.argv[1:]),
        device=plan.device,
        correct=right,
        correctness=[finding.fields() for finding in findings],
        constants={result.suite: result.constants for result in results},
        notes=[f"{result.suite}: {note}" for result in results for note in result.notes],
        extra={result.suite: result.extra for result in results},
        skipped=[*budget.skipped, *(each for result in results for each in result.skipped)],
        errors=errors,
        environment=Result("", ()).more()["environment"],
        verification_share_of_step=verification(rows),
        seconds=budget.spent,
    )
    return fields, right


def _correctness(plan: Plan, budget: Budget) -> Iterator[Finding]:
    """A check that raises is a check that failed."""
    chosen = usable(plan.variants, budget)
    for what, findings in (
        ("products", lambda: correctness.products(plan.device)),
        *(
            (f"training, {crew}", _training(crew, chosen, plan.steps, dtypes))
            for crew, dtypes in zip(plan.crews, (plan.in_process, plan.spawned), strict=True)
        ),
        ("liars", lambda: correctness.liars(plan.device, plan.lies)),
    ):
        try:
            yield from findings()
        except (TempoError, RuntimeError) as error:
            yield Finding(what, False, 1.0, 0.0, f"{type(error).__name__}: {error}")


def _training(
    crew: Crew, chosen: Sequence[Variant], steps: int, dtypes: Sequence[torch.dtype]
) -> Callable[[], Iterator[Finding]]:
    return lambda: correctness.training(crew, chosen, steps, dtypes)


def verification(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds of verification over those of the step, of every verified row."""
    return [
        {
            **{name: row[name] for name in ("suite", "op", "shape", "scheme", "arithmetic", "workers_are")},
            "share": row["check_seconds"] / row["seconds"],
        }
        for row in rows
        if row["mode"] == "tempo" and row["verify"]
    ]


def summary(fields: dict[str, Any]) -> Iterator[str]:
    """What a person wants to see at once."""
    yield f"correct: {'yes' if fields['correct'] else 'NO'}, {len(fields['correctness'])} checks"
    for row in fields["rows"]:
        if row["mode"] == "tempo" and row["verify"]:
            yield (
                f"{row['suite']}: {row['op']} {row['shape']} {row['phase']}, {row['scheme']} in "
                f"{row['arithmetic']}, "
                f"workers {row['workers_are']}: {row['speedup_over_tee_only']:.2f} times TEE-only"
                + (f", {row['allowed_share']:.0%} of what law and link allow" if row["allowed_share"] else "")
                + f", verification {row['check_seconds'] / row['seconds']:.0%}"
            )
    for each in fields["extra"].get("layers", {}).get("break_even", []):
        yield (
            f"break-even: workers {each['workers']}, {each['scheme']} in {each['arithmetic']}: the law "
            f"allows 1x from width {each['law_width_for_1x']:.0f}, 5x from {each['law_width_for_5x']:.0f}"
        )
    for each in fields["skipped"]:
        yield f"skipped: {each['what']}: {each['why']}"
    for error in fields["errors"]:
        yield f"error: {error}"
    yield f"{fields['seconds']:.0f} s in all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done; 1 something was wrong; 3 no such device, or the file cannot be written."""
    options = parser().parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError):
        say(f"Error: torch has no device {options.device!r} here: --device cpu is the test path")
        return OutsideError.exit_code
    plan = (fast if options.fast else full)(options.device)
    fields, right = run(plan, options.budget, say)
    out: Path = options.out or default_out(options.device)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(to_json(fields) + "\n")
    except OSError as error:
        say(f"Error: --out {out} cannot be written ({error.strerror}). Name another file")
        sys.stdout.write(json.dumps(fields) + "\n")  # ten minutes of a rented machine are not lost
        return OutsideError.exit_code
    for line in summary(fields):
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"Written: {out}\n")
    return 0 if right else 1


def default_out(device: str) -> Path:
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Path("docs/results") / f"{day}-gpu-{device.replace(':', '')}.json"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bench/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--device", default="cuda:0", help="torch device (default: %(default)s)")
    made.add_argument("--fast", action="store_true", help="small shapes: the test path, with --device cpu")
    made.add_argument(
        "--budget", type=float, default=DEFAULT_BUDGET, metavar="SECONDS", help="default: %(default)g"
    )
    made.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON; default: docs/results/DATE-gpu-DEVICE.json"
    )
    made.add_argument(
        "--wheels", type=Path, metavar="DIR", help="packages that this machine lacks, as wheels"
    )
    return made
