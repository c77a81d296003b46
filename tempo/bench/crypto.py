"""Suite `crypto`: a private linear layer and a private training step, beside recorded cryptographic systems.

Tempo and plain PyTorch run now, on the operands that the recorded systems had (same seed and draws):

    linear            Y_RN = X_RK W_NK^T                                          shape R, K, N
    training step     A_RH = X_RK W1_HK^T, H = act(A), Y_RN = H W2_NH^T           shape R, K, H, N
                      loss = ||Y - T||^2 / (2 R),  W <- W - RATE dW

The others need environments of their own and were run once: their seconds are read from a file and marked
as recorded. They hide operands by cryptography, from parties that mostly must not collude; Tempo's masks are
weaker and its results are checked. The table compares cost, not security.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from tempo.bench.baselines import Step, tee_only
from tempo.bench.budget import Budget
from tempo.bench.crew import Crew
from tempo.bench.protected import Bench
from tempo.bench.result import Result
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.bench.variant import Variant, usable, variants
from tempo.errors import UsageError

Say = Callable[[str], None]

CRYPTO_FIELDS = (
    *("system", "op", "shape", "mode", "scheme", "verify", "workers", "seconds", "master_seconds", "bytes"),
    *("seconds_min", "seconds_max", "repeats", "offloaded", "times_tempo"),
    *("recorded", "recorded_date", "recorded_machine", "recorded_command"),
)
RECORDED: Final = Path("benchmarks/crypto/recorded.json")

#: As benchmarks/crypto/common.py draws them.
_SEED: Final = 20261122
_RATE: Final = 0.1
_WANTED = {"system": str, "op": str, "shape": list, "seconds": float, "date": str, "machine": (str, dict)}


_CREW = Crew.parse("1")
_REPEATS = Repeats(least=3, most=9, seconds=1.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    recorded: Path = RECORDED
    crew: Crew = _CREW
    variants: tuple[Variant, ...] = variants("mixing,monomial")
    repeats: Repeats = _REPEATS


def run(settings: Settings, say: Say = print, tracer: Tracer | None = None) -> Result:
    """Raises UsageError where the recorded figures are not there or not what they should be."""
    recorded = read(settings.recorded)
    result, budget = Result("crypto", CRYPTO_FIELDS), Budget()
    result.note(
        "rows with recorded true were NOT run now: date, machine and command say when and where they were"
    )
    result.note(
        "times_tempo: seconds over those of Tempo's first scheme here; another machine for recorded rows"
    )
    result.note("the table compares cost: what each system hides, and from whom, differs")
    result.note(
        "linear is one inference. Tempo sends the encoded W' once and keeps it there: its seconds are of the "
        "requests that follow. Recorded seconds include encrypting or sharing W each time, since those "
        "scripts do so within what they time; a system that keeps W would be quicker than its row. "
        "A training step encodes, shares or encrypts its weights in all of them"
    )
    ops = list(dict.fromkeys((kind(each["op"]), tuple(each["shape"])) for each in recorded))
    first: dict[tuple[str, tuple[int, ...]], float] = {}
    for variant in usable(settings.variants, budget):
        with Bench(settings.crew, tracer=tracer, **variant.options) as bench:
            for op in ops:
                say(f"crypto: {variant}, {op[0]} {list(op[1])}")
                first.setdefault(op, _tempo(result, settings, bench, variant, *op))
    for op in ops:
        _plain(result, settings, *op, first.get(op))
    for each in recorded:
        of = first.get((kind(each["op"]), tuple(each["shape"])))
        result.add(
            system=each["system"],
            op=each["op"],
            shape=each["shape"],
            mode="recorded",
            seconds=float(each["seconds"]),
            times_tempo=None if of is None else float(each["seconds"]) / of,
            recorded=True,
            recorded_date=each["date"],
            recorded_machine=each["machine"],
            recorded_command=each.get("command"),
        )
    result.skipped = budget.skipped
    return result


def read(path: Path) -> list[dict[str, Any]]:
    """The recorded rows. Raises UsageError with what is wrong."""
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): bench crypto compares with the recorded figures of "
            "cryptographic systems. Run it from the root of the repository, or name the file with --recorded"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error})") from error
    rows = rows.get("rows") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{path}: expected a list of rows, or an object with rows")
    for number, row in enumerate(rows):
        for name, types in _WANTED.items():
            value = row.get(name) if isinstance(row, dict) else None
            good = isinstance(value, (int, float) if types is float else types)  # type: ignore[arg-type]
            if not good:
                raise UsageError(f"{path}: row {number} has no usable {name!r}; expected {sorted(_WANTED)}")
        axes = {"linear": 3, "training step": 4}[kind(row["op"])]
        if len(row["shape"]) != axes or not all(isinstance(s, int) and 0 < s < 1 << 20 for s in row["shape"]):
            raise UsageError(f"{path}: row {number}, {row['op']}: expected {axes} sizes, not {row['shape']}")
    return rows


def kind(op: str) -> str:
    """Which of the two operations a row's own words mean."""
    words = op.lower()
    if "step" in words:
        return "training step"
    if "linear" in words:
        return "linear"
    raise UsageError(f"recorded op {op!r}: expected a linear layer or a training step")


