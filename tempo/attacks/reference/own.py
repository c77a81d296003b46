"""Operands sealed as the engine seals them, without a fleet: what a worker would have seen.

An attacker runs the public scheme under keys of its own to learn what sealed operands look like (attack 15).
Tests use the same to plant what an attack must find. It knows keys, so attacks get its methods handed in.

Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from tempo.attacks.transcript import Seen, Transcript
from tempo.config import Config
from tempo.ops import Op, grad_w, grad_x, product
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import Scheme
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre
from tempo.truth import UnsafeTruth


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Step:
    """One product in the clear: x (G, R, K), w (G, N, K), dy (G, R, N) where gradients are sent. Steps that
    hold the very same w share its features' keys, as micro-batches do. parameter: the name of w."""

    x: Tensor
    w: Tensor
    dy: Tensor | None = None
    parameter: str = "weight"


@final
class Sealer:
    """Seals under a session key of its own. Two calls never share a key. how: settings, or a scheme that no
    setting gives, such as one with a part left out."""

    def __init__(self, how: Config | Scheme | None = None) -> None:
        self._scheme = how if isinstance(how, Scheme) else (how or Config()).make_scheme()
        self._key = SessionKey()
        self._labels = itertools.count(1)

    def rows(self, x_RK: Tensor) -> Tensor:
        """X' of rows (R, K)."""
        x_GRK = x_RK.unsqueeze(0)
        return self._x(self._features(1, x_RK.shape[1], 1), x_GRK, self._rows(x_GRK))

    def weight(self, w_NK: Tensor) -> Tensor:
        """W' of a weight (N, K)."""
        n, k = w_NK.shape
        return self._features(1, k, n).seal_w(w_NK.unsqueeze(0))[0]

    def run(self, folder: Path, steps: Sequence[Step]) -> Transcript:
        """What one worker would have seen of these steps under key shift; the truth goes to `folder`."""
        truth, ids, clock = UnsafeTruth(folder), itertools.count(1), itertools.count()
        keys: dict[int, tuple[int, FeatureKey, Tensor]] = {}
        seen: list[Seen] = []

        def job(op: Op, left: tuple[int, Tensor], right: tuple[int, Tensor], rows: tuple[int, ...]) -> None:
            result = {Op.PRODUCT: product, Op.GRAD_X: grad_x, Op.GRAD_W: grad_w}[op](left[1], right[1], rows)
            now = float(next(clock))
            seen.append(Seen("own", op, left[0], right[0], left[1], right[1], result, rows, (now, now + 0.5)))

        for step in steps:
            groups, r, k = step.x.shape
            if id(step.w) not in keys:
                key, number = self._features(groups, k, step.w.shape[1]), next(ids)
                keys[id(step.w)] = number, key, key.seal_w(step.w)
                owner = torch.nn.Parameter(step.w)
                holder = torch.nn.Module()
                holder.register_parameter(step.parameter, owner)
                truth.learn(holder)
                truth.weight(number, owner, "linear", step.w, key.c, [b.dual() for b in key.b])
            w_id, key, w = keys[id(step.w)]
            row_key, counts, x_id = self._rows(step.x), (r,) * groups, next(ids)
            truth.rows(x_id, "x", w_id, list(step.x), row_key.bases(), key.b)
            x = self._x(key, step.x, row_key)
            job(Op.PRODUCT, (x_id, x), (w_id, w), counts)
            if step.dy is None:
                continue
            dy_id, where = next(ids), Selection.everything(groups, r)
            dy = row_key.seal_dy(row_key.bases(), key.c, step.dy, where)
            left = [b.dual() for b in row_key.bases()]
            truth.rows(dy_id, "dy", w_id, list(step.dy), left, [c.dual() for c in key.c])
            job(Op.GRAD_W, (dy_id, dy), (x_id, x), counts)
            job(Op.GRAD_X, (dy_id, dy), (w_id, w), counts)
        return Transcript(tuple(seen))

    def _features(self, groups: int, k: int, n: int) -> FeatureKey:
        return FeatureKey(self._key, self._scheme, ("W", next(self._labels)), groups=groups, k=k, n=n)

    def _rows(self, x_GRK: Tensor) -> RowKey:
        counts = [x_GRK.shape[1]] * x_GRK.shape[0]
        return RowKey(self._key, self._scheme, ("rows", next(self._labels)), counts)

    def _x(self, key: FeatureKey, x_GRK: Tensor, row_key: RowKey) -> Tensor:
        where = Selection.everything(*x_GRK.shape[:2])
        centre = None
        if self._scheme.blurs_rows:
            centre = draw_centre(self._key, ("own", next(self._labels)), x_GRK, where)
        return row_key.seal_x(row_key.bases(), key.b, x_GRK, where, centre)
