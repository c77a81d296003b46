"""Adaptive attack on `mixing`, 1: joint diagonalisation of the batches that share one feature basis.

Written with the scheme's source in hand. Rows get a fresh A for every operand, features keep B as long as W
keeps its key (an optimizer step; `weight_uses` requests in inference). What row mixing hardly changes:

    S_t = X'_t^T X'_t = B X_t^T (A_t^T A_t) X_t B^T        one for each operand t of the epoch

A is nearly orthogonal (Hadamards and coefficients near 1), so S_t is nearly B G_t B^T with G_t = X_t^T X_t,
whatever the number of rows and rounds. Features that are active in some batches more than in others make
the diagonals of G_t fluctuate more than the rest:

    Var (G_t)_kk = R (kurtosis_k + 2)        Var (G_t)_kl = R        for independent features of variance 1

and the rotation that concentrates the fluctuation on the diagonals of the whitened S_t undoes B up to a
permutation and scales.

    1. Of each W' with enough operands, and each group: S_t, brought to equal traces; their mean whitens.
    2. Joint diagonalisation by Jacobi rotations (diagonal.py); of a wide operand in its strongest directions,
       where what noise there is weighs least.
    3. U = rotation x whitener: U B should be a scaled permutation, and X' U^T = A X up to order.

Axes: T operands, K in-features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.diagonal import SWEEPS, jointly_diagonal
from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Pass, Transcript

_LEAST: Final = 8  # operands under one key
_MOST: Final = 512
#: In-features that are all unmixed; of more, so many of the strongest directions are.
_WIDEST: Final = 128
_STRONGEST: Final = 64
_ENTRIES: Final = 2_000_000  # of all matrices of one key
_PAIRS: Final = 3  # keys and groups that are attacked


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unmixed:
    """Of a W' and a group: an operand under that key, by whose basis a judge scores; U (r, K), and the
    whitener (r, K) it is a rotation of, r = K or fewer. operands: how many shared the key. seen (R, K): that
    operand's group as it was seen, for a judge."""

    x_id: int
    group: int
    unmixing: Tensor
    whitener: Tensor
    operands: int
    seen: Tensor


@final
class AdaptiveCovariances(Attack[Nothing, list[Unmixed]]):
    name: ClassVar[str] = "adaptive-covariances"
    number: ClassVar[int] = 23
    title: ClassVar[str] = "Adaptive: joint diagonalisation over the operands of one W epoch"
    adversary: ClassVar[str] = "a worker that read the scheme's source"
    side_knowledge: ClassVar[str] = "none"
    knowledge: ClassVar[type[Nothing]] = Nothing
    metric: ClassVar[str] = "the largest true feature's share of the energy of each recovered one"
    compute: ClassVar[str] = f"{SWEEPS} Jacobi sweeps over at most {_MOST} matrices of width {_WIDEST}"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[Unmixed]:
        found = [_unmixed(passes, group) for passes, group in _epochs(transcript) if len(passes) >= _LEAST]
        if not found:
            raise NothingToAttack(
                f"no W' met {_LEAST} operands under one key: micro-batches, chunks or requests of inference "
                "would"
            )
        return found


def _epochs(transcript: Transcript) -> Iterator[tuple[list[Pass], int]]:
    pairs = [(passes, g) for passes in transcript.layers() for g in range(len(passes[0].rows))]
    yield from pairs[:: max(1, -(-len(pairs) // _PAIRS))]


def _unmixed(passes: list[Pass], group: int) -> Unmixed:
    width = passes[0].x.shape[1]
    kept = width if width <= _WIDEST else _STRONGEST
    most = min(_MOST, max(_LEAST, _ENTRIES // kept**2))
    rows = [p.groups(p.x)[group].double() for p in passes[:most]]
    # Equal traces: operands count alike, however strong they are.
    rows = [t / t.norm().clamp_min(1e-150) for t in rows]
    mean_KK = sum((t.mT @ t for t in rows), torch.zeros(width, width).double()) / len(rows)
    values, vectors = np.linalg.eigh(mean_KK.numpy())
    scaled = vectors / np.sqrt(np.maximum(values, 1e-9 * values[-1]))
    whitener = scaled @ vectors.T if kept == width else scaled[:, -kept:].T
    white = [t.numpy() @ whitener.T for t in rows]
    rotation = jointly_diagonal(np.stack([z.T @ z for z in white]))
    u, p = (torch.from_numpy(np.ascontiguousarray(m)) for m in (rotation.T @ whitener, whitener))
    seen = passes[0].groups(passes[0].x)[group].double()
    return Unmixed(passes[0].x_id, group, u, p, len(rows), seen)
