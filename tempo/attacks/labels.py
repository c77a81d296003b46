"""Attack 3: labels from the gradient of the last layer, where it was offloaded.

Row t of dY is (softmax(y_t) - onehot(label_t)) / B: one entry is negative, its place is the label.

    signs      under a monomial mask sign(dY'_tc) = s_t z_c sign(dY): all but one sign of a row are those of
               s_t z_c, so the sign matrix is near one of rank one; its leading singular vectors, improved by
               majorities, give s and z, and the entry of a row that disagrees most the label
    clusters   rows of one label point the same way where the model is not sure yet, in any basis of the
               classes: unit rows, up to sign, are clustered (k-lines, from spread-out starts) after whitening

Both name classes up to relabelling, which public frequencies of labels undo. That is why the classifier stays
in the TEE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Pass, Transcript

#: Operands attacked, in order of time; more classes than this are no classifier that is looked for.
OPERANDS: Final = 20
CLASSES: Final = 1024
ROUNDS: Final = 30
STARTS: Final = 8
_SEED: Final = 3


@final
@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Of one dY': a class number for each encoded row, by signs and by clusters."""

    dy_id: int
    by_signs: Tensor
    by_clusters: Tensor


@final
class LabelRecovery(Attack[Nothing, list[Labels]]):
    name = "labels"
    number = 3
    title = "Labels from the gradient of the last layer"
    adversary = "one worker that computes the classifier's gradients"
    side_knowledge = "that this operation is the classifier (the architecture)"
    knowledge = Nothing
    metric = "rows whose label is found, up to a renaming of classes"
    compute = "a singular value decomposition and a clustering for each batch: seconds"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[Labels]:
        found = {
            p.dy_id: p.dy
            for p in _last(transcript)
            if p.dy_id is not None and p.dy is not None and p.dy.shape[1] <= CLASSES and len(p.rows) == 1
        }
        generator = torch.Generator().manual_seed(_SEED)
        out = []
        for id_, dy in list(found.items())[:OPERANDS]:
            if 2 <= dy.shape[1] < len(dy):
                out.append(Labels(id_, by_signs(dy.double()), by_clusters(dy.double(), generator)))
        if not out:
            raise NothingToAttack(
                "no gradient of a classifier was seen: the last layer stays in the TEE unless it is named in "
                "unsafe_offload, and has to have min_size classes or more"
            )
        return out


def _last(transcript: Transcript) -> list[Pass]:
    """Passes of the classifier: of all operations the one with the fewest out-features; of several, all."""
    passes = [p for p in transcript.passes() if p.dy is not None]
    fewest = min((p.dy.shape[1] for p in passes if p.dy is not None), default=0)
    return [p for p in passes if p.dy is not None and p.dy.shape[1] == fewest]


def by_signs(dy_TC: Tensor) -> Tensor:
    """(T,) classes from signs."""
    signs = dy_TC.sign()
    u, _, vh = torch.linalg.svd(signs, full_matrices=False)
    of_rows, of_classes = _sign(u[:, 0]), _sign(vh[0])
    for _ in range(ROUNDS):
        of_classes = _sign(of_rows @ signs)
        again = _sign(signs @ of_classes)
        if torch.equal(again, of_rows):
            break
        of_rows = again
    # Entries relative to the usual size of their class: what a coefficient of the mask would hide.
    even = dy_TC / dy_TC.abs().median(0).values.clamp_min(1e-300)
    return (even * of_rows[:, None] * of_classes).argmin(1)


def by_clusters(dy_TC: Tensor, generator: torch.Generator) -> Tensor:
    """(T,) classes from directions of rows."""
    classes = dy_TC.shape[1]
    # Entries of a row sum to zero: one dimension less than there are classes.
    u, s, _ = torch.linalg.svd(dy_TC, full_matrices=False)
    keep = s > 1e-5 * s[0]
    rows = normalize(u[:, keep], dim=1)
    best: tuple[float, Tensor] | None = None
    for _ in range(STARTS):
        lines = _spread_out(rows, classes, generator)
        for _ in range(ROUNDS):
            fit = rows @ lines.mT
            places = fit.abs().argmax(1)
            signed = rows * _sign(fit.gather(1, places[:, None]))
            sums = torch.zeros_like(lines).index_add_(0, places, signed)
            empty = sums.norm(dim=1) == 0
            again = normalize(torch.where(empty[:, None], lines, sums), dim=1)
            if torch.allclose(again, lines, atol=1e-9):
                break
            lines = again
        fit = rows @ lines.mT
        total = float(fit.abs().amax(1).sum())
        if best is None or total > best[0]:
            best = total, fit.abs().argmax(1)
    if best is None:
        raise AssertionError("there is at least one start")
    return best[1]


def _spread_out(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows to start from, each drawn the rather the further it is from those before (k-means++)."""
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    for _ in range(count - 1):
        apart = 1 - (rows @ rows[chosen].mT).square().amax(1)
        weights = apart.clamp_min(0) + 1e-12
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return rows[chosen]


def _sign(t: Tensor) -> Tensor:
    return torch.where(t < 0, -1.0, 1.0).double()
