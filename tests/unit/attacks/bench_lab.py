"""A session in miniature: operands sealed by the scheme's own code, without workers. Quick, and knobs may be
turned to where a session would refuse them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.transcript import Seen, Transcript
from tempo.attacks.truth import Truth
from tempo.ops import Op
from tempo.ops.product import grad_w, grad_x, product
from tempo.secrecy.basis import Basis
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.rows import Selection, negligible, row_norms
from tempo.secrecy.scheme import MixingScheme, MonomialScheme, Scheme, UnsafeNone
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre
from tempo.truth import UnsafeTruth


class RowsPermuted(Scheme):
    """A knob turned down: features mixed, rows only permuted."""

    name = "rows only permuted"
    blurs_rows = False

    def __init__(self, *, spread: float = 1.0000001, block: int = 4) -> None:
        super().__init__(chunk=8192, smallest=1)
        self.spread, self.block = spread, block

    def features(self, stream, lengths: Sequence[int]) -> list[Basis]:
        return mixing_bases(stream, lengths, spread=self.spread, rounds=1, block=self.block)

    def _stretches(self, stream, lengths: Sequence[int]) -> list[Basis]:
        return monomial_bases(stream, lengths, spread=1.0000001)


def scheme(name: str, *, block: int = 64, rounds: int = 2, spread: float = 2**0.5) -> Scheme:
    match name:
        case "unsafe_none":
            return UnsafeNone(chunk=8192, smallest=1)
        case "monomial":
            return MonomialScheme(spread=spread, chunk=8192, smallest=1)
        case "rows permuted":
            return RowsPermuted(block=block)
        case "mixing":
            return MixingScheme(
                spread=spread, chunk=8192, smallest=1, rounds=rounds, row_rounds=rounds, block=block
            )
    raise ValueError(name)


class Lab:
    """products(...) seals, multiplies and writes down; `transcript` and `truth` are what came of it."""

    def __init__(self, scheme: Scheme, folder: Path, *, drop: bool | None = None) -> None:
        self.scheme, self.folder = scheme, folder
        self.drop = scheme.blurs_rows if drop is None else drop
        self.key, self.ids, self.labels = SessionKey(), itertools.count(1), itertools.count()
        self.writer, self.seen, self.clock = UnsafeTruth(folder), [], itertools.count()

    def weight(self, w_GNK: Tensor, owner: Tensor | None = None, lowering: str = "linear"):
        number = next(self.ids)
        groups, n, k = w_GNK.shape
        key = FeatureKey(self.key, self.scheme, ("W", number), groups=groups, k=k, n=n)
        sealed = key.seal_w(w_GNK.contiguous())
        self.writer.weight(number, owner, lowering, w_GNK, key.c, [b.dual() for b in key.b])
        return number, key, sealed

    def forward(self, weight, x_GRK: Tensor):
        w_id, key, w = weight
        norms = row_norms(x_GRK)
        where = (
            Selection.where(~negligible(norms, x_GRK.dtype))
            if self.drop
            else Selection.everything(*x_GRK.shape[:2])
        )
        label = (next(self.labels),)
        rows = RowKey(self.key, self.scheme, label, where.counts)
        a, centre = rows.bases(), None
        if self.scheme.blurs_rows:
            centre = draw_centre(self.key, label, x_GRK, where)
        x = rows.seal_x(a, key.b, x_GRK, where, centre)
        number = next(self.ids)
        self.writer.rows(number, "x", w_id, where.rows_of(x_GRK), a, key.b)
        self._saw(Op.PRODUCT, number, w_id, x, w, product(x, w, where.counts), where.counts)
        return number, rows, a, where, x

    def backward(self, weight, forward, dy_GRN: Tensor, *, dx: bool = True) -> None:
        (w_id, key, w), (x_id, rows, a, where, x) = weight, forward
        dy = rows.seal_dy(a, key.c, dy_GRN, where)
        number = next(self.ids)
        duals = [e.dual() for e in a], [c.dual() for c in key.c]
        self.writer.rows(number, "dy", x_id, where.rows_of(dy_GRN), *duals)
        self._saw(Op.GRAD_W, number, x_id, dy, x, grad_w(dy, x, where.counts), where.counts)
        if dx:
            self._saw(Op.GRAD_X, number, w_id, dy, w, grad_x(dy, w, where.counts), where.counts)

    def _saw(self, op: Op, left_id, right_id, left, right, result, rows) -> None:
        t = float(next(self.clock))
        self.seen.append(
            Seen("w", op, left_id, right_id, left.clone(), right.clone(), result, tuple(rows), (t, t))
        )

    @property
    def transcript(self) -> Transcript:
        return Transcript(tuple(self.seen))

    @property
    def truth(self) -> Truth:
        return Truth(self.folder)

    def step(self, mlp: nn.Sequential, x: Tensor, labels: Tensor, *, backward: bool = True) -> None:
        """One training step of an MLP with ReLU whose linear layers, but for the last, are sent."""
        linears = [m for m in mlp if isinstance(m, nn.Linear)][:-1]
        self.writer.learn(mlp)
        sealed = [self.weight(m.weight.detach()[None], m.weight) for m in linears]
        inputs, outputs, forwards, h = [], [], [], x
        for layer in mlp:
            if isinstance(layer, nn.Linear):
                inputs.append(h.detach())
            h = layer(h)
            if isinstance(layer, nn.Linear):
                outputs.append(h)
        for weight, x_in in zip(sealed, inputs[:-1], strict=True):
            forwards.append(self.forward(weight, x_in[None].contiguous()))
        if backward:
            grads = torch.autograd.grad(F.cross_entropy(h, labels), outputs[:-1])
            for i in reversed(range(len(sealed))):
                self.backward(sealed[i], forwards[i], grads[i][None].contiguous(), dx=i > 0)


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's real 8x8 digits, pixels from 0 to 1, shuffled: (1797, 64) and labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]


@lru_cache(maxsize=4)
def trained(hidden: int = 96, steps: int = 150, bias: bool = True, penalty: float = 0.0) -> nn.Sequential:
    """An MLP with ReLU, trained from scratch on the first 900 digits. penalty: on activations, for sparse
    ones."""
    torch.manual_seed(0)
    x, y = digits()
    mlp = nn.Sequential(
        nn.Linear(64, hidden, bias=bias),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=bias),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
    optimizer = torch.optim.Adam(mlp.parameters(), lr=3e-3)
    for i in range(steps):
        pick = torch.arange(i * 128, (i + 1) * 128) % 900
        optimizer.zero_grad()
        first = mlp[:2](x[pick])
        second = mlp[2:4](first)
        loss = F.cross_entropy(mlp[4](second), y[pick]) + penalty * (first.mean() + second.mean())
        loss.backward()
        optimizer.step()
    return mlp
