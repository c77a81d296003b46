"""Suite `scale`: one linear layer, forward and backward, with rows and workers doubled.

    strong   the same rows on 1, 2, 4, ... workers: ideal seconds fall as 1 / workers
    weak     rows doubled with the workers: ideal seconds stay
    rows     rows doubled on the fewest workers: ideal seconds double, less what a step costs by itself
    masters  a training of the same batches by 1, 2, ... masters (tempo/bench/masters.py): seconds fall

efficiency in the report is the ideal over the measured seconds, from the fewest workers or rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import final

from tempo.bench import masters, masters_rows
from tempo.bench.baselines import tee_only
from tempo.bench.budget import Budget
from tempo.bench.calibrate import SMALL, Sizes, constants
from tempo.bench.crew import Crew
from tempo.bench.layers import LinearCase, layer_step
from tempo.bench.passes import guess_memcpys
from tempo.bench.protected import Bench
from tempo.bench.result import SCALE_FIELDS, Result
from tempo.bench.roofline import Constants
from tempo.bench.steps import Case as StepCase
from tempo.bench.steps import StepRows
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.bench.variant import Variant, usable, variants

Say = Callable[[str], None]


_TRAINING = masters.Training()
_REPEATS = Repeats(least=2, most=5, seconds=1.5)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """rows, width: of the smallest layer. doublings: of its rows. training: by several masters, if at all."""

    rows: int = 2048
    width: int = 1024
    doublings: int = 3
    crews: Sequence[Crew] = tuple(Crew.parse(text) for text in ("1", "2", "4", "8"))
    variants: tuple[Variant, ...] = variants("mixing")
    training: masters.Training | None = _TRAINING
    repeats: Repeats = _REPEATS
    budget_s: float = 600.0
    sizes: Sizes | None = None


FAST = Settings(
    rows=512,
    width=256,
    doublings=1,
    crews=(Crew.parse("1"), Crew.parse("2")),
    training=masters.FAST,
    repeats=Repeats(1, 2, 0.5),
    sizes=SMALL,
)


def run(settings: Settings, say: Say = print, tracer: Tracer | None = None) -> Result:
    result, budget = Result("scale", SCALE_FIELDS), Budget(settings.budget_s)
    if any(crew.shared for crew in settings.crews):
        result.note("workers on the CPU share the master's cores: more of them add no compute there")
    chosen, fewest = usable(settings.variants, budget), min(crew.count for crew in settings.crews)
    speeds: dict[Crew, float] = {}
    for crew, part in _parts(budget, settings):
        workers = crew.start()
        with ExitStack() as only_now:
            for worker in workers:
                only_now.enter_context(closing(worker))
            known = constants(crew, workers, settings.sizes)
        result.constants[crew.text] = known.fields()
        guess = guess_memcpys((each.config() for each in chosen), known.copy)
        times = crew.count // fewest
        plans = {"strong": settings.rows, "weak": settings.rows * times}
        phases = [(phase, rows) for phase, rows in plans.items()]
        if crew.count == fewest:
            phases += [("rows", settings.rows << number) for number in range(settings.doublings + 1)]
        with ExitStack() as stack:
            for variant in chosen:
                bench = stack.enter_context(Bench(crew, tracer=tracer, **variant.options))
                for phase, rows in phases:
                    case = LinearCase(rows, settings.width, settings.width)
                    _one(result, part, settings, crew, known, guess, variant, bench, phase, case, say)
        speeds[crew] = known.tee_flops["fp32"]
    if settings.training is not None and speeds:
        crew = min(speeds, key=lambda each: each.count)
        for variant in chosen:
            runs = masters.run(settings.training, crew, variant, budget, say, speeds[crew])
            if runs is not None:
                masters_rows.add(result, runs, crew, variant)
    result.extra["efficiency"] = efficiency(result.rows)
    result.skipped = budget.skipped
    return result


def _parts(budget: Budget, settings: Settings) -> Iterator[tuple[Crew, Budget]]:
    """An even part for each crew, and one for the masters, who come last."""
    last = settings.training is not None
    for crew, part in budget.parts([*settings.crews, *([None] if last else [])]):
        if crew is not None:
            yield crew, part


def _one(
    result: Result,
    budget: Budget,
    settings: Settings,
    crew: Crew,
    known: Constants,
    guess: float,
    variant: Variant,
    bench: Bench,
    phase: str,
    case: LinearCase,
    say: Say,
) -> None:
    flops = 6.0 * case.rows * case.k * case.n
    name = f"{phase}: {case}, {variant}, workers {crew.text}"
    step_seconds = flops / known.tee_flops["fp32"] + guess * 4 * case.rows * case.k / known.copy
    if not budget.fits(name, 3 * (settings.repeats.least + 1) * step_seconds):
        return
    say(f"scale: {name}")
    step, _ = layer_step(case)
    rows = StepRows(result, StepCase(str(case), case.shape, phase, case.rows, flops), crew, known)
    rows.tee_only({each: tee_only(step, each, settings.repeats) for each in known.tee_flops})
    rows.tempo(variant, bench.measure(step, settings.repeats, name))


def efficiency(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Ideal over measured seconds of every verified row, by phase, against the first row of that phase."""
    found: list[dict[str, object]] = []
    first: dict[tuple[object, ...], tuple[float, float, float]] = {}
    for row in rows:
        if row["mode"] != "tempo" or not row["verify"] or row["phase"] == masters_rows.PHASE:
            continue
        shape = row["shape"]
        assert isinstance(shape, list)
        size, count, seconds = float(shape[0]), float(str(row["workers"])), float(str(row["seconds"]))
        key = (row["phase"], row["scheme"], row["arithmetic"])
        size_0, count_0, seconds_0 = first.setdefault(key, (size, count, seconds))
        ideal = seconds_0 * (size / size_0) / (count / count_0)
        found.append(
            {
                "phase": row["phase"],
                "scheme": row["scheme"],
                "arithmetic": row["arithmetic"],
                "rows": int(size),
                "workers": int(count),
                "seconds": seconds,
                "ideal_seconds": ideal,
                "efficiency": ideal / seconds,
            }
        )
    return found
