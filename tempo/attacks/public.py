"""Which public weight a W' descends from, and that weight as it would be sent: for attacks that know W0.

An attacker who knows the architecture counts: the forward products of a step come in its order, so the j-th
W' of a shape is the j-th layer of that shape. Where W' and layers of a shape are not as many, and the
architecture is not given, singular values are compared, which moderate coefficients bend little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import NothingToAttack
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.transcript import Transcript
from tempo.lowering.shapes import ConvShape
from tempo.lowering.winograd import F2, F4, Winograd
from tempo.ops import Op

#: Of groups of one operand (Winograd points), as many are attacked; seeded.
GROUPS: Final = 4
_SEED: Final = 12


@final
@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """One group of a W' (N, K) beside the same group of the public weight it descends from.

    others: the same group of other public weights of that shape, for comparison.
    covariance: of the in-features on public data, (K, K), or None.
    """

    id: int
    group: int
    name: str
    sent: Tensor
    public: Tensor
    others: tuple[Tensor, ...]
    covariance: Tensor | None


def matched(transcript: Transcript, knowledge: PublicWeights, most: int) -> list[Matched]:
    """W' of forward products with their public weights, at most `most` operands (seeded, in order of time).
    Raises NothingToAttack."""
    if not knowledge.weights:
        raise NothingToAttack("no public weights were given, which this attack compares W' with")
    found = [
        (id_, w_GNK, candidates)
        for id_, w_GNK in _forward(transcript).items()
        if (candidates := _candidates(knowledge, w_GNK.shape))
    ]
    if not found:
        raise NothingToAttack("no W' of a forward product has the shape of a public weight")
    total = Counter(w_GNK.shape for _, w_GNK, _ in found)
    counts: Counter[torch.Size] = Counter()
    named: list[tuple[int, Tensor, dict[str, Tensor], str]] = []
    for id_, w_GNK, candidates in found:
        names, j = list(candidates), counts[w_GNK.shape]
        counts[w_GNK.shape] += 1
        counted = knowledge.architecture or total[w_GNK.shape] % len(names) == 0
        name = names[j % len(names)] if counted else _nearest(w_GNK, candidates)
        named.append((id_, w_GNK, candidates, name))
    generator = torch.Generator().manual_seed(_SEED)
    picks = sorted(torch.randperm(len(named), generator=generator)[:most].tolist())
    return [m for p in picks for m in _groups(named[p], knowledge, generator)]


def _groups(
    of: tuple[int, Tensor, dict[str, Tensor], str], knowledge: PublicWeights, generator: torch.Generator
) -> Iterator[Matched]:
    id_, w_GNK, candidates, name = of
    groups = sorted(torch.randperm(len(w_GNK), generator=generator)[:GROUPS].tolist())
    covariance = (knowledge.covariance or {}).get(name)
    for g in groups:
        others = tuple(w[g].double() for n, w in candidates.items() if n != name)
        whole = covariance if covariance is None or covariance.ndim == 2 else covariance[g]
        cov = None if whole is None or whole.shape[0] != w_GNK.shape[2] else whole.double()
        yield Matched(id_, g, name, w_GNK[g].double(), candidates[name][g].double(), others, cov)


def _forward(transcript: Transcript) -> dict[int, Tensor]:
    return {s.right_id: s.right for s in transcript.seen if s.op is Op.PRODUCT}


def _candidates(knowledge: PublicWeights, shape: torch.Size) -> dict[str, Tensor]:
    """Public weights that lower to that shape (G, N, K), lowered, in the order of the architecture."""
    weights = dict(knowledge.weights or {})
    transposed: dict[str, bool] = {}
    if knowledge.architecture:
        facts = {f"{fact.module}.weight": fact for fact in knowledge.architecture}
        weights = {name: weights[name] for name in facts if name in weights}
        transposed = {name: "transposed" in fact.lowering for name, fact in facts.items()}
    out: dict[str, Tensor] = {}
    for name, w in weights.items():
        lowered = _lowered(w.detach(), shape, transposed.get(name))
        if lowered is not None:
            out[name] = lowered
    return out


def _lowered(w: Tensor, shape: torch.Size, transposed: bool | None) -> Tensor | None:
    """(G, N, K), or None where the weight does not lower to that shape."""
    if w.ndim == 2 and shape[0] == 1:
        straight, turned = w.shape == shape[1:], w.mT.shape == shape[1:]
        if turned and (transposed or (transposed is None and not straight)):
            return w.mT[None]
        return w[None] if straight and not transposed else None
    if w.ndim < 3:
        return None
    if shape[0] == 1 and w.flatten(1).shape == shape[1:]:
        return w.flatten(1)[None]
    if w.ndim == 4 and w.shape[2:] == (3, 3) and w.shape[:2] == shape[1:]:
        for transforms in (F2, F4):
            conv = ConvShape.of((1, w.shape[1], 8, 8), tuple(w.shape), padding=1)
            winograd = Winograd(conv, transforms)
            if winograd.shape.groups == shape[0]:
                points_GNK: Tensor = winograd.lower_w(w)
                return points_GNK
    return None


def _nearest(w_GNK: Tensor, candidates: Mapping[str, Tensor]) -> str:
    def profile(w: Tensor) -> Tensor:
        s: Tensor = torch.linalg.svdvals(w[0].double()).clamp_min(1e-12).log()
        return s - s.mean()

    mine = profile(w_GNK)
    return min(candidates, key=lambda name: float((profile(candidates[name]) - mine).square().sum()))
