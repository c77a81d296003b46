"""The whole story: train plainly, train again under Tempo while a worker lies and one is killed, compare.

plain     the loop of tempo.demo.train
exact     the same in float64: what rounding alone does to such a run
tempo     the same loop, same seed, `session.protect(model)`: the only difference
            from job LIE_FIRST on   worker-0 answers some jobs 1 % wrong
            at step kill_step       the last worker is killed between forward and backward
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tempo.cli.output import document, to_json
from tempo.demo import plots, promises
from tempo.demo.data import ImageSet, load_images
from tempo.demo.diary import Diary, Watcher
from tempo.demo.model import resnet
from tempo.demo.train import TrainResult, train
from tempo.demo.workers import Killer, Witnessed
from tempo.fleet import FleetSettings
from tempo.numerics import loss_tolerance
from tempo.worker import Lie, LieKind

if TYPE_CHECKING:
    from tempo.report import Report

FULL_STEPS, FAST_STEPS = 120, 30
FULL_TEST_COUNT, FAST_TEST_COUNT = 2_000, 500
BATCH = 64
#: Jobs of one worker in one step, roughly: the liar counts jobs, the story counts steps.
JOBS_PER_STEP = 12
LIES = 3
LIE_AT, KILL_AT = 0.25, 0.65  # share of the steps
#: A step before anything goes wrong, and after the first ones.
TRACED_STEP = 3
#: Seconds of the first quarantine, short so that the liar returns within the demo; doubles each time.
QUARANTINE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one run of the demo. seed: of parameters, batches and nothing secret."""

    steps: int = FULL_STEPS
    batch: int = BATCH
    test_count: int = FULL_TEST_COUNT
    workers: int = 2
    scheme: str = "mixing"
    seed: int = 0
    out: Path = Path("demo-results")
    data_dir: Path | None = None

    @property
    def lie(self) -> Lie:
        return Lie(LieKind.SCALE, int(LIE_AT * self.steps) * JOBS_PER_STEP, LIES)

    @property
    def kill_step(self) -> int:
        return int(KILL_AT * self.steps)


@dataclass(slots=True)
class Outcome:
    """What a run of the demo showed. lie_steps: at which a lie was caught."""

    settings: Settings
    images: str
    parameters: int
    plain: TrainResult
    exact: TrainResult
    tempo: TrainResult
    report: Report
    encodings_per_step: float
    encodings_without_key_shift: float
    lies_told: int
    lie_steps: list[int]
    kill_step: int | None
    #: Where the timeline of one step was written.
    timeline: Path | None = None
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        return [abs(a - b) for a, b in zip(self.plain.losses, self.tempo.losses, strict=True)]

    @property
    def allowed(self) -> list[float]:
        return loss_tolerance(self.plain.losses, self.exact.losses)

    def fields(self) -> dict[str, Any]:
        """What machines read. Units are in the names; encodings are per training step."""
        report = self.report.to_dict()
        rows = [
            {
                "step": step,
                "plain_loss": plain,
                "float64_loss": exact,
                "tempo_loss": tempo,
                "allowed_difference": allowed,
            }
            for step, (plain, exact, tempo, allowed) in enumerate(
                zip(self.plain.losses, self.exact.losses, self.tempo.losses, self.allowed, strict=True)
            )
        ]
        return document(
            "demo",
            rows,
            plain_accuracy=self.plain.accuracy,
            tempo_accuracy=self.tempo.accuracy,
            max_loss_difference=max(self.differences),
            max_allowed_difference=max(self.allowed),
            encodings_per_step=self.encodings_per_step,
            encodings_without_key_shift=self.encodings_without_key_shift,
            bytes_sent=self.report.bytes_sent,
            bytes_received=self.report.bytes_received,
            checks=self.report.checks,
            checks_failed=self.report.checks_failed,
            lies_told=self.lies_told,
            lie_steps=self.lie_steps,
            kill_step=self.kill_step,
            quarantined=self.report.quarantined,
            retries=self.report.retries,
            seconds=self.seconds,
            plain_train_seconds=self.plain.seconds,
            tempo_train_seconds=self.tempo.seconds,
            images=self.images,
            parameters=self.parameters,
            steps=self.settings.steps,
            batch=self.settings.batch,
            workers=self.settings.workers,
            scheme=self.settings.scheme,
            seed=self.settings.seed,
            broken_promises=self.broken,
            report=report,
        )


