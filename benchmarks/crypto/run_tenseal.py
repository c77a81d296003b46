"""TenSEAL (CKKS over Microsoft SEAL): one untrusted server computes on ciphertexts.

    python run_tenseal.py linear [--public-weights] [--shape R K N] [--repeats 3]
    python run_tenseal.py step --activation square --shape R K H N

The rows of the batch are packed into the slots of a ciphertext, one ciphertext per feature. That is far
cheaper per row than TenSEAL's vector times matrix, which encrypts each row by itself. Secret weights
are encrypted too, each repeated in all slots. CKKS has no comparison, hence the square as activation.
The step returns encrypted sums of gradients; the owner of the key scales and subtracts them.
"""

from __future__ import annotations

import numpy as np
import tenseal as ts
import torch
from common import (
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

SECURITY = "one server, semi-honest, secrecy by RLWE at 128 bits, results not checked"


def context(levels: int) -> ts.Context:
    """Keys for `levels` multiplications in a row, at 128 bits of security by SEAL's table."""
    degree = 8192 if levels == 1 else 16384
    made = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=[60, *[40] * levels, 60])
    made.global_scale = 2.0**40
    made.generate_galois_keys()
    return made


def batched(key: ts.Context, rows: np.ndarray) -> ts.CKKSTensor:
    """(R, ...) as ciphertexts (...) with R slots each."""
    return ts.ckks_tensor(key, ts.plain_tensor(rows.ravel().tolist(), list(rows.shape)), batch=True)


def repeated(key: ts.Context, w: np.ndarray, rows: int) -> ts.CKKSTensor:
    return batched(key, np.broadcast_to(w, (rows, *w.shape)))


def opened(c: ts.CKKSTensor) -> np.ndarray:
    return np.array(c.decrypt().tolist())


def linear(key: ts.Context, o: Linear, *, public: bool) -> np.ndarray:
    w_KN = o.w_NK.T
    w = ts.plain_tensor(w_KN.tolist()) if public else repeated(key, w_KN, len(o.x_RK))
    return opened(batched(key, o.x_RK[:, None, :]).mm(w))[:, 0, :]


def step(key: ts.Context, o: Mlp) -> tuple[np.ndarray, np.ndarray]:
    rows = len(o.x_RK)
    x, t = batched(key, o.x_RK[:, None, :]), batched(key, o.t_RN[:, None, :])
    w1, w2 = repeated(key, o.w1_HK.T, rows), repeated(key, o.w2_NH.T, rows)
    a = x.mm(w1)
    h = a * a
    dy = h.mm(w2) - t  # times R
    da = dy.mm(w2.transpose()) * a  # times R / 2
    dw1, dw2 = (outer.transpose().mm(inner).sum_batch() for outer, inner in ((da, x), (dy, h)))
    return o.w1_HK - RATE * 2 / rows * opened(dw1), o.w2_NH - RATE / rows * opened(dw2)


def main() -> None:
    options = arguments(__doc__)
    common = {"system": "TenSEAL", "package": "tenseal", "parties": 1, "security": SECURITY}
    if options.op == "linear":
        o, key = linear_operands(*options.shape), context(levels=1)
        y, taken = clocked(lambda: linear(key, o, public=options.public_weights), options.repeats)
        print_row(
            **common,
            op="linear forward",
            shape=options.shape,
            taken=taken,
            secret="X" if options.public_weights else "X, W",
            plain_seconds=plain_seconds(plain_linear(o, torch.float32)),
            max_error=max_error([y], [plain_linear(o)()]),
        )
        return
    if options.activation != "square":
        raise SystemExit("CKKS has no comparison: --activation square")
    m, key = mlp_operands(*options.shape, options.activation), context(levels=6)
    new, taken = clocked(lambda: step(key, m), options.repeats)
    print_row(
        **common,
        op="mlp training step",
        shape=options.shape,
        taken=taken,
        activation="square",
        secret="X, T, W1, W2",  # noqa: S106 (names of operands)
        plain_seconds=plain_seconds(plain_step(m, torch.float32)),
        max_error=max_error(new, plain_step(m)()),
    )


if __name__ == "__main__":
    main()
