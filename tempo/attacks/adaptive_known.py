"""Adaptive attack on `mixing`, 2: a few known operands of a W epoch open the others of that epoch.

Written with the scheme's source in hand; it uses nothing of it but the key's life. An operand with fewer rows
than features keeps its row space under any row mixing, and features keep B while W keeps its key
(`weight_uses` requests, micro-batches, chunks):

    rowspace X'_t = B rowspace (X_t - 1 c_t^T)

The centre c_t is secret, differences of rows are free of it. With P_t the projector off the row space of
X'_t and D_t (K, r) an orthonormal basis of the known differences, B is the null vector of a linear map:

    sum_t P_t B D_t D_t^T = 0         r (K - R) equations for each known operand, K^2 unknowns

    1. Solve by inverse iteration, each solve by conjugate gradients.
    2. For every other X' of the epoch: B^-1 rowspace X' is the space of the secret rows, less their centre.

Whoever may query a model that others query too knows such operands: those of its own requests. What is found
tells of any candidate row whether it was in a batch, and is where unmixing of rows would start (attack 17).
No basis that is used twice is safe from this, structured or not: it is why keys must be fresh.

Axes: R rows, K in-features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import KnownPlaintext
from tempo.attacks.transcript import Pass, Transcript

_WIDEST: Final = 384
_KNOWN: Final = 16  # known operands that are used of one epoch
_EPOCHS: Final = 3
_OPENED: Final = 40  # operands that are opened of each epoch
_OUTER: Final = 4
_INNER: Final = 250
_SHIFT: Final = 1e-5  # of the map's scale, which keeps solves finite
_RANK: Final = 1e-4  # singular values below this part of the largest count as none


@final
@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """spaces: of each X by id an orthonormal basis (K, R) of where its rows lie, less a common vector.
    residual: of the equations, by operand: near zero where B was found."""

    spaces: dict[int, Tensor]
    residual: dict[int, float]


@final
class AdaptiveKnown(Attack[KnownPlaintext, Opened]):
    name: ClassVar[str] = "adaptive-known"
    number: ClassVar[int] = 24
    title: ClassVar[str] = "Adaptive: known operands of a W epoch open the others"
    adversary: ClassVar[str] = "a worker that read the source and knows some requests, such as its own"
    side_knowledge: ClassVar[str] = "plain rows of a few operands under the same W'"
    knowledge: ClassVar[type[KnownPlaintext]] = KnownPlaintext
    metric: ClassVar[str] = "secret rows that the opened space fits better than rows of another batch"
    compute: ClassVar[str] = f"{_OUTER} solves of {_INNER} steps in K^2 unknowns, K at most {_WIDEST}"

    def run(self, transcript: Transcript, knowledge: KnownPlaintext) -> Opened:
        spaces: dict[int, Tensor] = {}
        residual: dict[int, float] = {}
        plain = knowledge.operands or {}
        for passes in list(_epochs(transcript, plain))[:_EPOCHS]:
            basis, left = solved([(p.x, plain[p.x_id]) for p in passes if p.x_id in plain][:_KNOWN])
            for p in [p for p in passes if p.x_id not in plain][:_OPENED]:
                rows = torch.linalg.solve(basis, _row_space(p.x.double()))
                spaces[p.x_id] = torch.linalg.qr(rows)[0]
                residual[p.x_id] = left
        if not spaces:
            raise NothingToAttack(
                f"no W' with at most {_WIDEST} in-features met both known operands and others, of fewer rows "
                "than features: requests or micro-batches that share a key would"
            )
        return Opened(spaces, residual)


def _epochs(transcript: Transcript, plain: Mapping[int, Tensor]) -> Iterator[list[Pass]]:
    for passes in transcript.layers():
        fit = [p for p in passes if len(p.rows) == 1 and len(p.x) < p.x.shape[1] <= _WIDEST]
        if 0 < sum(p.x_id in plain for p in fit) < len(fit):
            yield fit


def solved(known: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
    """B (K, K) up to a factor, from pairs X' (R, K) and X (R, K); and the residual, relative to that of a
    random matrix."""
    width = known[0][0].shape[1]
    pairs = []
    for sealed, plain in known:
        q = _row_space(sealed.double())
        pairs.append((q, _row_space((plain[1:] - plain[:1]).double())))

    def apply(b_KK: Tensor) -> Tensor:
        out = torch.zeros_like(b_KK)
        for q, d in pairs:
            bd = b_KK @ d
            out += (bd - q @ (q.mT @ bd)) @ d.mT
        return out

    scale = sum((1 - q.shape[1] / width) * d.shape[1] / width for q, d in pairs)
    generator = torch.Generator().manual_seed(24)
    b = torch.randn(width, width, generator=generator, dtype=torch.float64)
    b /= b.norm()
    for _ in range(_OUTER):
        b = _conjugate_gradients(lambda m: apply(m) + _SHIFT * scale * m, b)
        b /= b.norm()
    return b, float((apply(b) * b).sum() / max(scale, 1e-300))


def _row_space(t_RK: Tensor) -> Tensor:
    """(K, r) orthonormal."""
    _, values, right = torch.linalg.svd(t_RK, full_matrices=False)
    return torch.transpose(right[values > _RANK * values[0]], 0, 1).contiguous()


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """(Hestenes and Stiefel, 1952.)"""
    x, r = torch.zeros_like(target), target.clone()
    p, rr = r.clone(), float((r * r).sum())
    for _ in range(_INNER):
        ap = apply(p)
        alpha = rr / float((p * ap).sum())
        x += alpha * p
        r -= alpha * ap
        now = float((r * r).sum())
        if now < 1e-22:
            break
        p, rr = r + (now / rr) * p, now
    return x
