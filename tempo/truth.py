"""Writes down the master's secrets, so that attacks can be scored. For measurements only: whoever reads the
folder has the data, the weights and the bases.

Off by default; `Session(unsafe_truth=DIRECTORY)` switches it on. A file per sealed operand, named by the
id it has on the wire:

    kind      "x", "w" or "dy"
    weight    name of the parameter it meets (or is), "" where it has none
    lowering  name of the lowering, "" where unknown
    plain     what was sealed, before the basis: (T, F) for x and dy, (G, N, K) for w
    rows      rows of each group, for x and dy
    left      bases of the rows (of N for w), one for each group; as axes
    right     bases of the features, one for each group
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from tempo.errors import OutsideError
from tempo.kernels import Axis
from tempo.kernels.axis import Monomial
from tempo.secrecy.basis import Basis

SUFFIX: Final = ".truth.npz"


@final
class UnsafeTruth:
    """Raises OutsideError where the folder cannot be made."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._names: dict[int, str] = {}
        #: Parameter and lowering by operand.
        self._names_of: dict[int, tuple[str, str]] = {}
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutsideError(f"cannot write to {directory} ({error.strerror}): name a folder") from error

    def learn(self, model: nn.Module) -> None:
        """Names of the parameters that will be met."""
        self._names |= {id(p): name for name, p in model.named_parameters()}

    def weight(
        self,
        id_: int,
        owner: Tensor | None,
        lowering: str,
        plain_GNK: Tensor,
        left: Sequence[Basis],
        right: Sequence[Basis],
    ) -> None:
        """A sealed weight. owner: the parameter, or what it was computed from."""
        self._names_of[id_] = self._names.get(id(owner), ""), lowering
        self._save(id_, "w", plain_GNK, (), left, right)

    def rows(
        self,
        id_: int,
        kind: str,
        beside: int,
        plain: Sequence[Tensor],
        left: Sequence[Basis],
        right: Sequence[Basis],
    ) -> None:
        """A sealed x or dy. plain: rows of each group. beside: the operand it meets, known
        already, 0 for none."""
        counts = tuple(len(t) for t in plain)
        self._names_of[id_] = self._names_of.get(beside, ("", ""))
        self._save(id_, kind, torch.cat(list(plain)), counts, left, right)

    def _save(
        self,
        id_: int,
        kind: str,
        plain: Tensor,
        rows: tuple[int, ...],
        left: Sequence[Basis],
        right: Sequence[Basis],
    ) -> None:
        weight, lowering = self._names_of[id_]
        arrays: dict[str, Any] = {"plain": plain.detach().numpy()}
        entry = {
            "kind": kind,
            "weight": weight,
            "lowering": lowering,
            "rows": rows,
            "left": [dump(basis, arrays) for basis in left],
            "right": [dump(basis, arrays) for basis in right],
        }
        fd, name = tempfile.mkstemp(dir=self._directory)
        with os.fdopen(fd, "wb") as file:
            np.savez(file, about=json.dumps(entry), **arrays)
        Path(name).rename(self._directory / f"{id_}{SUFFIX}")


def dump(basis: Basis, arrays: dict[str, Any]) -> list[dict[str, Any]]:
    """The axes of a basis as plain values; its permutations and coefficients go to `arrays`."""

    def of(m: Monomial | None) -> int | None:
        if m is None:
            return None
        number = len(arrays)
        arrays[f"index{number}"], arrays[f"scale{number}"] = m.index.numpy(), m.scale.numpy()
        return number

    return [
        {
            "length": a.length,
            "enter": of(a.enter),
            "middle": [of(m) for m in a.middle],
            "leave": of(a.leave),
            "rounds": a.rounds,
            "block": a.block,
            "inverse": a.inverse,
        }
        for a in basis.stretches
    ]


def load(axes: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Basis:
    """What `dump` wrote. The condition is not kept."""

    def of(number: int | None) -> Monomial | None:
        if number is None:
            return None
        index, scale = (torch.from_numpy(arrays[f"{what}{number}"]) for what in ("index", "scale"))
        return Monomial(index, scale)

    return Basis(
        [
            Axis(
                a["length"],
                enter=of(a["enter"]),
                middle=[m for m in map(of, a["middle"]) if m is not None],
                leave=of(a["leave"]),
                rounds=a["rounds"],
                block=a["block"],
                inverse=a["inverse"],
            )
            for a in axes
        ],
        float("nan"),
    )
