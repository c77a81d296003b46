"""Suite `kernels`: each pass of the master against a memcpy of the same tensor, in turns in one run.

    keys           row bases from the key (index lists and scales), no tensor touched
    encode         X to X'; for a convolution Winograd's transform and the encoding together, its memcpy that
                   of what is sent, so the ratio is per element sent
    decode         Y' to Y
    check-expect   what is taken from the operands before they leave
    check-accept   the projection of a true reply, and the decision
    check          both

memcpy copies into memory already touched. Ratios are of medians of alternating runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch

from tempo.bench.budget import Budget
from tempo.bench.passes import Pass, Passes
from tempo.bench.result import KERNEL_FIELDS, Result, isa
from tempo.bench.timing import Repeats
from tempo.config import Config
from tempo.kernels import threads_for
from tempo.lowering import lower_conv

Say = Callable[[str], None]


_REPEATS = Repeats(least=3, most=11, seconds=1.0)


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """matrices: (G, R, K) with K out-features for the check. images: (batch, channels, height, width) of 3x3
    convolutions with as many channels out."""

    matrices: Sequence[tuple[int, int, int]] = (
        (1, 25088, 768),
        (1, 4096, 4096),
        (1, 65536, 256),
    )
    images: Sequence[tuple[int, int, int, int]] = ((64, 256, 28, 28), (64, 64, 56, 56))
    schemes: Sequence[str] = ("mixing", "monomial")
    repeats: Repeats = _REPEATS
    budget_s: float = 110.0


FAST = Settings(
    matrices=((1, 4096, 768),), images=((8, 64, 28, 28),), repeats=Repeats(2, 3, 0.2), budget_s=60.0
)


def run(settings: Settings, say: Say = print) -> Result:
    result, budget = Result("kernels", KERNEL_FIELDS), Budget(settings.budget_s)
    result.note("seconds and memcpy_seconds are medians of alternating runs; min and max are their spread")
    result.note("check is of Y = X W^T with as many out- as in-features; keys touch no tensor")
    result.note("row_rounds: rounds of mixing on rows; each after the first is one more pass")
    for config in _configs(settings.schemes):
        scheme = config.scheme
        for groups, rows, k in settings.matrices:
            shape = [rows, k] if groups == 1 else [groups, rows, k]
            say(f"kernels: {scheme}, {'x'.join(map(str, shape))}")
            passes = Passes(config, groups, rows, k, k)
            for name, dtype, each in _passes(passes):
                if budget.fits(f"{name}, {scheme}, {shape}", settings.repeats.seconds):
                    _add(result, settings, config, name, shape, dtype, "matrix", each, passes.x)
        for image_shape in settings.images:
            say(f"kernels: {scheme}, convolution of {'x'.join(map(str, image_shape))}")
            name = f"encode, {scheme}, convolution of {list(image_shape)}"
            if not budget.fits(name, 2 * settings.repeats.seconds):
                continue
            channels = image_shape[1]
            lowering = lower_conv(image_shape, (channels, channels, 3, 3), padding=1)
            product = lowering.shape
            passes = Passes(config, product.groups, product.rows, product.k, product.n)
            each = passes.encode_lowered(lowering, torch.randn(image_shape))
            _add(
                result,
                settings,
                config,
                "encode",
                list(image_shape),
                "float32",
                lowering.name,
                each,
                passes.x,
            )
    result.skipped = budget.skipped
    return result


def _configs(schemes: Sequence[str]) -> Iterator[Config]:
    for scheme in schemes:
        for rounds in sorted({Config().row_rounds, 1}, reverse=True) if scheme == "mixing" else [1]:
            yield Config(scheme=scheme, row_rounds=rounds)


def _passes(passes: Passes) -> Iterator[tuple[str, str, Pass]]:
    """(pass, dtype sent, what is timed)."""
    yield "keys", "float32", passes.keys()
    yield "encode", "float32", passes.encode()
    yield "encode", "bfloat16", passes.encode(torch.bfloat16)
    yield "decode", "float32", passes.decode()
    checks = passes.checks()
    for name in ("check-expect", "check-accept", "check"):
        yield name, "float32", checks[name]


def _add(
    result: Result,
    settings: Settings,
    config: Config,
    name: str,
    shape: list[int],
    dtype: str,
    lowering: str,
    each: Pass,
    of: torch.Tensor,
) -> None:
    took, memcpy = each.beside_copy(of, settings.repeats)
    with threads_for(of.numel()):
        threads = torch.get_num_threads()
    roofline = None if each.touched is None else memcpy.median * each.touched / (2 * of.numel())
    result.add(
        **{"pass": name},
        scheme=config.scheme,
        shape=shape,
        dtype=dtype,
        seconds=took.median,
        memcpy_seconds=memcpy.median,
        memcpy_ratio=took.median / memcpy.median,
        threads=threads,
        lowering=lowering,
        row_rounds=config.row_rounds if config.scheme == "mixing" else 0,
        isa=isa(),
        seconds_min=took.low,
        seconds_max=took.high,
        memcpy_seconds_min=memcpy.low,
        memcpy_seconds_max=memcpy.high,
        repeats=took.count,
        roofline_seconds=roofline,
        roofline_share=None if roofline is None else roofline / took.median,
    )
