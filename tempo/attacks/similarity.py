"""Attack 13: what no change of basis alters, and which candidate it names.

Under key shift a gradient lives in the dual basis, so products of an operand and its gradient are similar to
the plain ones, whatever the basis:

    X'^T dX' = B X^T dX B^-1      Y'^T dY' = C Y^T dY C^-1      W'^T dW' = B* W^T dW B^T

and all three have one and the same spectrum (but for zeros): X^T dX = X^T dY W and Y^T dY = W X^T dY differ
by the order of factors. So one product is taken, the smallest, and its eigenvalues are compared with each
candidate's. Passes that met one W' (shards, chunks) add up.

The owner's centring, X - 1 c^T, adds a rank of one: M = M0 - p q^T with p = W^T dY^T 1 known and q = c - mean
unknown but small. An eigenvalue l of M then is one for which

    q^T (M0 - l)^-1 p = 1        (from det(M0 - l - p q^T) = det(M0 - l) (1 - q^T (M0 - l)^-1 p))

which is linear in q: the candidate that explains what was seen with the smallest q was run. Without centring
the true one needs no q at all.

Without gradients there is no such invariant. What is left are singular values of X', which coefficients bend
by more than one batch differs from another: logarithms are compared, less their mean and slope.

A candidate is what would have been sent: for each layer in order of first use X (T, K), W (N, K) and dY
(T, N) of one group, made by `candidate`. An empty tensor stands for what is not known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Candidates
from tempo.attacks.transcript import Pass, Transcript
from tempo.ops import Op

#: Eigenvalues and singular values that are compared, and W' that are looked at, in order of time.
VALUES: Final = 24
OPERANDS: Final = 192
#: Directions of q that eigenvalues say less than this about, relative to the clearest, are left at zero.
_RANK: Final = 1e-3
#: Eigenvalues that differ by less than this, relative to the largest, are one: no q is needed there.
_SAME: Final = 1e-15


def candidate(layers: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """What `Candidates.operands` holds for one candidate, from (X, W, dY) of each layer."""
    return tuple(t.detach() for layer in layers for t in layer)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Of one W': candidates by distance, nearest first; by the spectrum of products with gradients, by
    the smallest q that explains it, and by singular values alone. None where it could not be told.

    layer: its place in the candidates. x_ids: the X' that met it. known: the candidates' X of this layer.
    """

    w_id: int
    layer: int
    x_ids: tuple[int, ...]
    by_spectrum: Tensor | None
    by_effort: Tensor | None
    by_values: Tensor | None
    known: tuple[Tensor, ...]


@final
class SimilarityInvariants(Attack[Candidates, list[Ranked]]):
    name = "similarity"
    number = 13
    title = "Similarity invariants name a known batch or model"
    adversary = "one worker that keeps what it computed"
    side_knowledge = "candidate batches and a model near the secret one, or candidate models and the batch"
    knowledge = Candidates
    metric = "top-1 identification among the candidates"
    compute = "one spectrum for each candidate and layer: seconds"

    def run(self, transcript: Transcript, knowledge: Candidates) -> list[Ranked]:
        layers = transcript.layers()[:OPERANDS]
        if not knowledge.operands or not layers:
            raise NothingToAttack("candidates, and forward products to compare them with, are needed")
        depth = min(len(each) for each in knowledge.operands) // 3
        if depth == 0 or any(len(each) != 3 * depth for each in knowledge.operands):
            raise NothingToAttack("each candidate is X, W and dY of every layer: see `candidate`")
        spectra: dict[int, Expected | None] = {}
        values: dict[int, Tensor] = {}
        out, loose = [], _loose(transcript)
        for i, passes in enumerate(layers):
            layer = i % depth
            of = [c[3 * layer : 3 * layer + 3] for c in knowledge.operands]
            if any(x.numel() == 0 for x, _, _ in of):
                continue
            if layer not in values:
                forms = [f for x, *_ in of for f in (x.double(), x.double() - x.double().mean(0))]
                values[layer] = torch.stack([_values(each) for each in forms])
                complete = all(w.numel() and dy.numel() for _, w, dy in of)
                spectra[layer] = _expected(of) if complete else None
            expected = spectra[layer]
            mine = _seen(passes, loose.get(passes[0].w_id or 0, []))
            out.append(
                Ranked(
                    passes[0].w_id or 0,
                    layer,
                    tuple(p.x_id for p in passes),
                    None if mine is None or expected is None else _nearest(mine, expected),
                    None if mine is None or expected is None else _least_effort(mine, expected),
                    _by_values(passes, values[layer]),
                    tuple(x for x, _, _ in of),
                )
            )
        if not out:
            raise NothingToAttack("no candidate says what X any layer would have met")
        return out


