"""Side knowledge as attacks declare it, made from what a subject has public.

`SideKnowledge.of(kind, recording)` is None where the subject cannot give it: then the attack is listed as
skipped, with what it needs.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.knowledge import Candidates, KnownPlaintext, LayerFacts, Nothing, PublicData, PublicWeights
from tempo.attacks.reference.subject import Batch, Subject
from tempo.attacks.suite.recording import Recording, known_batch
from tempo.attacks.suite.variant import UNDEFENDED
from tempo.attacks.truth import Truth
from tempo.session import Session
from tempo.truth import SUFFIX

#: Memory that plain operands of candidates may take.
_MOST_BYTES: Final = 400 << 20
_LEAST: Final = 2

NEEDS: Final[dict[type[Nothing], str]] = {
    PublicWeights: "public weights",
    PublicData: "public data of the same distribution",
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
        if kind is PublicWeights and public.weights is not None:
            return PublicWeights(architecture, public.weights, self.covariance)
        if kind is PublicData and public.inputs is not None:
            return PublicData(architecture, public.inputs, public.labels)
        if kind is Candidates and public.decoys:
            return Candidates(architecture, self.candidates)
        return None

    @cached_property
    def candidates(self) -> tuple[tuple[Tensor, ...], ...]:
        """Batches that were run, and decoys, in an order of their own: plain X of each layer, (T, K)."""
        subject = self._the_subject
        batches = (*subject.phases[-1].batches, *subject.public.decoys)
        made: list[tuple[Tensor, ...]] = []
        size = 0
        for batch in batches:
            made.append(tuple(self._operands(batch).values()))
            size += sum(t.numel() * t.element_size() for t in made[-1])
            if size > _MOST_BYTES and len(made) >= _LEAST * len(subject.phases[-1].batches):
                break
        order = torch.randperm(len(made), generator=torch.Generator().manual_seed(7))
        return tuple(made[i] for i in order.tolist())

    @cached_property
    def covariance(self) -> Mapping[str, Tensor] | None:
        """Covariance (K, K) of each layer's X on public data, over rows of all groups; by parameter."""
        decoys = self._the_subject.public.decoys
        if not decoys:
            return None
        return {name: torch.cov(x.T.double()).float() for name, x in self._operands(decoys[0]).items()}

    @property
    def _the_subject(self) -> Subject:
        if self._subject is None:
            raise AssertionError("a bare transcript has no public data")
        return self._subject

    def _operands(self, batch: Batch) -> dict[str, Tensor]:
        """Plain X (T, K) of each layer by parameter, under the weights that the last phase begins with:
        the attacker's own forward pass, in the clear."""
        subject = self._the_subject
        model = copy.deepcopy(subject.model)
        state = subject.public.weights or subject.phases[-1].state
        if state is not None:
            model.load_state_dict(state)
        with tempfile.TemporaryDirectory(prefix="tempo-candidate-") as name:
            folder = Path(name)
            options = {**subject.options, "scheme": UNDEFENDED}
            with Session("cpu", unsafe_truth=folder, **options) as session, torch.no_grad():
                session.protect(model, keep=subject.keep, unsafe_offload=subject.unsafe_offload)
                subject.loss(model, batch)
            truth = Truth(folder)
            ids = sorted(int(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}"))
            # The chunks of one X follow one another: groups first, then chunks.
            parts: dict[str, list[list[Tensor]]] = {}
            for id_ in ids:
                about = truth.of(id_)
                if about.kind == "x":
                    parts.setdefault(about.weight, []).append(about.groups)
        return {
            weight: torch.cat([torch.cat(group) for group in zip(*chunks, strict=True)])
            for weight, chunks in parts.items()
        }