def run(settings: Settings, watcher: Watcher) -> Outcome:
    """The whole demo, files included. Broken promises are in the outcome; errors are raised."""
    start = perf_counter()
    images = load_images(settings.data_dir, watcher.say)

    watcher.begin("plain PyTorch", settings.steps)
    plain = _train(_model(images, settings), images, settings, watcher.step)
    watcher.end()

    watcher.begin("float64", settings.steps)
    doubles = replace(images, train_x=images.train_x.double(), test_x=images.test_x.double())
    exact = _train(_model(doubles, settings).double(), doubles, settings, watcher.step)
    watcher.end()

    outcome = _protected(settings, images, plain, exact, watcher)
    outcome.seconds = perf_counter() - start
    outcome.broken = promises.broken(
        promises.Kept(
            plain_losses=plain.losses,
            tempo_losses=outcome.tempo.losses,
            allowed_differences=outcome.allowed,
            plain_accuracy=plain.accuracy,
            tempo_accuracy=outcome.tempo.accuracy,
            encodings_per_step=outcome.encodings_per_step,
            encodings_without_key_shift=outcome.encodings_without_key_shift,
            lies_told=outcome.lies_told,
            checks_failed=outcome.report.checks_failed,
            liar="worker-0",
            quarantined=outcome.report.quarantined,
            killed=outcome.kill_step is not None,
        )
    )
    return outcome


def write(outcome: Outcome, out: Path) -> list[Path]:
    """demo.json and the pictures, beside the timeline that the run wrote. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("demo.json", "loss.png", "time.png", "encodings.png")]
    paths[0].write_text(to_json(outcome.fields()) + "\n")
    if outcome.timeline is not None:
        paths.append(outcome.timeline)
    settings, report = outcome.settings, outcome.report
    what = f"ResNet of {outcome.parameters:,} parameters on {outcome.images}, batch {settings.batch}"
    how = f"scheme {settings.scheme}, {settings.workers} worker process" + "es" * (settings.workers > 1)
    plots.loss_curves(
        paths[1],
        outcome.plain.losses,
        outcome.tempo.losses,
        outcome.allowed,
        lies=outcome.lie_steps,
        kill=outcome.kill_step,
        subtitle=f"{what}; {how}",
    )
    plots.time_by_part(paths[2], report.seconds, sum(report.seconds.values()), f"{what}; {how}")
    plots.encodings(
        paths[3], outcome.encodings_per_step, outcome.encodings_without_key_shift, f"median step; {how}"
    )
    return paths


def _protected(
    settings: Settings, images: ImageSet, plain: TrainResult, exact: TrainResult, watcher: Watcher
) -> Outcome:
    from tempo.facade import Session

    with ExitStack() as stack:
        watcher.say(f"Starting {settings.workers} worker process(es); worker-0 will lie, the last be killed")
        workers = _workers(settings)
        for worker in workers:
            stack.callback(worker.close)
        session = stack.enter_context(
            Session(
                workers=list(workers), scheme=settings.scheme, fleet=FleetSettings(quarantine_s=QUARANTINE_S)
            )
        )
        model = session.protect(_model(images, settings))
        tracing = stack.enter_context(ExitStack())
        timeline = settings.out / "timeline.json"
        settings.out.mkdir(parents=True, exist_ok=True)
        killer = Killer(workers[-1], settings.kill_step)
        model.register_forward_hook(killer)
        diary = Diary(session.report, watcher)

        def on_step(step: int, loss: float) -> None:
            killer.step = step + 1
            if step == TRACED_STEP - 1:
                tracing.enter_context(session.trace(timeline))
            elif step == TRACED_STEP:
                tracing.close()
            diary.after(step)
            watcher.step(step, loss)

        watcher.begin("Tempo", settings.steps)
        tempo = _train(model, images, settings, on_step)
        watcher.end()
        return Outcome(
            settings=settings,
            images=images.name,
            parameters=sum(p.numel() for p in model.parameters()),
            plain=plain,
            exact=exact,
            tempo=tempo,
            report=session.report(),
            encodings_per_step=diary.per_step(0),
            encodings_without_key_shift=diary.per_step(1),
            lies_told=workers[0].lies_told,
            lie_steps=diary.lie_steps,
            kill_step=settings.kill_step if killer.done else None,
            timeline=timeline if settings.steps > TRACED_STEP else None,
        )


def _model(images: ImageSet, settings: Settings) -> nn.Module:
    return resnet(images.train_x.shape[1], images.classes, seed=settings.seed)


def _train(
    model: nn.Module, images: ImageSet, settings: Settings, on_step: Callable[[int, float], None]
) -> TrainResult:
    return train(
        model,
        images,
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed,
        on_step=on_step,
        test_count=settings.test_count,
    )


def _workers(settings: Settings) -> list[Witnessed]:
    threads = max(1, torch.get_num_threads() // settings.workers)
    workers: list[Witnessed] = []
    try:
        for number in range(settings.workers):
            lie = settings.lie if number == 0 else None
            workers.append(Witnessed(f"worker-{number}", threads, lie))
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    return workers
