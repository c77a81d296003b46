"""Attack 9: blind source separation on every axis.

A mixed operand X' = A X B^T is a mixture of features seen through its rows, and a mixture of rows seen
through
its features. With one axis as mixtures and the other as samples:

1. FastICA (independent, non-Gaussian sources) and second-order separation (sources that are coloured along
   the
   order of the samples), tempo/attacks/separation.py, on the features of each operand; each Winograd point
   and
   each group of a convolution has a basis of its own and is an operand of its own.
2. The same on rows: all of a short operand, else windows of consecutive ones.

Points of one convolution are not mixed with each other by any scheme, so there is nothing between them to
unmix.

Axes: R rows, F features, r components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.separation import fastica, second_order
from tempo.attacks.transcript import Transcript

Array = NDArray[np.float64]

#: Operands of each kind, groups of each, samples, components: what is spent.
_OPERANDS: Final = 3
_GROUPS: Final = 3
_SAMPLES: Final = 4096
_COMPONENTS: Final = 128
_SECOND: Final = 32
#: Rows of a window; a window of fewer samples than twice its rows is not tried.
_WINDOW: Final = 64


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unmixing:
    """v: (mixtures, r), for the features of one group of an operand, or for its rows from `first` on.
    seen (R, F): the group as it was seen, for a judge."""

    operand: int
    group: int
    axis: Literal["features", "rows"]
    method: Literal["FastICA", "second order"]
    first: int
    v: Array
    seen: Tensor


@final
class BlindSeparation(Attack[Nothing, list[Unmixing]]):
    name = "blind-separation"
    number = 9
    title = "Blind source separation on every axis"
    adversary = "one worker that records single operands"
    side_knowledge = "none"
    knowledge: ClassVar[type[Nothing]] = Nothing
    metric = "share of the largest true source in the energy of a recovered component, mean"
    compute = "up to 150 turns of FastICA on 128 components of 4,096 samples; seconds an operand"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[Unmixing]:
        out: list[Unmixing] = []
        for id_, group, seen in _operands(transcript):
            t = seen.double().numpy()
            if len(t) >= 2 * 8:
                some = t[:_SAMPLES]
                v = fastica(some, most=_most(some))
                out.append(Unmixing(id_, group, "features", "FastICA", 0, v, seen))
                v = second_order(some, most=min(_SECOND, _most(some)))
                out.append(Unmixing(id_, group, "features", "second order", 0, v, seen))
            rows = t if len(t) <= _WINDOW else t[:_WINDOW]
            if t.shape[1] >= 2 * len(rows):
                v = fastica(rows.T, most=_most(rows.T))
                out.append(Unmixing(id_, group, "rows", "FastICA", 0, v, seen))
        out = [each for each in out if each.v.shape[1] >= 2]
        if not out:
            raise NothingToAttack("blind separation needs an X' or dY' with 16 rows or more")
        return out


def _most(z_SF: Array) -> int:
    """More components than half of the samples are not to be told from noise."""
    return max(2, min(_COMPONENTS, len(z_SF) // 2))


def _operands(transcript: Transcript) -> list[tuple[int, int, Tensor]]:
    """Some X' and dY', from the last passes, each of another layer; some groups of each."""
    rng = np.random.default_rng(9)
    out: list[tuple[int, int, Tensor]] = []
    for kind in ("x", "dy"):
        layers: set[int | None] = set()
        for p in reversed(transcript.passes()):
            t, id_ = (p.x, p.x_id) if kind == "x" else (p.dy, p.dy_id)
            if t is None or id_ is None or p.w_id in layers or len(layers) == _OPERANDS:
                continue
            layers.add(p.w_id)
            groups = p.groups(t)
            for g in sorted(rng.permutation(len(groups))[:_GROUPS]):
                if len(groups[g]) > 1:
                    out.append((id_, int(g), groups[g]))
    return out
