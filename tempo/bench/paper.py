"""Suite `paper`: ResNet-50 and ViT-B/16, training and inference, as in the paper, on real images.

A training step is forward, cross-entropy and backward on one batch; the optimizer's own pass is the same in
every mode and left out. Images are 3x32x32 (the shape of CIFAR-10) or 3x224x224. unprotected is the whole
model on the workers' device without Tempo: on a GPU what one would rent instead, on the CPU plain PyTorch
on the workers' cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tempo.bench.baselines import Step, tee_only, whole_on_device
from tempo.bench.budget import Budget, named
from tempo.bench.calibrate import SMALL, Sizes, constants
from tempo.bench.crew import Crew
from tempo.bench.models import MODELS, SMALL_IMAGE, channels_last
from tempo.bench.passes import memcpys_per_element
from tempo.bench.protected import Bench
from tempo.bench.result import STEP_FIELDS, Result
from tempo.bench.roofline import Constants, Load
from tempo.bench.steps import Case as StepCase
from tempo.bench.steps import StepRows
from tempo.bench.timing import Repeats, Spread
from tempo.bench.trace import Tracer
from tempo.bench.variant import Variant, usable, variants
from tempo.demo.data import ImageSet, digits, load_images
from tempo.errors import DataError

Say = Callable[[str], None]

#: Shape that m of the law is measured at: rows, K, N of a transformer's wide layer.
_TYPICAL = (1, 4096, 768, 3072)


@final
@dataclass(frozen=True, slots=True)
class Case:
    model: str
    image: int
    batch: int
    trains: bool

    def __str__(self) -> str:
        what = "training" if self.trains else "inference"
        return f"{self.model}, {what}, {self.batch} images of {self.image}x{self.image}"


#: The heart of it first: what the budget cuts is at the end.
CASES = tuple(
    Case(model, image, batch, trains)
    for image, batch in ((32, 32), (32, 128), (32, 512), (224, 32), (224, 128))
    for trains in (True, False)
    for model in ("ResNet-50", "ViT-B/16")
)
FAST_CASES = tuple(
    Case(model, 32, batch, trains)
    for model, batch in (("ResNet, 2 blocks", 8), ("ViT, 1 block", 32))
    for trains in (True, False)
)


_REPEATS = Repeats(least=1, most=5, seconds=3.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    cases: Sequence[Case] = CASES
    crews: Sequence[Crew] = (Crew.parse("1"), Crew.parse("2"), Crew.parse("4"), Crew.parse("8"))
    variants: tuple[Variant, ...] = variants("mixing,monomial")
    repeats: Repeats = _REPEATS
    budget_s: float = 900.0
    sizes: Sizes | None = None
    #: (G, R, K, N) that m is measured at.
    typical: tuple[int, int, int, int] = _TYPICAL
    #: Cases whose name contains this alone.
    only: str = ""
    data_dir: Path | None = None
    #: Only images that are here already: nothing is fetched.
    offline: bool = False


FAST = Settings(
    cases=FAST_CASES,
    crews=(Crew.parse("1"), Crew.parse("2")),
    repeats=Repeats(1, 2, 0.5),
    budget_s=180.0,
    sizes=SMALL,
    typical=(1, 1024, 256, 256),
    offline=True,
)


def run(settings: Settings, say: Say = print, tracer: Tracer | None = None) -> Result:
    """Raises UsageError where `only` leaves no case."""
    cases = named(settings.cases, settings.only)
    result, budget = Result("paper", STEP_FIELDS), Budget(settings.budget_s)
    result.note("a training step is forward, cross-entropy and backward; an inference step is forward")
    result.note("unprotected: the whole model on the workers' device, without Tempo")
    result.note(
        f"law_speedup: m measured at {settings.typical}, plus the measured seconds of the rest of the model"
    )
    images = _images(settings, result, say)
    chosen = usable(settings.variants, budget)
    suite = _Suite(settings, result, images, say)
    for crew, part in budget.parts(settings.crews):
        workers = crew.start()
        with ExitStack() as only_now:
            for worker in workers:
                only_now.enter_context(closing(worker))
            say(f"paper: measuring this machine and {crew}")
            known = constants(crew, workers, settings.sizes)
        result.constants[crew.text] = known.fields()
        memcpys = {
            each: memcpys_per_element(each.config(), settings.typical, Repeats(1, 3, 0.5), copy=known.copy)
            for each in chosen
        }
        with ExitStack() as stack:
            benches = [
                (each, stack.enter_context(Bench(crew, tracer=tracer, **each.options))) for each in chosen
            ]
            for case in cases:
                suite.case(case, crew, part, known, memcpys, benches)
    result.skipped = budget.skipped
    return result


@final
class _Suite:
    """Rows of all crews; what runs in the TEE alone is measured once."""

    def __init__(
        self,
        settings: Settings,
        result: Result,
        images: ImageSet | None,
        say: Say,
    ) -> None:
        self._settings = settings
        self._result = result
        self._images = images
        self._say = say
        self._tee: dict[Case, tuple[dict[str, Spread], float]] = {}

    def case(
        self,
        case: Case,
        crew: Crew,
        budget: Budget,
        known: Constants,
        memcpys: Mapping[Variant, float],
        benches: Sequence[tuple[Variant, Bench]],
    ) -> None:
        name, repeats = f"{case}, workers {crew.text}", self._settings.repeats
        need, free = _memory(case), _available()
        if need > free:
            return budget.skip(name, f"needs about {need / 1e9:.0f} GB of memory, {free / 1e9:.0f} are free")
        if case not in self._tee and not budget.fits(name, _least_estimate(case, known)):
            return None
        step = build(case, self._images)
        if case not in self._tee:
            self._say(f"paper: {case}, TEE-only")
            flops = _flops(step)
            self._tee[case] = ({each: tee_only(step, each, repeats) for each in known.tee_flops}, flops)
        spreads, flops = self._tee[case]
        runs = 2 * repeats.least + 1
        passes = 1.5 * max(memcpys.values(), default=1.0)
        tempo = spreads["fp32"].median + passes * _elements(flops) / known.copy
        if not budget.fits(name, len(benches) * runs * tempo):
            return None
        self._say(f"paper: {name}")
        phase = "training" if case.trains else "inference"
        shape = [case.batch, 3, case.image, case.image]
        rows = StepRows(self._result, StepCase(case.model, shape, phase, case.batch, flops), crew, known)
        rows.tee_only(spreads)
        load = Load(flops, worker_flops=flops)
        if crew.shared:  # the same cores, the same PyTorch
            rows.unprotected(spreads["fp32"], load)
        else:
            for arithmetic in ("fp32", "bf16"):
                rows.unprotected(whole_on_device(step, crew.device, arithmetic, repeats), load, arithmetic)
        for variant, bench in benches:
            found = bench.measure(step, repeats, f"{name}, {variant}")
            rows.tempo(variant, found, memcpys=memcpys[variant], with_rest=True)
        return None


def build(case: Case, images: ImageSet | None) -> Step:
    torch.manual_seed(0)
    x, labels = _batch(case, images)
    model, x = channels_last(MODELS[case.model](case.image).train(case.trains), x)
    return Step(model, x, loss=(lambda y: F.cross_entropy(y, labels)) if case.trains else None)


def _batch(case: Case, images: ImageSet | None) -> tuple[Tensor, Tensor]:
    if images is None:
        return torch.randn(case.batch, 3, case.image, case.image), torch.arange(case.batch) % 10
    picked = torch.arange(case.batch) % len(images.train_x)
    x = F.interpolate(images.train_x[picked], size=case.image, mode="bilinear")
    return x.expand(-1, 3, -1, -1).contiguous(), images.train_y[picked]


def _images(settings: Settings, result: Result, say: Say) -> ImageSet | None:
    try:
        found = (
            digits()
            if settings.offline and settings.data_dir is None
            else load_images(settings.data_dir, say)
        )
    except DataError as error:
        if settings.data_dir is not None:
            raise
        result.extra["images"] = "random"
        result.note(f"images are random numbers, since real ones could not be had: {error}")
        return None
    result.extra["images"] = found.name
    return found


def _flops(step: Step) -> float:
    """Of the linear layers, forward and (where it trains) backward, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step.run()
    step.prepare()
    return float(counter.get_total_flops())


def _elements(flops: float) -> float:
    """A guess for estimates: a layer of width 512 does 768 flops an element that it sends."""
    return flops / 768


def _least_estimate(case: Case, known: Constants) -> float:
    """Two steps in float32 of a model of this size."""
    per_image = {"ResNet-50": 1.3e9, "ViT-B/16": 5.6e9}.get(case.model, 1e8) * 2
    scale = 1.0 if case.image == 32 else 3.2
    return 3 * per_image * scale * case.batch * (3 if case.trains else 1) / known.tee_flops["fp32"]


def _memory(case: Case) -> float:
    """Bytes of activations of a step and of their encodings, roughly and rather too many."""
    per_image = {"ResNet-50": 40e6, "ViT-B/16": 60e6}.get(case.model, 4e6) * (case.image / 32) ** 2
    if case.image > SMALL_IMAGE:
        per_image /= 16  # a stem of stride 4 in all; patches of 16 pixels, not 4
    return 2e9 + 3 * per_image * case.batch * (1.0 if case.trains else 0.3)


def _available() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float("inf")