def _loose(transcript: Transcript) -> dict[int, list[Tensor]]:
    """dY' that met a W' and no X', by that W'."""
    met = {s.left_id for s in transcript.seen if s.op is Op.GRAD_W}
    out: dict[int, list[Tensor]] = {}
    for s in transcript.seen:
        if s.op is Op.GRAD_X and s.left_id not in met:
            out.setdefault(s.right_id, []).append(s.left)
    return out


def _seen(passes: Sequence[Pass], loose: Sequence[Tensor]) -> Tensor | None:
    """Spectrum of the sum of products of all passes of one W', first group. loose: dY' that may belong to
    them, in order."""
    total: Tensor | None = None
    w = passes[0].w
    first = passes[0]
    if len(passes) == 1 and w is not None and first.dy is not None and first.rows[0] < min(w.shape[1:]):
        # dW' of few rows has no more eigenvalues than there are rows: the same ones, of a smaller product.
        x, dy = (first.groups(t)[0].double() for t in (first.x, first.dy))
        return _spectrum((x @ w[0].double().mT) @ dy.mT)
    for p in passes:
        if p.dw is not None:
            total = p.dw[0].double() + (0 if total is None else total)
    if total is not None and w is not None:
        w = w[0].double()
        return _spectrum(w.mT @ total if w.shape[1] <= w.shape[0] else total @ w.mT)
    # Frozen weights have no dW', but dX' was made of dY', which carries the duals of Y'.
    for p, dy in zip(passes, loose, strict=False):
        if p.y is not None and p.y.shape == dy.shape:
            part = p.groups(p.y)[0].double().mT @ p.groups(dy)[0].double()
            total = part + (0 if total is None else total)
    return None if total is None else _spectrum(total)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """M0 = V diag(values) V^-1 of candidates, E of them, and V^-1 p, all (E, D); plain, hermitian (E, D, D):
    Gram matrices V^T V and V^T conj V, as q meets V. size (E,): of q, were it as large as the rows of X."""

    values: Tensor
    p: Tensor
    plain: Tensor
    hermitian: Tensor
    size: Tensor

    def effort(self, seen: Tensor) -> Tensor:
        """The smallest q that moves eigenvalues to those seen, relative to its size, (E,).

        Equations a q = 1, one for each eigenvalue, real and imaginary parts; q = a^T (a a^T)^-1 1, so that
        only a a^T is made, which the Gram matrices give. Of two conjugates one says everything.
        """
        upper = seen[seen.imag > -1e-9 * seen.abs().max()]
        gap, least = self.values[:, None] - upper[:, None], _SAME * float(seen.abs().max()) + 1e-300
        c = self.p[:, None] / torch.where(gap.abs() < least, least, gap)
        straight, crossed = c @ self.plain @ c.mT, c @ self.hermitian @ c.mH
        both = torch.cat(
            [
                torch.cat([(crossed + straight).real, (straight - crossed).imag], 2),
                torch.cat([(straight + crossed).imag, (crossed - straight).real], 2),
            ],
            1,
        ).div(2)
        # An equation of a real eigenvalue has no imaginary part.
        count = len(upper)
        keep = torch.cat([torch.ones(count, dtype=torch.bool), upper.imag > 1e-9 * seen.abs().max()])
        # Equations as long as they are far from solved by chance: each is brought to unit length.
        scale = crossed.diagonal(dim1=1, dim2=2).real.clamp_min(1e-300).rsqrt().repeat(1, 2)
        target = torch.cat([scale[:, :count], torch.zeros_like(scale[:, :count])], 1)[:, keep]
        gram = (both * scale[:, :, None] * scale[:, None])[:, keep][:, :, keep]
        values, vectors = torch.linalg.eigh(gram)
        parts = (vectors.mT @ target[:, :, None])[:, :, 0].square() / values.clamp_min(1e-300)
        clear = values > _RANK**2 * values[:, -1:]
        effort: Tensor = (parts * clear).sum(1).sqrt() / self.size
        return effort


