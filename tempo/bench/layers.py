"""Suite `layers`: one linear layer or convolution, forward and backward (dX and dW), three ways.

What is compared is in baselines.py, clear.py and protected.py, its bounds in roofline.py. Each case reports
TEE-only in every arithmetic the CPU has, the workers in the clear, and each scheme with and without its
verification; for the schemes also the speed-up if workers and link were free, and the share of the law that
is, with b, F and m measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from tempo.bench.baselines import Step, tee_only
from tempo.bench.budget import Budget, named
from tempo.bench.calibrate import SMALL, Sizes, constants
from tempo.bench.clear import unprotected
from tempo.bench.crew import Crew
from tempo.bench.models import channels_last
from tempo.bench.passes import guess_memcpys, memcpys_per_element
from tempo.bench.protected import Bench
from tempo.bench.result import STEP_FIELDS, Result
from tempo.bench.roofline import Constants, Load, law_width
from tempo.bench.steps import Case as StepCase
from tempo.bench.steps import StepRows
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.bench.variant import Variant, usable, variants
from tempo.config import Config
from tempo.fleet import Worker
from tempo.lowering import lower_conv, lower_linear
from tempo.lowering.base import Lowering
from tempo.nn.placement import Rules

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class LinearCase:
    rows: int
    k: int
    n: int

    def __str__(self) -> str:
        return f"linear {self.k} to {self.n}, {self.rows} rows"

    @property
    def shape(self) -> list[int]:
        return [self.rows, self.k, self.n]

    def build(self) -> tuple[nn.Module, Tensor, Lowering]:
        module = nn.Linear(self.k, self.n, bias=False)
        return module, torch.randn(self.rows, self.k), lower_linear((self.rows, self.k), (self.n, self.k))


@final
@dataclass(frozen=True, slots=True)
class ConvCase:
    """3x3, stride 1, padding 1."""

    batch: int
    channels: int
    size: int

    def __str__(self) -> str:
        c = self.channels
        return f"conv 3x3 {c} to {c}, {self.batch} images of {self.size}x{self.size}"

    @property
    def shape(self) -> list[int]:
        return [self.batch, self.channels, self.size, self.size]

    def build(self) -> tuple[nn.Module, Tensor, Lowering]:
        c = self.channels
        lowering = lower_conv(self.shape, (c, c, 3, 3), padding=1, smallest=Config().min_size)
        conv = nn.Conv2d(c, c, 3, padding=1, bias=False)
        return *channels_last(conv, torch.randn(self.shape)), lowering


Case = LinearCase | ConvCase

#: What is promised first, then the grid from narrow to wide.
CASES: tuple[Case, ...] = (
    LinearCase(25088, 768, 3072),
    LinearCase(4096, 4096, 4096),
    ConvCase(64, 256, 28),
    ConvCase(64, 64, 56),
    *(LinearCase(rows, 256, 256) for rows in (1024, 8192, 65536)),
    *(LinearCase(rows, 512, 512) for rows in (1024, 16384)),
    *(LinearCase(rows, 1024, 1024) for rows in (1024, 8192)),
    *(LinearCase(rows, 2048, 2048) for rows in (1024, 8192)),
    LinearCase(1024, 8192, 8192),
    LinearCase(16384, 4096, 4096),
)
FAST_CASES: tuple[Case, ...] = (
    LinearCase(1024, 256, 1024),
    LinearCase(2048, 1024, 1024),
    ConvCase(8, 64, 28),
)


_REPEATS = Repeats(least=2, most=5, seconds=2.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    cases: Sequence[Case] = CASES
    crews: Sequence[Crew] = (Crew.parse("1"),)
    variants: tuple[Variant, ...] = variants("mixing,monomial")
    repeats: Repeats = _REPEATS
    budget_s: float = 540.0
    #: Those cases alone whose name contains this; "": all.
    only: str = ""
    #: For the calibration; None: by the crew's device.
    sizes: Sizes | None = None


FAST = Settings(cases=FAST_CASES, repeats=Repeats(1, 2, 0.5), budget_s=120.0, sizes=SMALL)


def run(settings: Settings, say: Say = print, tracer: Tracer | None = None) -> Result:
    """Raises UsageError where `only` leaves no case."""
    cases = named(settings.cases, settings.only)
    result, budget = Result("layers", STEP_FIELDS), Budget(settings.budget_s)
    result.note("seconds are of forward and backward with dX and dW; medians, with min and max beside them")
    result.note(
        "verify false: the same run with the measured seconds of its checks taken off, never without them; "
        "checks overlap with waiting for workers, so these seconds are a lower bound"
    )
    result.note("speedup_over_tee_only is against TEE-only in its fastest arithmetic of this run")
    result.note(
        "unprotected: the same products on the same workers over the same connection, in the clear; "
        "as many under way as in Tempo, rows in one chunk or in Tempo's, whichever was quicker"
    )
    chosen = usable(settings.variants, budget)
    for crew, part in budget.parts(settings.crews):
        with ExitStack() as stack:
            workers = crew.start()
            for worker in workers:
                stack.enter_context(closing(worker))
            say(f"layers: measuring this machine and {crew}")
            known = constants(crew, workers, settings.sizes)
            result.constants[crew.text] = known.fields()
            guess = guess_memcpys((each.config() for each in chosen), known.copy)
            if crew.shared:
                result.note(
                    f"workers {crew.text}: they share the master's cores, so seconds say what it costs here; "
                    "master_seconds, measured while they were stopped, says what would remain beside a GPU"
                )
            benches = [
                (each, stack.enter_context(Bench(crew, tracer=tracer, **each.options))) for each in chosen
            ]
            suite = _Suite(result, part, settings, crew, known, guess, say)
            for case in cases:
                suite.case(case, benches, workers)
    result.extra["break_even"] = break_even(result)
    result.skipped = budget.skipped
    return result


def break_even(result: Result) -> list[dict[str, Any]]:
    """By workers, scheme and arithmetic: the width K = N at which the law allows 1 and 5 times TEE-only
    with the least m of this run, and the narrowest square layer that was faster than TEE-only as measured."""
    found = []
    rows = [row for row in result.rows if row["mode"] == "tempo" and row["verify"]]
    for key in dict.fromkeys((row["workers_are"], row["scheme"], row["arithmetic"]) for row in rows):
        mine = [row for row in rows if (row["workers_are"], row["scheme"], row["arithmetic"]) == key]
        known = result.constants[key[0]]
        memcpys = min(row["memcpys_per_element"] for row in mine)
        width = {
            times: law_width(
                copy=known["copy_elements_per_second"],
                memcpys=memcpys,
                tee_flops=max(known["tee_flops_per_second"].values()),
                speedup=times,
            )
            for times in (1, 5)
        }
        won = [
            row["shape"][1]
            for row in mine
            if len(row["shape"]) == 3
            and row["shape"][1] == row["shape"][2]
            and row["speedup_over_tee_only"] >= 1
        ]
        found.append(
            {
                "workers": key[0],
                "scheme": key[1],
                "arithmetic": key[2],
                "memcpys_per_element": memcpys,
                "law_width_for_1x": width[1],
                "law_width_for_5x": width[5],
                "narrowest_layer_that_won": min(won, default=None),
            }
        )
    return found


@final
class _Suite:
    """The rows of one crew."""

    def __init__(
        self,
        result: Result,
        budget: Budget,
        settings: Settings,
        crew: Crew,
        known: Constants,
        guess: float,
        say: Say,
    ) -> None:
        self._result = result
        self._budget = budget
        self._settings = settings
        self._crew = crew
        self._known = known
        self._say = say
        self._guess = guess
        #: Seconds that runs took over what was estimated, so that later estimates are better.
        self._error = 1.0

    def case(self, case: Case, benches: Sequence[tuple[Variant, Bench]], workers: Sequence[Worker]) -> None:
        name = f"{case}, workers {self._crew.text}"
        step, lowering = layer_step(case)
        shape, repeats = lowering.shape, self._settings.repeats
        kept = Rules(Config().min_size, False).keep(lowering)
        if kept:
            return self._budget.skip(name, f"stays in the TEE: {kept}")
        elements = 2.0 * shape.groups * shape.rows * (shape.k + shape.n)
        flops = 3.0 * lowering.flops
        estimate = self._error * self._estimate(flops, elements, len(benches))
        if not self._budget.fits(name, estimate):
            return None
        self._say(f"layers: {name}")
        started = self._budget.spent
        rows = StepRows(
            self._result,
            StepCase(str(case), case.shape, "forward and backward", step.x.shape[0], flops),
            self._crew,
            self._known,
        )
        rows.tee_only({each: tee_only(step, each, repeats) for each in self._known.tee_flops})
        weight, dy = next(step.module.parameters()).detach(), step.dy
        assert dy is not None, "a layer's step has one"
        plain = unprotected(workers, lowering, step.x.detach(), weight, dy, repeats)
        product_flops = 6.0 * shape.groups * shape.rows * shape.k * shape.n
        rows.unprotected(
            plain.seconds, Load(flops, worker_flops=product_flops, up=plain.sent, down=plain.received)
        )
        for variant, bench in benches:
            memcpys = memcpys_per_element(
                variant.config(),
                (shape.groups, shape.rows, shape.k, shape.n),
                Repeats(1, 3, 0.5),
                copy=self._known.copy,
            )
            found = bench.measure(step, repeats, f"{case}, {variant}, workers {self._crew.text}")
            rows.tempo(variant, found, memcpys=memcpys, elements=elements)
        self._error *= min(3.0, max(0.3, (self._budget.spent - started) / estimate))
        return None

    def _estimate(self, flops: float, elements: float, schemes: int) -> float:
        """Seconds of a case: its steps, and the passes that m takes."""
        known, least = self._known, self._settings.repeats.least
        product = flops / min(known.worker_flops, known.tee_flops["fp32"])
        passes = self._guess * elements / known.copy
        tempo = (2 * least + 1) * (product + passes) + 3 * passes + product
        return 0.5 + (2 * least + 2) * product + schemes * tempo


def layer_step(case: Case) -> tuple[Step, Lowering]:
    """Forward and backward of one layer, dX included."""
    module, x, lowering = case.build()
    return _step(module, x), lowering


def _step(module: nn.Module, x: Tensor) -> Step:
    x.requires_grad_()
    with torch.no_grad():
        return Step(module, x, torch.randn_like(module(x)))
