"""One layer forward and backward: in the master alone, and under Tempo with one local worker.

    python benchmarks/layers.py [--json] [--fast]

master_seconds is the master's own work (keys, encode, check, decode, lowering): what remains when workers
and link cost nothing. speedup_over_tee_only compares whole seconds: with a worker on the same machine
it says what Tempo costs, not what a GPU would save.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from torch import nn

import tempo
from tempo.cli.output import document, print_json, table

LAYERS = {
    "linear 768 to 3072, 4096 rows": (lambda: nn.Linear(768, 3072), (4096, 768)),
    "linear 2048 to 2048, 4096 rows": (lambda: nn.Linear(2048, 2048), (4096, 2048)),
    "conv 3x3 64 to 64, 64 images 14x14": (lambda: nn.Conv2d(64, 64, 3, padding=1), (64, 64, 14, 14)),
    "conv 3x3 256 to 256, 16 images 28x28": (lambda: nn.Conv2d(256, 256, 3, padding=1), (16, 256, 28, 28)),
}


def step_seconds(layer: nn.Module, x: torch.Tensor, repeats: int) -> float:
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        layer(x).square().mean().backward()
        taken.append(time.perf_counter() - start)
        with torch.no_grad():  # an optimizer step, so that the weight is encoded anew as in training
            for parameter in layer.parameters():
                parameter.add_(0.0)
    return statistics.median(taken[1:])


def measure(name: str, scheme: str, repeats: int) -> list[dict[str, object]]:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(shape, requires_grad=True)
    alone = step_seconds(layer, x, repeats)
    with tempo.Session("local:1", scheme=scheme) as session:
        session.protect(layer)
        seconds = step_seconds(layer, x, repeats)
        report = session.report()
    steps = repeats + 1
    own = sum(s for part, s in report.seconds.items() if part != "wait") / steps
    common = {"op": name, "shape": list(shape), "scheme": scheme, "verify": True}
    return [
        common | {"mode": "tee-only", "workers": 0, "seconds": alone, "master_seconds": alone, "bytes": 0},
        common
        | {
            "mode": "tempo",
            "workers": 1,
            "seconds": seconds,
            "master_seconds": own,
            "bytes": (report.bytes_sent + report.bytes_received) // steps,
            "speedup_over_tee_only": alone / seconds,
            "speedup_if_workers_were_free": alone / own,
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--fast", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats = 2 if options.fast else 5
    rows = [row for name in LAYERS for row in measure(name, "mixing", repeats)]
    if options.json:
        print_json(document("bench layers", rows))
        return
    cells = [
        (
            row["op"],
            row["mode"],
            f"{row['seconds']:.3f}",
            f"{row['master_seconds']:.3f}",
            f"{row['bytes'] / 1e6:.0f}",
            f"{row.get('speedup_if_workers_were_free', 1.0):.2f}",
        )
        for row in rows
    ]
    columns = ["layer, forward and backward", "mode", "seconds", "master", "MB", "speed-up, free workers"]
    Console().print(table("Layers, scheme mixing, verified", columns, cells))


if __name__ == "__main__":
    main()
