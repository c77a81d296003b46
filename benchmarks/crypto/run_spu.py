"""SPU (SecretFlow): replicated shares between three parties (ABY3), threads of one process.

    python run_spu.py linear [--shape R K N] [--repeats 3]
    python run_spu.py step [--activation relu|square] [--shape R K H N]

Ring of 64 bits with SPU's default fixed point. The parties exchange messages in memory: a network would
only add. Compiling the program is not counted, sharing and opening are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import torch
from common import (
    RATE,
    Linear,
    arguments,
    clocked,
    linear_operands,
    max_error,
    mlp_operands,
    plain_linear,
    plain_seconds,
    plain_step,
    print_row,
)
from spu import libspu
from spu.utils import frontend
from spu.utils.simulation import Simulator

PARTIES = 3
SECURITY = "3 parties, semi-honest, at most one corrupt, results not checked"


def linear(x: Any, w: Any) -> Any:
    return [jnp.matmul(x, w.T)]


def step_of(activation: str) -> Callable[..., Any]:
    def step(x: Any, w1: Any, w2: Any, t: Any) -> Any:
        a = jnp.matmul(x, w1.T)
        slope = (a > 0).astype(jnp.float32) if activation == "relu" else 2 * a
        h = a * slope if activation == "relu" else a * a
        dy = jnp.matmul(h, w2.T) - t  # times R: divided by R it would lose bits of the fixed point
        da = jnp.matmul(dy, w2) * slope
        rate = RATE / x.shape[0]
        return [w1 - rate * jnp.matmul(da.T, x), w2 - rate * jnp.matmul(dy.T, h)]

    return step


def compiled(fun: Callable[..., Any], operands: list[Any]) -> Callable[[], list[Any]]:
    simulator = Simulator.simple(PARTIES, libspu.ProtocolKind.ABY3, libspu.FieldType.FM64)
    executable, _ = frontend.compile(
        frontend.Kind.JAX,
        fun,
        operands,
        {},
        [f"in{i}" for i in range(len(operands))],
        [libspu.Visibility.VIS_SECRET] * len(operands),
        lambda flat: [f"out{i}" for i in range(len(flat))],
    )
    return lambda: simulator(executable, *operands)


def main() -> None:
    options = arguments(__doc__)
    is_linear = options.op == "linear"
    if is_linear and options.public_weights:
        raise SystemExit("--public-weights is measured with TenSEAL only")
    o = linear_operands(*options.shape) if is_linear else mlp_operands(*options.shape, options.activation)
    if isinstance(o, Linear):
        arrays, fun = (o.x_RK, o.w_NK), linear
        plain, exact = plain_linear(o, torch.float32), [plain_linear(o)()]
    else:
        arrays, fun = (o.x_RK, o.w1_HK, o.w2_NH, o.t_RN), step_of(options.activation)
        plain, exact = plain_step(o, torch.float32), plain_step(o)()
    work = compiled(fun, [a.astype("float32") for a in arrays])
    work()
    found, taken = clocked(work, options.repeats)
    print_row(
        system="SPU",
        package="spu",
        op="linear forward" if is_linear else "mlp training step",
        shape=options.shape,
        taken=taken,
        **({} if is_linear else {"activation": options.activation}),
        secret="X, W" if is_linear else "X, T, W1, W2",
        parties=PARTIES,
        security=SECURITY,
        plain_seconds=plain_seconds(plain),
        max_error=max_error(found, exact),
    )


if __name__ == "__main__":
    main()
