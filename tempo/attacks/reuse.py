"""Attack 11: what keys give away that serve more than once, and what differences do.

One W' meets many X' under the same B, each with row bases of its own: X'_n = A_n X_n B^T. Batches,
micro-batches and chunks of one operation alike.

    rank          of all X'_n stacked: that of all X_n together, no more than K
    static basis  the rows are ever more samples of the same K mixtures. Independent components (FastICA) need
                  rows that are not Gaussian, which mixing takes care of. Joint diagonalisation needs none of
                  that: X'_n^T X'_n ~ B (X_n^T X_n) B^T, and where features vary from batch to batch each for
                  itself, B^-1 is what makes all of them diagonal at once. The curve over N says how many
                  uses a key bears (Config.weight_uses)

Operands that differ by little:

    repeats       the same batch again, or with one row changed: nearest row space (fewer rows than features)
                  or second moment under one key; nearest singular values under fresh keys
    changed row   where X_n has fewer rows than features, what X'_b has outside the row space of its nearest
                  X'_a is the changed row alone, out of the mixture of rows (though still in the basis B)
    steps         W of consecutive steps under fresh keys: change of the logarithms of singular values
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.separation import batches, fastica
from tempo.attacks.transcript import Pass, Transcript

#: W' attacked (those with the most uses), numbers of uses, rows stacked at most, components looked for.
LAYERS: Final = 2
USES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: Of these, numbers of uses whose moments are made diagonal, in so many of the strongest directions, since
#: that takes most of the time. Turns of FastICA.
JOINT: Final = (2, 4, 16, 64, 256)
STRONGEST: Final = 64
ITERATIONS: Final = 60
ROWS: Final = 1 << 17
COMPONENTS: Final = 128
#: Passes compared with each other.
PASSES: Final = 128
#: Directions kept of what lies outside a row space: the changed row, and the owner's other centre.
CHANGED: Final = 2


@final
@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """The basis after so many uses: unmixing (D, K) by way; rank of what was stacked. seen: the first X' of
    them (R, K), for a judge."""

    uses: int
    w_id: int
    x_ids: tuple[int, ...]
    rank: int
    unmixing: dict[str, Tensor]
    seen: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """For one X' the one taken for most like it. among: how many it was chosen from, as ids.
    changed (K, CHANGED): directions of what is new in it, where there are any to be seen."""

    x_id: int
    other: int
    among: tuple[int, ...]
    changed: Tensor | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Reuse:
    """steps: (W' of a step, W' of the next, change of the logarithms of singular values)."""

    curve: list[Use]
    same_key: list[Nearest]
    fresh_keys: list[Nearest]
    steps: list[tuple[int, int, Tensor]]


@final
class KeyReuse(Attack[Nothing, Reuse]):
    name = "reuse"
    number = 11
    title = "Key reuse and differences"
    adversary = "one worker that keeps every operand it was sent"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "largest true feature's share of each component; repeats found; changed row opened"
    compute = "independent components of up to 131,072 rows, and all pairs of 128 operands: a minute"

    def run(self, transcript: Transcript, knowledge: Nothing) -> Reuse:
        layers = transcript.layers()
        if not layers:
            raise NothingToAttack("no forward product was seen, so no key was used even once")
        most = sorted(layers, key=len, reverse=True)[:LAYERS]
        curve = [use for passes in most for use in _curve(passes)]
        same = [near for passes in most if len(passes) > 2 for near in _same_key(passes[:PASSES])]
        return Reuse(curve, same, _fresh_keys(layers, knowledge), _steps(layers, knowledge))


def _x(p: Pass) -> Tensor:
    """X' of the first group."""
    return p.groups(p.x)[0].double()


