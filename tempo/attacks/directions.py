"""Attack 7: direction matching, and substitution of public rows.

Fine-tuning hardly turns the rows (neurons, kernels) of a weight, and many masks scale and permute them
without turning them: the best cosine with a public row then names it, and the public row takes its place.
(Zhang et al., GroupCover, ICML 2024; Wang et al., Game of Arrows, USENIX Security 2025, whose ArrowMatch this
is.)

    rows       |cos(w'_i, w0_j)|: undoes a mask on out-features alone
    profiles   sorted magnitudes, with columns brought to equal norm: in-features permuted as well
    spectra    rows of |U' S'| and |U S|, W' = U' S' V'^T with rows brought to equal norm: in-features under
               any orthogonal map
    grams      |cos(w'_i, w'_j)| between rows of one operand are bent little by any map near a rotation: two
               graphs, matched by their eigenvectors (GRAMPA: Fan, Mao, Wu and Xu, 2020)
    aligned    from the best of these, an orthogonal map of the in-features by Procrustes (Schonemann, 1966)
               on the rows matched so far, W' ~ W0 Q, then cosines again: in-features near a rotation
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tempo.attacks.attack import Attack
from tempo.attacks.canonical import assign
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.public import matched
from tempo.attacks.transcript import Transcript

OPERANDS: Final = 5
#: Rounds of alignment, and the share of rows (the surest) that the map is fitted to.
ROUNDS: Final = 5
ETAS: Final = (0.1, 0.3, 1.0)
SURE: Final = 0.5
#: Rows up to which graphs are matched: the cost grows with their cube.
WIDEST: Final = 512


@final
@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Of one group of a W': by the way of matching, for each encoded row the plain row it is taken for."""

    id: int
    group: int
    public: Tensor
    rows: dict[str, Tensor]


@final
class DirectionMatching(Attack[PublicWeights, list[Directions]]):
    name = "directions"
    number = 7
    title = "Direction matching with public rows"
    adversary = "one worker that keeps W'"
    side_knowledge = "public weights W0 that the secret ones were fine-tuned from"
    knowledge = PublicWeights
    metric = "rows matched, each to be replaced by its public row"
    compute = "some ten products and singular value decompositions an operand: seconds"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> list[Directions]:
        return [
            Directions(m.id, m.group, m.public, match(m.sent, m.public))
            for m in matched(transcript, knowledge, OPERANDS)
        ]


def match(sent_NK: Tensor, public_NK: Tensor) -> dict[str, Tensor]:
    """Plain rows by way of matching."""
    even = normalize(sent_NK, dim=1), normalize(public_NK, dim=1)
    (u, s, _), (u0, s0, _) = (torch.linalg.svd(w, full_matrices=False) for w in even)
    similar = {
        "rows": _cosines(sent_NK, public_NK).abs(),
        "profiles": _correlations(_profiles(sent_NK), _profiles(public_NK)),
        "spectra": _correlations((u * s.sqrt()).abs(), (u0 * s0.sqrt()).abs()),
    }
    if len(sent_NK) <= WIDEST:
        similar["grams"] = _grams(*even)
    surest = max(similar.values(), key=_stands_out)
    return {how: each.argmax(1) for how, each in similar.items()} | {
        "aligned": _aligned(sent_NK, public_NK, surest)
    }


def _grams(mine: Tensor, theirs: Tensor) -> Tensor:
    """Rows of large values pair nodes of two weighted graphs: sum_ij u_i u_i^T J v_j v_j^T / (|l_i - m_j|^2 +
    eta^2), which is then improved by matching neighbourhoods."""
    graphs: list[Tensor] = []
    for w in (mine, theirs):
        g = (w @ w.mT).abs().fill_diagonal_(0)
        g = g - g.sum() / (len(g) * (len(g) - 1))
        g.fill_diagonal_(0)
        graphs.append(g / g.std() / len(g) ** 0.5)
    (of_mine, u), (of_theirs, v) = (torch.linalg.eigh(g) for g in graphs)
    found: list[tuple[float, Tensor]] = []
    for eta in ETAS:
        apart = (of_mine[:, None] - of_theirs).square() + eta**2
        similar = u @ ((u.sum(0)[:, None] * v.sum(0)) / apart) @ v.mT
        for _ in range(ROUNDS):
            places = assign(similar)
            similar = graphs[0] @ graphs[1][places]
        found.append((float((graphs[0] * graphs[1][places][:, places]).sum()), similar))
    return max(found, key=lambda each: each[0])[1]


def _aligned(sent_NK: Tensor, public_NK: Tensor, similar: Tensor) -> Tensor:
    mine, theirs = normalize(sent_NK, dim=1), normalize(public_NK, dim=1)
    for _ in range(ROUNDS):
        best = similar.max(1)
        sure = best.values.argsort(descending=True)[: max(1, round(SURE * len(mine)))]
        pairs = theirs[best.indices[sure]], mine[sure]
        # Signs of rows are unknown: those that agree with the map so far.
        signs = _start_signs(*pairs)
        for _ in range(3):
            left, right = procrustes(pairs[0] * signs, pairs[1])
            fit = ((pairs[0] @ left) * (pairs[1] @ right)).sum(1, keepdim=True)
            again = torch.where(fit < 0, -1.0, 1.0).double()
            if torch.equal(again, signs):
                break
            signs = again
        similar = ((mine @ right) @ (theirs @ left).mT).abs()
        if torch.equal(similar.argmax(1)[sure], best.indices[sure]):
            break  # the same pairs give the same map
    return similar.argmax(1)


def procrustes(public_SK: Tensor, sent_SK: Tensor) -> tuple[Tensor, Tensor]:
    """L, R (K, r) with orthonormal columns: Q = L R^T is nearest to an orthogonal map with public Q = sent,
    and zero where these rows, fewer than K, say nothing. Of r x r at most, not of K x K."""
    if len(public_SK) >= public_SK.shape[1]:
        u, _, vh = torch.linalg.svd(public_SK.mT @ sent_SK, full_matrices=False)
        return u, vh.mT
    (q, r), (q0, r0) = (torch.linalg.qr(t.mT) for t in (public_SK, sent_SK))
    u, _, vh = torch.linalg.svd(r @ r0.mT)
    return q @ u, q0 @ vh.mT


def _start_signs(public: Tensor, sent: Tensor) -> Tensor:
    """(rows, 1) signs: Gram matrices differ by them alone, public public^T o sent sent^T = s s^T o |.|."""
    agree = (public @ public.mT) * (sent @ sent.mT)
    return torch.where(torch.linalg.eigh(agree).eigenvectors[:, -1:] < 0, -1.0, 1.0).double()


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    cosines: Tensor = normalize(a, dim=1) @ normalize(b, dim=1).mT
    return cosines


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    a, b = normalize(a, dim=1), normalize(b, dim=1)
    return _cosines(a - b.mean(0), b - b.mean(0))


def _profiles(w_NK: Tensor) -> Tensor:
    even: Tensor = w_NK / w_NK.norm(dim=0).clamp_min(1e-30)
    return even.abs().sort(1).values


def _stands_out(similar: Tensor) -> float:
    """How far the best of each row exceeds its second best, in deviations of all."""
    first, second = similar.topk(2, dim=1).values.unbind(1)
    return float((first - second).median() / similar.std())
