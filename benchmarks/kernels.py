"""Each pass of the master against a memcpy of the same tensor, in the same run.

    python benchmarks/kernels.py [--json] [--fast]

Columns as in DESIGN's `bench kernels`: seconds are medians; memcpy is a copy into memory already touched.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console

from tempo.cli.output import document, print_json, table
from tempo.config import Config
from tempo.integrity import Verifier
from tempo.kernels import threads_for
from tempo.ops import Job, Op, Operand
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey, RowKey, open_rows

SHAPES = ((1, 25088, 768), (1, 4096, 4096), (36, 1024, 64))
COLUMNS = ("scheme", "pass", "shape", "dtype", "seconds", "memcpy_seconds", "memcpy_ratio", "threads")


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(scheme_name: str, shape: tuple[int, int, int], repeats: int) -> list[dict[str, object]]:
    groups, rows, features = shape
    key, config = SessionKey(), Config(scheme=scheme_name)
    scheme = config.make_scheme()
    x = torch.randn(groups, rows, features)
    copy = torch.empty_like(x)
    feature_key = FeatureKey(key, scheme, (0,), groups=groups, k=features, n=features)
    numbers = iter(range(1, 1 << 30))
    bases = RowKey(key, scheme, (0,), [rows] * groups).bases()

    everything = Selection.everything(groups, rows)

    def encode() -> torch.Tensor:
        row_key = RowKey(key, scheme, (next(numbers),), [rows] * groups)
        return row_key.seal_x(bases, feature_key.b, x, everything)

    sealed, out = encode(), torch.empty_like(x)
    weight = torch.randn(groups, features, features)
    job = Job(
        Op.PRODUCT,
        Operand(1, tuple(sealed.shape), sealed.dtype, sealed),
        Operand(2, tuple(weight.shape), weight.dtype, weight),
        (rows,) * groups,
    )
    checks = Verifier(key, config.probes).begin()
    passes: dict[str, Callable[[], object]] = {
        "keys": lambda: RowKey(key, scheme, (next(numbers),), [rows] * groups).bases(),
        "encode": encode,
        "decode": lambda: open_rows(sealed, bases, feature_key.b, everything, out),
        "check": lambda: checks.expect(job),
    }
    memcpy = median_seconds(lambda: copy.copy_(x), 5 * repeats)
    result = []
    for name, work in passes.items():
        with threads_for(rows * features):  # as the engine does
            seconds = median_seconds(work, repeats)
        values = (scheme_name, name, list(shape), "float32", seconds, memcpy, seconds / memcpy)
        result.append(dict(zip(COLUMNS, (*values, torch.get_num_threads()), strict=True)))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--fast", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats = 3 if options.fast else 9
    rows = [
        r for scheme in ("mixing", "monomial") for shape in SHAPES for r in measure(scheme, shape, repeats)
    ]
    if options.json:
        print_json(document("bench kernels", rows))
        return
    cells = [
        (r["scheme"], r["pass"], r["shape"], f"{r['seconds']:.4f}", f"{r['memcpy_ratio']:.1f}") for r in rows
    ]
    Console().print(table("Passes of the master", ["scheme", "pass", "G, R, K", "seconds", "memcpys"], cells))


if __name__ == "__main__":
    main()
