"""Lowering and the encoding after it, against a memcpy of as many elements, interleaved with it.

    python benchmarks/lowering.py [--json] [--fast]

One row per pass; `elements` is what the pass's larger side holds, which for lower_x and lower_dy is what is
sent. The memcpy goes into memory already touched. TEMPO_KERNELS chooses the passes, OMP_NUM_THREADS the
threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count

import torch
from rich.console import Console

from tempo.cli.output import document, print_json, table
from tempo.config import Config
from tempo.kernels import native_status
from tempo.lowering import Lowering, lower_conv
from tempo.memory import Pool
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey, RowKey

#: x (B, C, H, W), w, options.
LAYERS = (
    ((64, 256, 28, 28), (256, 256, 3, 3), {"padding": 1}),
    ((64, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    ((64, 128, 56, 56), (128, 128, 3, 3), {"padding": 1, "stride": 2}),
    ((64, 256, 28, 28), (1024, 256, 1, 1), {}),
    ((64, 256, 56, 56), (512, 256, 1, 1), {"stride": 2}),
    ((64, 256, 28, 28), (256, 8, 3, 3), {"padding": 1, "stride": 2, "groups": 32}),
)
COLUMNS = (
    *("lowering", "pass", "shape", "memory", "kernels", "threads"),
    *("elements", "seconds", "memcpy_seconds", "memcpy_ratio", "memcpy_ratio_low", "memcpy_ratio_high"),
)


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every repetition, taken in turns: what else the machine does hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return taken


def encoding(lowering: Lowering, x_GRK: torch.Tensor) -> Callable[[], object]:
    """Seal X as the engine does, rows and features mixed, under a fresh row key each time."""
    size, key, scheme, pool = lowering.shape, SessionKey(), Config(scheme="mixing").make_scheme(), Pool()
    feature_key = FeatureKey(key, scheme, (0,), groups=size.groups, k=size.k, n=size.n)
    rows, everything = [size.rows] * size.groups, Selection.everything(size.groups, size.rows)
    bases, labels = RowKey(key, scheme, (0,), rows).bases(), count(1)

    def seal() -> object:
        out = pool.empty((sum(rows), size.k), x_GRK.dtype)
        row_key = RowKey(key, scheme, (next(labels),), rows)
        return row_key.seal_x(bases, feature_key.b, x_GRK, everything, out)

    return seal


def measure(
    layer: tuple[tuple[int, ...], tuple[int, ...], dict[str, int]], memory: str, repeats: int
) -> list[dict[str, object]]:
    x_shape, w_shape, options = layer
    lowering = lower_conv(x_shape, w_shape, **options)
    layout = torch.channels_last if memory == "channels last" else torch.contiguous_format
    x = torch.randn(x_shape).contiguous(memory_format=layout)
    x_GRK = lowering.lower_x(x)
    y_GRN = torch.randn(lowering.shape.groups, lowering.shape.rows, lowering.shape.n)
    dy = lowering.raise_y(y_GRN).contiguous(memory_format=layout)
    x_copy, y_copy = torch.empty_like(x_GRK), torch.empty_like(y_GRN)
    seal = encoding(lowering, x_GRK)

    def lower_and_seal() -> None:
        lowering.lower_x(x)
        seal()

    sides = {
        "lower_x": (x, x_GRK),
        "seal_x": (x_GRK, x_GRK),
        "lower_x + seal_x": (x, x_GRK),
        "raise_dx": (x, x_GRK),
        "lower_dy": (dy, y_GRN),
        "raise_y": (dy, y_GRN),
    }
    works: dict[str, Callable[[], object]] = {
        "memcpy X": lambda: x_copy.copy_(x_GRK),
        "lower_x": lambda: lowering.lower_x(x),
        "seal_x": seal,
        "lower_x + seal_x": lower_and_seal,
        "raise_dx": lambda: lowering.raise_dx(x_GRK),
        "memcpy Y": lambda: y_copy.copy_(y_GRN),
        "lower_dy": lambda: lowering.lower_dy(dy),
        "raise_y": lambda: lowering.raise_y(y_GRN),
    }
    taken = interleaved(works, repeats)
    copied = {side: statistics.median(taken[f"memcpy {side}"]) for side in "XY"}
    result = []
    for name, (image, rows) in sides.items():
        elements = max(image.numel(), rows.numel())
        memcpy = copied["Y" if rows is y_GRN else "X"] * elements / rows.numel()
        low, seconds, high = (pick(taken[name]) for pick in (min, statistics.median, max))
        threads, kernels = torch.get_num_threads(), native_status().serving
        values = (lowering.name, name, [*x_shape], memory, kernels, threads, elements, seconds, memcpy)
        ratios = (seconds / memcpy, low / memcpy, high / memcpy)
        result.append(dict(zip(COLUMNS, (*values, *ratios), strict=True)))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--fast", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats = 5 if options.fast else 15
    rows = [
        row
        for layer in LAYERS
        for memory in ("planes", "channels last")
        for row in measure(layer, memory, repeats)
    ]
    if options.json:
        print_json(document("bench lowering", rows))
        return
    cells = [
        (r["lowering"], r["pass"], r["shape"], r["memory"], f"{r['seconds']:.4f}", f"{r['memcpy_ratio']:.2f}")
        for r in rows
    ]
    Console().print(table("Lowering", ["lowering", "pass", "B, C, H, W", "x", "seconds", "memcpys"], cells))


if __name__ == "__main__":
    main()
