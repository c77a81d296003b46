"""Attack 12: second moments against mixing, with public weights.

    W' = C W B*^T        X' = A X B^T        B* = B^-T

A and C are near rotations times a number, so W'^T W' ~ B* W^T W B*^T and X'^T X' ~ B X^T X B^T. Then
X' B* v = A X v: whoever knows B* v holds the feature of X along v, with only its rows still mixed.

    spaces      top right singular vectors of W' for those of W; left ones for gradients (dY' C u = A* dY u)
    with X'     eigenvectors of W'^T W' X'^T X', in which B cancels and only A and C disturb; they are W'^T u'
                for the right singular vectors u' of Y' = X' W'^T, so that no inverse is taken
    named       the i-th singular vector of W' for B* v_i, v_i the i-th of the public W0
    aligned     one rotation O for all of B ~ O S, B* ~ O S^-1: the O that maximises
                    tr(W'^T W' O W0^T W0 O^T) + tr(X'^T X' O Cov O^T)        each brought to unit norm
                S, what B is off a rotation, bends the two terms opposite ways. It starts from singular
                vectors whose signs the second term fixes (eigenvector of the products of both sides'
                entries), and goes on by polar factors; each raises the sum, for both matrices are positive

All X' that one W' met are stacked: they share B. Another W' of the same W has bases of its own, and shares
only the spectrum, which W0 gives already; so several steps are not better than one. Strong directions that
the owner keeps at home (deflation) are noticed by the spectrum of W', and taken off W0 as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.public import Matched, matched
from tempo.attacks.transcript import Transcript

OPERANDS: Final = 8
#: Dimension of the spaces, iterations of the alignment.
TOP: Final = 8
ITERATIONS: Final = 30
#: In-features up to which the alignment is tried: its cost grows with their cube.
WIDEST: Final = 512
#: Numbers of strong directions that may stay at home.
DEFLATIONS: Final = (0, 1, 2, 4, 8, 16, 32, 64)
_SPECTRUM: Final = 48


@final
@dataclass(frozen=True, slots=True, eq=False)
class Spaces:
    """Of one group of a W'. Columns are directions in sent coordinates, strongest first.

    right (K, TOP): for B* v. left (N, TOP): for C u. features (K, TOP): for B* q, q the eigenvectors of
    W^T W X^T X; None where no X' was seen. named_features (K, TOP): the same of X' less its mean row, where
    that makes its spectrum more like the public covariance's, which has no mean. aligned (K, TOP): for
    B* v_i, one by one; None without a public covariance. public, public_features (K, TOP): the v_i, and the
    q_i of W0 and the public covariance.
    """

    id: int
    group: int
    x_ids: tuple[int, ...]
    right: Tensor
    left: Tensor
    features: Tensor | None
    named_features: Tensor | None
    aligned: Tensor | None
    public: Tensor
    public_features: Tensor | None


@final
class SecondMoments(Attack[PublicWeights, list[Spaces]]):
    name = "moments"
    number = 12
    title = "Second moments of mixed operands, with public weights"
    adversary = "one worker that keeps W' and X'"
    side_knowledge = "public weights W0 near W, or W itself; covariance of in-features on public data"
    knowledge = PublicWeights
    metric = "overlap of the space of the 8 strongest directions, squared cosines for named ones"
    compute = "singular value decompositions and some hundred products an operand: seconds"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> list[Spaces]:
        met: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
        for p in transcript.passes():
            for g, x in enumerate(p.groups(p.x)):
                if p.w_id is not None and len(x):
                    met.setdefault((p.w_id, g), []).append((p.x_id, x))
        return [_spaces(m, met.get((m.id, m.group), [])) for m in matched(transcript, knowledge, OPERANDS)]


def _spaces(m: Matched, met: list[tuple[int, Tensor]]) -> Spaces:
    u, s, vh = torch.linalg.svd(m.sent, full_matrices=False)
    public = deflated(m.public, s)
    _, _, vh0 = torch.linalg.svd(public, full_matrices=False)
    moment = sum((x.double().mT @ x.double() for _, x in met), torch.zeros(1, dtype=torch.float64))
    features = named = aligned = public_features = None
    if met:
        of_y = _strongest(m.sent, moment)
        features = m.sent.mT @ of_y
    if met and m.covariance is not None:
        of_y = _strongest(public, m.covariance)
        public_features = public.mT @ of_y
        named = m.sent.mT @ _strongest(m.sent, _like([x for _, x in met], moment, m.covariance))
        if len(m.covariance) <= WIDEST:
            aligned = rotation(m.sent, public, moment, m.covariance) @ vh0[:TOP].mT
    ids = tuple(x_id for x_id, _ in met)
    public_right, right, left = vh0[:TOP].mT, vh[:TOP].mT, u[:, :TOP]
    return Spaces(m.id, m.group, ids, right, left, features, named, aligned, public_right, public_features)


def _like(xs: list[Tensor], moment_KK: Tensor, covariance_KK: Tensor) -> Tensor:
    """The moment of X' as it is or of X' less its mean row, whichever has the covariance's spectrum: a scheme
    that mixes rows takes a mean off itself, and in the clear it is for the attacker to do."""
    about = sum(((c := x.double() - x.double().mean(0)).mT @ c for x in xs), torch.zeros_like(moment_KK))

    def apart(t: Tensor) -> float:
        ours, theirs = (_profile(each) for each in (t, covariance_KK))
        return float((ours - theirs).square().sum())

    return min((moment_KK, about), key=apart)


def _profile(t: Tensor) -> Tensor:
    """Shares of the strongest directions."""
    values = torch.linalg.eigvalsh(t).clamp_min(0).flip(0)
    shares: Tensor = (values / values.sum().clamp_min(1e-300))[:_SPECTRUM]
    return shares


def _strongest(w_NK: Tensor, moment_KK: Tensor) -> Tensor:
    """(N, TOP) strongest directions of Y: eigenvectors of W M W^T, or left singular vectors of W M^1/2 where
    that is the smaller problem."""
    n, k = w_NK.shape
    if n <= k:
        strongest: Tensor = torch.linalg.eigh(w_NK @ moment_KK @ w_NK.mT).eigenvectors[:, -TOP:]
        return strongest.flip(1)
    values, vectors = torch.linalg.eigh(moment_KK)
    root = vectors * values.clamp_min(0).sqrt()
    u: Tensor = torch.linalg.svd(w_NK @ root, full_matrices=False)[0]
    return u[:, :TOP]


def deflated(public_NK: Tensor, sent_values: Tensor) -> Tensor:
    """W0 less as many of its strongest directions as bring its spectrum nearest to that of W'."""
    u, s, vh = torch.linalg.svd(public_NK, full_matrices=False)
    size = min(_SPECTRUM, len(s) // 2)
    mine = sent_values.clamp_min(1e-12).log()[:size]

    def miss(r: int) -> float:
        apart = s.clamp_min(1e-12).log()[r : r + size] - mine
        return float((apart - apart.mean()).square().sum())

    r = min((r for r in DEFLATIONS if r + size <= len(s)), key=miss)
    rest: Tensor = public_NK - (u[:, :r] * s[:r]) @ vh[:r]
    return rest


def rotation(sent_NK: Tensor, public_NK: Tensor, moment_KK: Tensor, covariance_KK: Tensor) -> Tensor:
    """O (K, K), near B* up to its sign."""
    pairs = [
        (_even(sent_NK.mT @ sent_NK), _even(public_NK.mT @ public_NK)),
        (_even(moment_KK), _even(covariance_KK)),
    ]
    (v, v0), (mine, theirs) = [[torch.linalg.eigh(t).eigenvectors for t in pairs[0]], pairs[1]]
    both = _correlations(v.mT @ mine @ v) * _correlations(v0.mT @ theirs @ v0)
    signs = torch.where(torch.linalg.eigh(both).eigenvectors[:, -1] < 0, -1.0, 1.0).double()
    o: Tensor = (v * signs) @ v0.mT
    for _ in range(ITERATIONS):
        step = sum((a @ o @ b for a, b in pairs), torch.zeros_like(o))
        u, _, vh = torch.linalg.svd(step)
        o = u @ vh
    return o


def _even(t: Tensor) -> Tensor:
    """The square root of a positive matrix, so that the strongest direction is not heard alone; unit norm."""
    values, vectors = torch.linalg.eigh(t)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
    root /= root.norm().clamp_min(1e-300)
    return root


def _correlations(t: Tensor) -> Tensor:
    d = t.diagonal().clamp_min(1e-300).rsqrt()
    out: Tensor = t * d[:, None] * d
    out.fill_diagonal_(0)
    return out
