"""What each knob of `mixing` costs the master: one linear layer, forward and backward, setting by setting.

    memcpy_ratio = master seconds / seconds of a copy of X, Y, dY and dX
    cpu_ratio = processor seconds of the master / those of that copy

The other axis of a frontier of leakage against time, which the attack suite measures. A setting differs from
the defaults in what its options say and in nothing else. W is new in every step, as in training, so it is
encoded (and deflated, from the directions of the step before) every time. The least of several runs counts.
The copy is timed beside each setting, and the median of all is what each is divided by: it is the same
copy, and whether its second thread waits awake doubles its processor seconds in one run and not in the next.
Where others use the machine, wall times are theirs too: read cpu_ratio then. All threads of the master count
in it, so one (OMP_NUM_THREADS=1) serves best.

Axes: R rows, K in-features, N out-features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import nn

from tempo.bench.baselines import Step
from tempo.bench.crew import Crew
from tempo.bench.protected import Bench
from tempo.bench.result import Row
from tempo.bench.timing import Repeats, Work, measure
from tempo.config import Config
from tempo.errors import UsageError

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """name: for tables and plots. options: of a Session with scheme mixing, the rest as by default. Raises
    UsageError for options that cannot be."""

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        self.config()

    def config(self) -> Config:
        return Config(scheme="mixing").with_options(**self.options)


def _one(**options: Any) -> Setting:
    """Named after its options."""
    name = ", ".join(
        f"{key} {f'{value:g}' if isinstance(value, float) else value}" for key, value in options.items()
    )
    return Setting(name, MappingProxyType(options))


#: One knob at a time, then what goes together. Wider coefficients than spread 3 need fewer rounds in float32;
#: a longer block needs longer axes.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("default"),
    _one(rounds=1),
    _one(row_rounds=1),
    _one(rounds=1, row_rounds=1),
    *(_one(block=block) for block in (4, 16)),
    _one(block=128, min_size=128),
    *(_one(spread=spread) for spread in (1.01, 2.0, 3.0)),
    _one(spread=4.0, rounds=1, row_rounds=1),
    *(_one(deflate=directions) for directions in (8, 32)),
    *(_one(decoys=directions) for directions in (8, 32)),
    _one(decoys=8, decoy_size=3.0),
    _one(fill=8),
    _one(gain=1.0),
    _one(repeats=1.0),
    _one(key_shift=False),
    _one(wire="bf16"),
    # Attack 24 knows half of them, and takes three others to judge.
    _one(weight_uses=8, unsafe_many_uses=True),
    _one(weight_uses=256, unsafe_many_uses=True),
    _one(decoys=8, key_shift=False),
    _one(deflate=32, decoys=8, decoy_size=3.0, fill=8),
    _one(deflate=32, decoys=8, decoy_size=3.0, fill=8, key_shift=False),
)


@final
@dataclass(frozen=True, slots=True)
class Layer:
    """K to N features over R rows; `dead` of the in-features are zero, for `fill` to meet."""

    rows: int = 4096
    k: int = 1024
    n: int = 1024
    dead: int = 8

    def __post_init__(self) -> None:
        if not (min(self.rows, self.k, self.n) >= 1 and 0 <= self.dead < self.k):
            raise UsageError(f"a layer has rows and features, and fewer dead ones than it has: {self}")

    def step(self) -> Step:
        """Forward and backward with dX and dW, on operands of one seed."""
        generator = torch.Generator().manual_seed(0)
        module = nn.Linear(self.k, self.n, bias=False)
        x = torch.randn(self.rows, self.k, generator=generator)
        x[:, : self.dead] = 0
        with torch.no_grad():
            module.weight.normal_(std=self.k**-0.5, generator=generator)
        return Step(module, x.requires_grad_(), torch.randn(self.rows, self.n, generator=generator))


def rows(
    settings: Sequence[Setting] = SETTINGS,
    layer: Layer | None = None,
    crew: Crew | None = None,
    repeats: Repeats | None = None,
    say: Say = lambda text: None,
) -> list[Row]:
    """One row for each setting, in their order. Raises UsageError where the layer is too small to be sent,
    IntegrityError where a reply was false.

    crew: by default one worker process, still while the master works. A device in this process saves its
    start, but shares the master's cores where a layer has rows enough for several chunks, and leaves
    cpu_seconds and cpu_ratio None, since its work cannot be told from the master's.
    """
    layer = layer or Layer()
    crew, repeats = crew or Crew.parse("1"), repeats or Repeats(least=3, most=7, seconds=1.5)
    found = [_row(setting, layer, crew, repeats, say) for setting in settings]
    if not found:
        return []
    copy, copy_cpu = (median(each) for each in zip(*(times for _, times in found), strict=True))
    for row, _ in found:
        cpu = row["cpu_seconds"]
        row["memcpy_seconds"], row["memcpy_ratio"] = copy, row["master_seconds"] / copy
        row["cpu_ratio"] = None if cpu is None else cpu / copy_cpu
    return [row for row, _ in found]


def _row(
    setting: Setting, layer: Layer, crew: Crew, repeats: Repeats, say: Say
) -> tuple[Row, tuple[float, float]]:
    """And seconds of the copy, by the clock and of processors."""
    say(f"knobs: {setting.name}")
    step = layer.step()
    with Bench(crew, scheme="mixing", **setting.options) as bench:
        found = bench.measure(step, repeats, setting.name)
        cpu = None if crew.in_process else _cpu(bench, step, repeats.least)
        offloaded = any(row.offloaded for row in bench.session.report().rows)
    if not offloaded:
        raise UsageError(
            f"a layer of {layer.rows} x {layer.k} to {layer.n} stays in the TEE: nothing to measure"
        )
    elements = 2 * layer.rows * (layer.k + layer.n)
    source, target = torch.ones(elements), torch.ones(elements)
    copy = measure(lambda: target.copy_(source), repeats).low
    copy_cpu = min(_process(lambda: target.copy_(source)) for _ in range(repeats.least))
    row = {
        "setting": setting.name,
        "options": dict(setting.options),
        "shape": [layer.rows, layer.k, layer.n],
        "workers": crew.text,
        "master_seconds": found.master.low,
        "master_seconds_median": found.master.median,
        "cpu_seconds": cpu,
        "seconds": found.seconds.low,
        "bytes": round(found.sent + found.received),
        "repeats": found.master.count,
    }
    return row, (copy, copy_cpu)


def _cpu(bench: Bench, step: Step, runs: int) -> float:
    """Processor seconds of this process in a step, the least of several."""
    model = bench.session.protect(step.module)
    try:
        took = []
        for _ in range(runs + 1):
            step.prepare()
            took.append(_process(step.run))
        return min(took[1:])
    finally:
        bench.session.unprotect(model)


def _process(work: Work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
