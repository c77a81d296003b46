"""Judge of attack 12."""

from __future__ import annotations

from collections import defaultdict
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tempo.attacks.moments import TOP, SecondMoments, Spaces
from tempo.attacks.score.places import kind_of
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials


@final
class MomentsScorer(Scorer[list[Spaces]]):
    """One trial for each W'. Overlap of spaces Q, Q* with orthonormal columns: |Q^T Q*|^2 / 8, which a random
    space of as many dimensions reaches by 8/K; squared cosine of one direction: 1/K."""

    attack = SecondMoments

    def score(self, guess: list[Spaces], truth: Truth) -> dict[str, Trials]:
        values: dict[str, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)

        def enter(name: str, value: float, chance: float) -> None:
            values[name].append(value)
            chances[name].append(chance)

        for each in guess:
            plain, g = truth.of(each.id), each.group
            w, b, c = plain.plain[g].double(), matrix(plain.right[g]), matrix(plain.left[g])
            u, _, vh = torch.linalg.svd(w, full_matrices=False)
            v, (n, k), kind = vh.mT, w.shape, kind_of(plain)
            enter(f"space of W, {kind}", _overlap(each.right, b @ v[:, :TOP]), TOP / k)
            enter(f"space of W, left, {kind}", _overlap(each.left, c @ u[:, :TOP]), TOP / n)
            named = b @ each.public
            enter(f"directions named by W0, {kind}", _cosines(each.right, named), 1 / k)
            if each.aligned is not None:
                enter(f"directions named, aligned, {kind}", _cosines(each.aligned, named), 1 / k)
            if each.features is not None:
                x = torch.cat([truth.of(i).groups[g] for i in each.x_ids]).double()
                # A scheme that mixes rows takes a common mean off first (tempo/secrecy/seal.py).
                x = x - x.mean(0) if any(a.rounds for a in plain.right[g].stretches) else x
                of_y = torch.linalg.eigh(w @ (x.mT @ x) @ w.mT).eigenvectors[:, -TOP:]
                enter(f"space of W and X, {kind}", _overlap(each.features, b @ w.mT @ of_y), TOP / k)
                if each.public_features is not None and each.named_features is not None:
                    known = b @ each.public_features
                    enter(
                        f"directions named by W0 and covariance, {kind}",
                        _cosines(each.named_features, known),
                        1 / k,
                    )
        how = "derived: a random space or direction"
        return {name: Trials(v, sum(chances[name]) / len(v), how) for name, v in values.items()}


def _overlap(a: Tensor, b: Tensor) -> float:
    """Of the spaces that columns span."""
    return float((torch.linalg.qr(a).Q.mT @ torch.linalg.qr(b).Q).square().sum() / a.shape[1])


def _cosines(a: Tensor, b: Tensor) -> float:
    """Mean squared cosine of columns."""
    return float((normalize(a, dim=0) * normalize(b, dim=0)).sum(0).square().mean())