def _expected(triples: Sequence[tuple[Tensor, ...]]) -> Expected:
    """Of each candidate as it is, and less its mean row: two after one another. Shorter spectra, of fewer
    rows, are filled with eigenvalues of 0 that no centre moves."""
    parts = [part for triple in triples for part in _parts(*triple)]
    width = max(VALUES, *(len(values) for values, *_ in parts))

    def filled(t: Tensor) -> Tensor:
        return torch.nn.functional.pad(t, (0, width - t.shape[-1]) * t.ndim) if t.ndim else t

    return Expected(*(torch.stack([filled(t) for t in each]) for each in zip(*parts, strict=True)))


def _parts(x_TK: Tensor, w_NK: Tensor, dy_TN: Tensor) -> list[tuple[Tensor, ...]]:
    w, dy = w_NK.double(), dy_TN.double()
    out: list[tuple[Tensor, ...]] = []
    for x in (x_TK.double(), x_TK.double() - x_TK.double().mean(0)):
        rms = float(x.square().mean().sqrt())
        size = rms * w.shape[1] ** 0.5
        if len(x) < min(w.shape):
            # (X - 1 q^T) W^T dY^T is of T rows and has the same eigenvalues: p is 1, and dY W q comes for q.
            square, p, back = (x @ w.mT) @ dy.mT, torch.ones(len(x)), (dy @ w).mT
        elif w.shape[1] <= w.shape[0]:
            square, p, back = w.mT @ (dy.mT @ x), w.mT @ dy.sum(0), None
        else:
            square, p, back, size = (dy.mT @ x) @ w.mT, dy.sum(0), None, rms * float(w.norm())
        values, vectors = torch.linalg.eig(square)
        met = vectors if back is None else back.to(vectors.dtype) @ vectors
        of_p = torch.linalg.solve(vectors, p.to(vectors.dtype))
        out.append((values, of_p, met.mT @ met, met.mT @ met.conj(), torch.tensor(size).double()))
    return out


def _spectrum(square: Tensor) -> Tensor:
    """The largest eigenvalues by magnitude."""
    values: Tensor = torch.linalg.eigvals(square)
    return values[values.abs().argsort(descending=True)[:VALUES]]


def _nearest(mine: Tensor, expected: Expected) -> Tensor:
    """Of spectra as they are: bears a W that has moved from the candidate's, and small centres."""
    order = expected.values.abs().argsort(1, descending=True)[:, : len(mine)]
    theirs = expected.values.gather(1, order)
    a, b = (torch.stack([t.real, t.imag.abs()], -1) for t in (mine, theirs))
    apart = (a - b).norm(dim=(1, 2)) / (a.norm() + b.norm(dim=(1, 2)))
    return _ranked(apart)


def _least_effort(mine: Tensor, expected: Expected) -> Tensor:
    """Bears any centre, where W is as the candidate says."""
    return _ranked(expected.effort(mine))


def _ranked(apart: Tensor) -> Tensor:
    """Candidates by the nearer of their two forms."""
    return apart.view(-1, 2).amin(1).argsort()


def _values(x_TK: Tensor) -> Tensor:
    """Logarithms of the largest singular values, less their mean and slope."""
    logs = torch.linalg.svdvals(x_TK).clamp_min(1e-12).log()[:VALUES]
    at = torch.linspace(-1, 1, len(logs), dtype=torch.float64)
    line = torch.stack([torch.ones_like(at), at], 1)
    rest: Tensor = logs - line @ torch.linalg.lstsq(line, logs[:, None]).solution[:, 0]
    return torch.nn.functional.pad(rest, (0, VALUES - len(rest)))


def _by_values(passes: Sequence[Pass], candidates: Tensor) -> Tensor:
    # Rows of all passes share B and have row bases of their own: stacked, singular values are those of all.
    mine = _values(torch.cat([p.groups(p.x)[0].double() for p in passes]))
    return _ranked((candidates - mine).norm(dim=1))
