"""Runs a subject with recording workers, and makes what an attacker is told besides.

The truth is read here in two places that are declared side knowledge of an attack: known plaintexts, and the
architecture, whose names and lowerings are public.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor, nn

from tempo.attacks.attack import NothingToAttack
from tempo.attacks.knowledge import LayerFacts
from tempo.attacks.record import recorded, transcript_of, truth_of
from tempo.attacks.reference.subject import Phase, Subject
from tempo.attacks.suite.variant import Variant
from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.errors import DataError

_THREE_BY_THREE: Final = (3, 3)
#: Known operands of an epoch.
_KNOWN: Final = 16


@final
@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    variant: Variant
    transcript: Transcript
    truth: Truth


def record(subject: Subject, variant: Variant, folder: Path) -> Recording:
    """Every batch of every phase, under the variant's scheme. The subject's own model is left as it was.

    Raises NothingToAttack where the variant keeps every operation in the master.
    """
    model = copy.deepcopy(subject.model)
    options = {**subject.options, **variant.options}
    with recorded(folder, **options) as session:
        session.protect(model, keep=subject.keep, unsafe_offload=subject.unsafe_offload)
        for phase in subject.phases:
            _run(subject, model, phase)
    transcript = transcript_of(folder)
    if not transcript.seen:
        raise NothingToAttack("all of it stays in the master")
    return Recording(variant, transcript, truth_of(folder))


def _run(subject: Subject, model: nn.Module, phase: Phase) -> None:
    if phase.state is not None:
        model.load_state_dict(phase.state)
    if not phase.training:
        with torch.no_grad():
            for batch in phase.batches:
                subject.loss(model, batch)
        return
    optimizer = subject.optimizer([p for p in model.parameters() if p.requires_grad])
    for number, batch in enumerate(phase.batches, 1):
        (subject.loss(model, batch) / phase.micro).backward()
        if number % phase.micro == 0 or number == len(phase.batches):
            optimizer.step()
            optimizer.zero_grad()


def architecture_of(recording: Recording, model: nn.Module | None) -> tuple[LayerFacts, ...]:
    """The offloaded operations in the order of their first use. model: for the sizes of kernels."""
    parameters = dict(model.named_parameters()) if model is not None else {}
    found: dict[str, LayerFacts] = {}
    for passes in recording.transcript.layers():
        w = passes[0].w
        if w is None or passes[0].w_id is None:
            continue
        try:
            about = recording.truth.of(passes[0].w_id)
        except DataError:
            continue
        parameter = parameters.get(about.weight)
        kernel = None
        if parameter is not None and parameter.ndim == 4:
            kernel = (parameter.shape[2], parameter.shape[3])
        elif "winograd" in about.lowering:
            kernel = _THREE_BY_THREE
        name = about.weight or f"operation {len(found)}"
        if name not in found:
            facts = LayerFacts(name.removesuffix(".weight"), about.lowering, *_sizes(w), kernel)
            found[name] = facts
    return tuple(found.values())


def _sizes(w_GNK: Tensor) -> tuple[int, int, int]:
    groups, n, k = w_GNK.shape
    return groups, k, n


def known_batch(recording: Recording) -> Mapping[int, Tensor]:
    """Plain rows of X by id: the first half of those that met each layer's first W, at least one.
    What an attacker knows who sends requests of its own."""
    known: dict[int, Tensor] = {}
    seen: set[str] = set()
    for passes in recording.transcript.layers():
        try:
            plain = [recording.truth.of(p.x_id) for p in passes[: max(1, len(passes) // 2)][:_KNOWN]]
        except DataError:
            continue
        if plain[0].weight not in seen:
            seen.add(plain[0].weight)
            known |= {p.x_id: about.plain for p, about in zip(passes, plain, strict=False)}
    return known
