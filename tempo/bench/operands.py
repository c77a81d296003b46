"""Operands of all kinds that a layer may meet, and shapes of all classes, for checks of honest workers.

Axes: T rows of all groups, K in-features, N out-features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Generator, Tensor

from tempo.ops import Op
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre

#: Draws (rows, features), or (G, N, K), in float64.
Draw = Callable[..., Tensor]


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """rows of each group, K, N."""

    name: str
    rows: tuple[int, ...]
    k: int
    n: int

    @property
    def text(self) -> str:
        return f"{'+'.join(map(str, self.rows))}x{self.k}x{self.n}"


SHAPES: Final = (
    Shape("small", (64,), 64, 64),
    Shape("short inner", (96,), 8, 96),
    Shape("long inner", (64,), 4096, 64),
    Shape("wide", (64,), 64, 2048),
    Shape("tall", (2048,), 64, 64),
    Shape("ragged groups", (100, 28, 0, 3), 65, 96),
)
#: With more than 10^6 results in every operation.
LARGE: Final = (
    Shape("large", (1024,), 1024, 1024),
    Shape("large, tall", (2048,), 700, 1500),
)


def normal(g: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _uniform(g: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g, dtype=torch.float64)


def _heavy(g: Generator, *shape: int) -> Tensor:
    return normal(g, *shape).mul(3).exp()


def _large_mean(g: Generator, *shape: int) -> Tensor:
    return 1000 + normal(g, *shape)


def _sparse(g: Generator, *shape: int) -> Tensor:
    return normal(g, *shape) * (_uniform(g, *shape) < 0.05)


def _rows_of_all_sizes(g: Generator, *shape: int) -> Tensor:
    return normal(g, *shape) * torch.logspace(-9, 9, shape[-2], dtype=torch.float64)[:, None]


def _cancelling(g: Generator, *shape: int) -> Tensor:
    return normal(g, *shape).sign() * 1e4 + normal(g, *shape)


def constant(g: Generator, *shape: int) -> Tensor:
    """Every entry of a row the same, and no short fraction."""
    return (1 + _uniform(g, *shape[:-1], 1)).expand(*shape).clone()


KINDS: Final[dict[str, Draw]] = {
    "normal": normal,
    "positive": _uniform,
    "ReLU": lambda g, *shape: normal(g, *shape).relu(),
    "sparse": _sparse,
    "heavy tails": _heavy,
    "large mean": _large_mean,
    "rows of all sizes": _rows_of_all_sizes,
    "cancelling": _cancelling,
    "constant": constant,
}


def pair_of(op: Op, shape: Shape, draw: Draw, g: Generator) -> tuple[Tensor, Tensor]:
    """Left and right operand; dY is normal."""
    total = sum(shape.rows)
    x, w = draw(g, total, shape.k), draw(g, len(shape.rows), shape.n, shape.k)
    dy = normal(g, total, shape.n)
    return {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}[op]


def sealed_pairs(
    scheme: str, shape: Shape, draw: Draw, g: Generator, dtype: torch.dtype
) -> dict[Op, tuple[Tensor, Tensor]]:
    """The operands of all three operations in a fresh secret basis, as a session sends them."""
    total = max(shape.rows)
    groups = len(shape.rows)
    key = SessionKey()
    made = scheme_from(scheme, spread=2**0.5, chunk=8192, smallest=1, rounds=2, row_rounds=2, block=64)
    weight = FeatureKey(key, made, (0,), groups=groups, k=shape.k, n=shape.n)
    rows = RowKey(key, made, (0,), shape.rows)
    bases = rows.bases()
    where = Selection(tuple(torch.arange(r) for r in shape.rows), total)
    x_GRK = draw(g, groups, total, shape.k).to(dtype)
    dy_GRN = normal(g, groups, total, shape.n).to(dtype)
    centre = draw_centre(key, (0,), x_GRK, where) if made.blurs_rows else None
    w = weight.seal_w(draw(g, groups, shape.n, shape.k).to(dtype))
    x = rows.seal_x(bases, weight.b, x_GRK, where, centre)
    dy = rows.seal_dy(bases, weight.c, dy_GRN, where)
    return {Op.PRODUCT: (x, w), Op.GRAD_X: (dy, w), Op.GRAD_W: (dy, x)}
