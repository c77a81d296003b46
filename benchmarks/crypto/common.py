"""What the three scripts share: operands, the plain result, clocks, one JSON row per measurement.

Needs NumPy and PyTorch only: each system lives in an environment of its own, without Tempo.

The two operations, with R rows, K in-, H hidden and N out-features, no biases:

    linear forward      Y_RN = X_RK W_NK^T

    mlp training step   A_RH = X_RK W1_HK^T,  H = act(A),  Y_RN = H W2_NH^T
                        loss = ||Y - T||^2 / (2 R)
                        dY = (Y - T) / R,  dW2 = dY^T H,  dA = (dY W2) act'(A),  dW1 = dA^T X
                        W <- W - RATE dW
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import torch

RATE = 0.1
_SEED = 20261122
_PLAIN_REPEATS = 30

T = TypeVar("T")


@dataclass(frozen=True)
class Linear:
    x_RK: np.ndarray
    w_NK: np.ndarray


@dataclass(frozen=True)
class Mlp:
    """activation: "relu", or "square" for systems without comparisons."""

    x_RK: np.ndarray
    w1_HK: np.ndarray
    w2_NH: np.ndarray
    t_RN: np.ndarray
    activation: str


def linear_operands(rows: int, k: int, n: int) -> Linear:
    draw = np.random.default_rng(_SEED)
    return Linear(draw.standard_normal((rows, k)), draw.standard_normal((n, k)) / k**0.5)


def mlp_operands(rows: int, k: int, h: int, n: int, activation: str) -> Mlp:
    draw = np.random.default_rng(_SEED)
    return Mlp(
        draw.standard_normal((rows, k)),
        draw.standard_normal((h, k)) / k**0.5,
        draw.standard_normal((n, h)) / h**0.5,
        draw.standard_normal((rows, n)),
        activation,
    )


def plain_linear(o: Linear, dtype: torch.dtype = torch.float64) -> Callable[[], torch.Tensor]:
    x, w = torch.tensor(o.x_RK, dtype=dtype), torch.tensor(o.w_NK, dtype=dtype)
    return lambda: torch.mm(x, w.T)


def plain_step(o: Mlp, dtype: torch.dtype = torch.float64) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """The updated (W1, W2)."""
    x, w1, w2, t = (torch.tensor(a, dtype=dtype) for a in (o.x_RK, o.w1_HK, o.w2_NH, o.t_RN))

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.mm(x, w1.T)
        h, slope = (a.clamp(min=0), (a > 0).to(dtype)) if o.activation == "relu" else (a * a, 2 * a)
        dy = (torch.mm(h, w2.T) - t) / len(x)
        da = torch.mm(dy, w2) * slope
        return w1 - RATE * torch.mm(da.T, x), w2 - RATE * torch.mm(dy.T, h)

    return step


def clocked(work: Callable[[], T], repeats: int) -> tuple[T, list[float]]:
    """The last result, and the seconds of each run."""
    taken: list[float] = []
    while True:
        start = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - start)
        if len(taken) >= repeats:
            return result, taken


def plain_seconds(work: Callable[[], object]) -> float:
    """The best of many in float32, with all threads or with one: small products do better with one, and
    so do all on a machine whose cores are taken."""
    best = []
    threads = torch.get_num_threads()
    for count in {1, threads}:
        torch.set_num_threads(count)
        clocked(work, 3)
        best.append(min(clocked(work, _PLAIN_REPEATS)[1]))
    torch.set_num_threads(threads)
    return min(best)


def max_error(found: Sequence[Any], plain: Sequence[torch.Tensor]) -> float:
    """Greatest absolute difference over all tensors."""
    pairs = zip(found, plain, strict=True)
    return max(float((torch.as_tensor(np.asarray(a)).double() - b).abs().max()) for a, b in pairs)


def print_row(
    *, system: str, package: str, op: str, shape: Sequence[int], taken: Sequence[float], **fields: Any
) -> None:
    """One line of JSON. seconds: from plain operands to plain results, so encryption or sharing and
    decryption or opening are in it."""
    median = statistics.median(taken)
    row = {
        "system": system,
        "version": version(package),
        "op": op,
        "shape": list(shape),
        "seconds": median,
        "seconds_min": min(taken),
        "seconds_max": max(taken),
        "runs": len(taken),
        **fields,
    }
    row["slowdown"] = min(taken) / row["plain_seconds"]
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def arguments(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="op", required=True)
    linear = commands.add_parser("linear", help="one private linear layer, forward")
    linear.add_argument("--shape", type=int, nargs=3, default=[512, 768, 768], metavar=("R", "K", "N"))
    step = commands.add_parser("step", help="one training step of a perceptron with one hidden layer")
    step.add_argument("--shape", type=int, nargs=4, default=[512, 768, 256, 10], metavar=("R", "K", "H", "N"))
    step.add_argument("--activation", choices=["relu", "square"], default="relu")
    for each in (linear, step):
        each.add_argument("--repeats", type=int, default=3)
    linear.add_argument("--public-weights", action="store_true", help="W is known to the server (TenSEAL)")
    return parser.parse_args()
