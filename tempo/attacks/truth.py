"""The ground truth, for judges only: what the master wrote with `unsafe_truth` (tempo/truth.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from tempo.errors import DataError
from tempo.ops import spans
from tempo.secrecy.basis import Basis, identity
from tempo.truth import SUFFIX, load


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plain:
    """One operand as it was before sealing: see tempo/truth.py. left, right: a basis for each group; the
    identity where the scheme has none, since then nothing was changed but split into shares."""

    kind: str
    weight: str
    lowering: str
    plain: Tensor
    rows: tuple[int, ...]
    left: tuple[Basis, ...]
    right: tuple[Basis, ...]

    @property
    def groups(self) -> list[Tensor]:
        """(rows, F) of each group; for a weight (N, K)."""
        if self.kind == "w":
            return list(self.plain)
        return [self.plain[lo:hi] for lo, hi in spans(self.rows)]


@final
class Truth:
    """Raises DataError where the folder holds none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not any(directory.glob(f"*{SUFFIX}")):
            raise DataError(
                f"{directory} holds no truth: run the session with unsafe_truth={str(directory)!r}"
            )

    def of(self, id_: int) -> Plain:
        """The operand with that id. Raises DataError for one that the master never sealed."""
        return _read(self._directory / f"{id_}{SUFFIX}")


@lru_cache(maxsize=64)
def _read(path: Path) -> Plain:
    try:
        with np.load(path) as arrays:
            about = json.loads(str(arrays["about"]))
            plain = torch.from_numpy(arrays["plain"])
            left, right = (tuple(load(axes, arrays) for axes in about[side]) for side in ("left", "right"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: is the truth of another run?") from error
    rows = tuple(about["rows"])
    if not left:
        lengths = [plain.shape[1]] * len(plain) if about["kind"] == "w" else rows
        left = tuple(identity(length) for length in lengths)
        right = (identity(plain.shape[-1]),) * len(lengths)
    return Plain(about["kind"], about["weight"], about["lowering"], plain, rows, left, right)


def matrix(basis: Basis) -> Tensor:
    """E as a float64 matrix, (L, L): encoded = E plain."""
    return basis.encode(torch.eye(basis.length, dtype=torch.float64), 0)