def build(op: str, shape: Sequence[int]) -> Step:
    draw = np.random.default_rng(_SEED)

    def normal(*sizes: int) -> Tensor:
        return torch.tensor(draw.standard_normal(sizes), dtype=torch.float32)

    if op == "linear":
        rows, k, n = shape
        x = normal(rows, k)
        layer = nn.Linear(k, n, bias=False)
        _set(layer, normal(n, k) / k**0.5)
        return Step(layer, x)
    rows, k, h, n = shape
    x = normal(rows, k)
    model = nn.Sequential(nn.Linear(k, h, bias=False), nn.ReLU(), nn.Linear(h, n, bias=False))
    _set(model[0], normal(h, k) / k**0.5)
    _set(model[2], normal(n, h) / h**0.5)
    target = normal(rows, n)

    def update() -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=_RATE)

    return Step(model, x, loss=lambda y: (y - target).square().sum() / (2 * rows), after=update)


def _set(layer: nn.Module, weight: Tensor) -> None:
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)


def _tempo(
    result: Result, settings: Settings, bench: Bench, variant: Variant, op: str, shape: tuple[int, ...]
) -> float:
    step = build(op, shape)
    # The last layer of a model stays here by default; the recorded systems hide it, so it is sent too.
    last = ("2",) if op == "training step" else ()
    found = bench.measure(step, settings.repeats, f"{op} {list(shape)}, {variant}", unsafe_offload=last)
    result.add(
        system="Tempo",
        op=op,
        shape=list(shape),
        mode="tempo",
        scheme=str(variant),
        verify=True,
        workers=settings.crew.count,
        seconds=found.seconds.median,
        master_seconds=found.master.median,
        bytes=round(found.sent + found.received),
        seconds_min=found.seconds.low,
        seconds_max=found.seconds.high,
        repeats=found.seconds.count,
        offloaded=found.flops > 0,
        recorded=False,
    )
    if not found.flops:
        result.note(f"{op} {list(shape)}: fewer than 64 rows or features, so Tempo computes it in the TEE")
    return found.seconds.median


def _plain(result: Result, settings: Settings, op: str, shape: tuple[int, ...], tempo: float | None) -> None:
    took = tee_only(build(op, shape), "fp32", settings.repeats)
    result.add(
        system="PyTorch, nothing hidden from this machine",
        op=op,
        shape=list(shape),
        mode="tee-only",
        verify=False,
        workers=0,
        seconds=took.median,
        master_seconds=took.median,
        bytes=0,
        seconds_min=took.low,
        seconds_max=took.high,
        repeats=took.count,
        offloaded=False,
        times_tempo=None if tempo is None else took.median / tempo,
        recorded=False,
    )
