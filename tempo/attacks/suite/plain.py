"""What a subject would send, in the clear: an attacker who has model and data computes it itself."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from tempo.attacks.reference.subject import Subject
from tempo.attacks.suite.variant import UNDEFENDED
from tempo.attacks.truth import Plain, Truth
from tempo.facade import Session
from tempo.truth import SUFFIX


@final
@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """Of one layer: a tensor for each group, rows of all chunks together. dy: empty where there was none."""

    x: tuple[Tensor, ...]
    w: Tensor
    dy: tuple[Tensor, ...] = ()


def operands(
    subject: Subject, call: Callable[[nn.Module], Tensor], *, gradients: bool
) -> dict[str, Operands]:
    """Plain operands of each layer by the name of its weight, in the order of the forward pass.

    call: what is done with the model. gradients: backward from its result too. Parameters are the public
    ones, or, for an attacker that has been given the model, those that the last phase begins with.
    """
    model = copy.deepcopy(subject.model)
    state = subject.public.weights or subject.phases[-1].state
    if state is not None:
        model.load_state_dict(state)
    with tempfile.TemporaryDirectory(prefix="tempo-candidate-") as name:
        folder = Path(name)
        options = {**subject.options, "scheme": UNDEFENDED}
        with Session("cpu", unsafe_truth=folder, **options) as session, torch.set_grad_enabled(gradients):
            session.protect(model, keep=subject.keep, unsafe_offload=subject.unsafe_offload)
            result = call(model)
            if gradients:
                result.backward()
        return _collected(folder)


def _collected(folder: Path) -> dict[str, Operands]:
    truth = Truth(folder)
    ids = sorted(int(path.name.removesuffix(SUFFIX)) for path in folder.glob(f"*{SUFFIX}"))
    found: dict[str, dict[str, list[Plain]]] = {}
    for id_ in ids:
        about = truth.of(id_)
        found.setdefault(about.weight, {}).setdefault(about.kind, []).append(about)
    return {
        name: Operands(_whole(kinds["x"]), kinds["w"][0].plain, _whole(kinds.get("dy", [])))
        for name, kinds in found.items()
        if "x" in kinds and "w" in kinds
    }


def _whole(chunks: list[Plain]) -> tuple[Tensor, ...]:
    """The chunks of an operand, which follow one another, as one tensor for each group."""
    return tuple(torch.cat(group) for group in zip(*(chunk.groups for chunk in chunks), strict=True))