def _curve(passes: Sequence[Pass]) -> list[Use]:
    out = []
    for uses in USES:
        if uses > len(passes):
            break
        some = [_x(p).numpy() for p in passes[:uses]]
        rows = np.concatenate(some)[:ROWS]
        # Hundreds of thousands of samples are averaged over: float32 is enough for each.
        found = {"components": fastica(rows.astype(np.float32), most=COMPONENTS, turns=ITERATIONS)}
        if uses in JOINT:
            found["moments"] = batches(some, most=STRONGEST)
        ways = {way: torch.from_numpy(v.T.astype(np.float64)) for way, v in found.items() if v.shape[1] > 1}
        rank = int(np.linalg.matrix_rank(np.linalg.qr(rows, mode="r"), rtol=1e-5))
        out.append(
            Use(uses, passes[0].w_id or 0, tuple(p.x_id for p in passes[:uses]), rank, ways, _x(passes[0]))
        )
    return out


def _same_key(passes: Sequence[Pass]) -> list[Nearest]:
    xs, ids = [_x(p) for p in passes], [p.x_id for p in passes]
    wide = all(len(x) < x.shape[1] for x in xs)
    if wide:
        spaces = [torch.linalg.svd(x, full_matrices=False).Vh for x in xs]
        alike = torch.stack([torch.stack([(a @ b.mT).square().sum() for b in spaces]) for a in spaces])
    else:
        moments = torch.stack([(x.mT @ x / x.square().sum()).flatten() for x in xs])
        # What all batches have in common tells none from another.
        alike = torch.corrcoef(moments - moments.mean(0))
    return [
        Nearest(ids[i], ids[j], tuple(ids[:i] + ids[i + 1 :]), _outside(xs[i], spaces[j]) if wide else None)
        for i, j in enumerate(_best(alike))
    ]


def _outside(x_TK: Tensor, space_TK: Tensor) -> Tensor:
    """Strongest directions (K, CHANGED) of what the rows have outside a row space."""
    rest = x_TK - (x_TK @ space_TK.mT) @ space_TK
    directions: Tensor = torch.linalg.svd(rest, full_matrices=False).Vh[:CHANGED]
    return directions.mT


def _fresh_keys(layers: Sequence[Sequence[Pass]], knowledge: Nothing) -> list[Nearest]:
    """The first X' of every W' of the first layer: no two share a key."""
    first = [passes[0] for passes in layers[:: _period(layers, knowledge)]][:PASSES]
    if len(first) < 3:
        return []
    # The smaller half of singular values is moved by whatever the owner adds to a batch.
    size = max(min(min(_x(p).shape) for p in first) // 2, 1)
    logs = torch.stack([torch.linalg.svdvals(_x(p))[:size].clamp_min(1e-12).log() for p in first])
    alike = -torch.cdist(logs - logs.mean(1, keepdim=True), logs - logs.mean(1, keepdim=True))
    ids = [p.x_id for p in first]
    return [Nearest(ids[i], ids[j], tuple(ids[:i] + ids[i + 1 :]), None) for i, j in enumerate(_best(alike))]


def _steps(layers: Sequence[Sequence[Pass]], knowledge: Nothing) -> list[tuple[int, int, Tensor]]:
    period, out = _period(layers, knowledge), []
    for start in range(min(period, LAYERS)):
        weights = [(p[0].w_id or 0, p[0].w) for p in layers[start::period]]
        for (a, w_a), (b, w_b) in pairwise(weights[:PASSES]):
            if w_a is not None and w_b is not None and w_a.shape == w_b.shape:
                out.append((a, b, spectrum(w_b[0]) - spectrum(w_a[0])))
    return out


def spectrum(w_NK: Tensor) -> Tensor:
    """Logarithms of singular values."""
    logs: Tensor = torch.linalg.svdvals(w_NK.double()).clamp_min(1e-12).log()
    return logs


def _period(layers: Sequence[Sequence[Pass]], knowledge: Nothing) -> int:
    """How many layers a step has: as the architecture says, or after which shapes come again."""
    shapes = [None if p[0].w is None else p[0].w.shape for p in layers]
    if knowledge.architecture:
        return len(knowledge.architecture)
    whole = range(1, len(shapes) + 1)
    return next(n for n in whole if all(a == b for a, b in zip(shapes, shapes[n:], strict=False)))


def _best(alike: Tensor) -> list[int]:
    apart = alike.clone().fill_diagonal_(-torch.inf)
    return [int(i) for i in apart.argmax(1)]
