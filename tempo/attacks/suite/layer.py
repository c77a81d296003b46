"""What an attacker knows of one layer: rows that could enter it, and runs of the public scheme on them.

The layer is the first offloaded one of a single group. Where weights before it are secret, the attacker is
given its rows on public data all the same: stronger than real, so that failing says more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from tempo.attacks.knowledge import LayerFacts, OwnRuns, PublicLayer
from tempo.attacks.reference.own import Sealer
from tempo.attacks.reference.subject import Subject
from tempo.attacks.suite.plain import operands
from tempo.attacks.suite.variant import Variant
from tempo.config import Config
from tempo.secrecy.scheme import SHARES

#: Public inputs whose rows are taken, and tokens times positions whose states are.
_INPUTS: Final = 4096
_STATES: Final = 65_536


def public_layer(subject: Subject, architecture: tuple[LayerFacts, ...]) -> PublicLayer | None:
    inputs = subject.public.inputs
    facts = _first(architecture)
    if inputs is None or facts is None:
        return None
    name = f"{facts.module}.weight"
    weight = None if subject.public.weights is None else subject.public.weights.get(name)
    weight = weight if weight is not None and weight.ndim == 2 else None
    if inputs.is_floating_point():
        rows = _rows(subject, name, inputs[:_INPUTS])
        return rows if rows is None else PublicLayer(architecture, weight, rows, None, _picture(inputs, rows))
    # The state of every frequent token at every position.
    length = inputs.shape[1]
    values, counts = inputs.unique(return_counts=True)
    frequent = values[counts.argsort(descending=True)][: _STATES // length]
    states = _rows(subject, name, frequent[:, None].expand(-1, length).contiguous())
    tokens = frequent.repeat_interleave(length)
    if states is None or len(states) != len(tokens):
        return None
    return PublicLayer(architecture, weight, states, tokens)


def own_runs(subject: Subject, architecture: tuple[LayerFacts, ...], variant: Variant) -> OwnRuns | None:
    inputs, facts = subject.public.inputs, _first(architecture)
    if inputs is None or facts is None:
        return None
    name = f"{facts.module}.weight"
    inputs = inputs[torch.linspace(0, len(inputs) - 1, min(_INPUTS, len(inputs))).long()]
    rows = _rows(subject, name, inputs)
    if rows is None or len(rows) % len(inputs):
        return None
    labels = subject.public.labels
    if labels is not None:
        labels = labels[torch.linspace(0, len(labels) - 1, len(inputs)).long()]
    # Which model was run: as it was at its start, or late in training.
    states = [
        phase.state[name] for phase in subject.phases if phase.state is not None and name in phase.state
    ]
    seal_rows, seal_weight = _seals(subject, variant)
    return OwnRuns(
        architecture,
        seal_rows,
        seal_weight,
        rows.unflatten(0, (len(inputs), -1)),
        labels if labels is not None and labels.ndim == 1 else None,
        tuple(w for w in states if w.ndim == 2) if len(states) > 1 else (),
        _picture(inputs, rows),
    )


def _seals(
    subject: Subject, variant: Variant
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if variant.scheme == SHARES:
        # Not a change of basis but shares: what one worker combines is uniform, and so is this.
        return _noise, _noise
    options = {**subject.options, **variant.options}
    sealer = Sealer(Config().with_options(**options))
    return sealer.rows, sealer.weight


def _noise(t: Tensor) -> Tensor:
    return torch.rand_like(t) - 0.5


def _first(architecture: tuple[LayerFacts, ...]) -> LayerFacts | None:
    return next((facts for facts in architecture if facts.groups == 1), None)


def _rows(subject: Subject, name: str, inputs: Tensor) -> Tensor | None:
    """(T, K) plain X of a layer."""
    found = operands(subject, lambda model: _called(model, inputs), gradients=False).get(name)
    return None if found is None else found.x[0].clone()


def _called(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    out: Tensor = model(inputs)
    return out


def _picture(inputs: Tensor, rows: Tensor) -> tuple[int, int] | None:
    """Height and width, where rows are the images themselves."""
    if inputs.ndim == 4 and inputs.shape[1] == 1 and rows.shape == (len(inputs), inputs[0].numel()):
        return inputs.shape[2], inputs.shape[3]
    return None
