"""CrypTen: additive shares between two processes on this machine, over loopback (gloo).

    python run_crypten.py linear [--shape R K N] [--repeats 3]
    python run_crypten.py step [--activation relu|square] [--shape R K H N]

Party 0 has all plain operands, shares them, and both open the result. Products use multiplication triples
of CrypTen's default provider, which party 0 itself makes: cheaper and weaker than any real deployment.
"""

from __future__ import annotations

import sys
import types
from typing import Any

# CrypTen imports its ONNX converter at start, and that needs packages which no longer fit together.
# Nothing here converts a model.
_converter: Any = types.ModuleType("crypten.nn.onnx_converter")
for _name in ("from_onnx", "from_pytorch", "from_tensorflow", "TF_AND_TF2ONNX"):
    setattr(_converter, _name, None)
sys.modules["crypten.nn.onnx_converter"] = _converter

import crypten  # noqa: E402
import crypten.mpc  # noqa: E402
import torch  # noqa: E402
from common import (  # noqa: E402
    RATE,
    Linear,
    Mlp,
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

PARTIES = 2
SECURITY = "2 parties, semi-honest, no collusion, triples by a trusted dealer (party 0), results not checked"


def shared(a: Any) -> crypten.CrypTensor:
    return crypten.cryptensor(torch.tensor(a, dtype=torch.float32), src=0)


def linear(o: Linear) -> list[torch.Tensor]:
    return [shared(o.x_RK).matmul(shared(o.w_NK).t()).get_plain_text()]


def step(o: Mlp) -> list[torch.Tensor]:
    x, w1, w2, t = (shared(a) for a in (o.x_RK, o.w1_HK, o.w2_NH, o.t_RN))
    a = x.matmul(w1.t())
    slope = a.gt(0) if o.activation == "relu" else a * 2  # one comparison serves act and act'
    h = a * slope if o.activation == "relu" else a.square()
    dy = h.matmul(w2.t()) - t  # times R: divided by R it would lose bits of the fixed point
    da = dy.matmul(w2) * slope
    rate = RATE / len(o.x_RK)
    new = [w1 - da.t().matmul(x) * rate, w2 - dy.t().matmul(h) * rate]
    return [w.get_plain_text() for w in new]


@crypten.mpc.context.run_multiprocess(world_size=PARTIES)
def party(o: Linear | Mlp, exact: list[torch.Tensor], repeats: int) -> tuple[float, list[float]]:
    """(greatest error, seconds of each run). Small, because CrypTen's launcher reads results only after
    the processes have ended, and a full pipe would keep them from ending."""
    torch.set_num_threads(1)
    work = (lambda: linear(o)) if isinstance(o, Linear) else (lambda: step(o))
    work()
    found, taken = clocked(work, repeats)
    return max_error(found, exact), taken


def main() -> None:
    options = arguments(__doc__)
    is_linear = options.op == "linear"
    if is_linear and options.public_weights:
        raise SystemExit("--public-weights is measured with TenSEAL only")
    o = linear_operands(*options.shape) if is_linear else mlp_operands(*options.shape, options.activation)
    if isinstance(o, Linear):
        plain, exact = plain_linear(o, torch.float32), [plain_linear(o)()]
    else:
        plain, exact = plain_step(o, torch.float32), list(plain_step(o)())
    results = party(o, exact, options.repeats)
    if results is None:
        raise SystemExit("a party failed: its error is above")
    error, taken = results[0]
    print_row(
        system="CrypTen",
        package="crypten",
        op="linear forward" if is_linear else "mlp training step",
        shape=options.shape,
        taken=taken,
        **({} if is_linear else {"activation": options.activation}),
        secret="X, W" if is_linear else "X, T, W1, W2",
        parties=PARTIES,
        security=SECURITY,
        plain_seconds=plain_seconds(plain),
        max_error=error,
    )


if __name__ == "__main__":
    main()
