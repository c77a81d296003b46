"""Side knowledge as attacks declare it, made from what a subject has public.

`SideKnowledge.of(kind, recording)` is None where the subject cannot give it: then the attack is listed as
skipped, with what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Final, final

import torch
from torch import Tensor, nn

from tempo.attacks.knowledge import (
    Candidates,
    KnownPlaintext,
    LayerFacts,
    Nothing,
    OwnRuns,
    PublicData,
    PublicLayer,
    PublicWeights,
)
from tempo.attacks.reference.subject import Batch as RunBatch
from tempo.attacks.reference.subject import Subject
from tempo.attacks.spatial import Batch
from tempo.attacks.suite.layer import own_runs, public_layer
from tempo.attacks.suite.plain import Operands, operands
from tempo.attacks.suite.recording import Recording, known_batch

#: Memory that plain operands of candidates may take.
_MOST_BYTES: Final = 600 << 20
#: Public inputs that covariances are taken of.
_SAMPLE: Final = 64

NEEDS: Final[Mapping[type[Nothing], str]] = {
    PublicWeights: "public weights",
    PublicData: "public data of the same distribution",
    PublicLayer: "public data of the same distribution",
    OwnRuns: "public data of the same distribution",
    Candidates: "candidate batches",
    KnownPlaintext: "known plaintext",
}


@final
class SideKnowledge:
    """subject: None where a bare transcript is attacked."""

    def __init__(self, subject: Subject | None, architecture: tuple[LayerFacts, ...]) -> None:
        self._subject = subject
        self._architecture = architecture

    def of(self, kind: type[Nothing], recording: Recording) -> Nothing | None:
        architecture, subject = self._architecture, self._subject
        if kind is Nothing:
            return Nothing(architecture)
        if kind is KnownPlaintext:
            return KnownPlaintext(architecture, known_batch(recording))
        if subject is None:
            return None
        public = subject.public
        if kind is Batch:
            return Batch(architecture, _size(subject.batches[0]))
        if kind is PublicWeights and public.weights is not None:
            return PublicWeights(architecture, public.weights, self.covariance)
        if kind is Candidates and public.decoys:
            return Candidates(architecture, self.candidates)
        if public.inputs is None:
            return None
        if kind is PublicData:
            return PublicData(architecture, public.inputs, public.labels)
        if kind is PublicLayer:
            return public_layer(subject, architecture)
        if kind is OwnRuns:
            return own_runs(subject, architecture, recording.variant)
        return None

    @cached_property
    def candidates(self) -> tuple[tuple[Tensor, ...], ...]:
        """Batches that were run, and decoys, in an order of their own: of each layer X (T, K), W (N, K) and
        dY (T, N), of its first group. As many decoys as there is memory for."""
        subject = self._the_subject
        training = subject.phases[-1].training
        made: list[tuple[Tensor, ...]] = []
        weights: dict[str, Tensor] = {}
        size = 0
        for number, batch in enumerate((*subject.batches, *subject.public.decoys)):
            if size > _MOST_BYTES and number >= len(subject.batches):
                break

            found = operands(subject, partial(_lost, subject, batch), gradients=training)
            made.append(tuple(t for name, each in found.items() for t in _triple(name, each, weights)))
            size += sum(t.numel() * t.element_size() for t in made[-1][0::3] + made[-1][2::3])
        order = torch.randperm(len(made), generator=torch.Generator().manual_seed(7))
        return tuple(made[i] for i in order.tolist())

    @cached_property
    def covariance(self) -> Mapping[str, Tensor] | None:
        """Covariance (K, K) of each layer's X on public data, over rows of all groups; by parameter."""
        inputs = self._the_subject.public.inputs
        if inputs is None:
            return None
        sample = inputs[:_SAMPLE]
        found = operands(self._the_subject, lambda model: model(sample), gradients=False)
        return {name: torch.cov(torch.cat(each.x).T.double()).float() for name, each in found.items()}

    @property
    def _the_subject(self) -> Subject:
        if self._subject is None:
            raise AssertionError("a bare transcript has no public data")
        return self._subject


def _size(batch: RunBatch) -> int:
    """Samples of a batch: the rows of its first tensor."""
    first = batch
    while isinstance(first, tuple | list | Mapping):
        first = next(iter(first.values() if isinstance(first, Mapping) else first))
    return len(first)


def _lost(subject: Subject, batch: RunBatch, model: nn.Module) -> Tensor:
    return subject.loss(model, batch)


def _triple(name: str, each: Operands, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """weights: kept once, since all candidates meet the same."""
    dy = each.dy[0] if each.dy and len(each.dy[0]) == len(each.x[0]) else torch.empty(0)
    return each.x[0].clone(), weights.setdefault(name, each.w[0].clone()), dy.clone()
