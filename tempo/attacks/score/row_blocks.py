"""Judge of attack 20. Rows are trials: is its block exactly the rows that the last round mixed it with, and
is its
outer scale within 1 % of the true one, relative to its block?"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.row_blocks import DependentRows, RowBlocks
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials
from tempo.secrecy.basis import Basis

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_CLOSE: Final = 0.01
#: Rows that a guess is moved by to see what chance gives, less one.
_SHIFTS: Final = 12


@final
class DependentRowsScorer(Scorer[list[RowBlocks]]):
    attack = DependentRows

    def score(self, guess: list[RowBlocks], truth: Truth) -> dict[str, Trials]:
        """Operands without row blocks (rows only permuted, or sent as they are) count as one block a row."""
        blocks: dict[str, list[float]] = defaultdict(list)
        scales: dict[str, list[float]] = defaultdict(list)
        blind: dict[str, list[float]] = defaultdict(list)
        ranks: dict[str, list[float]] = defaultdict(list)
        for each in guess:
            name = {"x": "X", "dy": "dY"}[each.kind]
            label, scale = outer(truth.of(each.operand).left[each.group])
            rows = len(each.label)
            label, scale = label[:rows], scale[:rows]
            mine, own = each.label[:, None] == each.label, label[:, None] == label
            blocks[f"row blocks of {name}"] += (mine == own).all(1).astype(float).tolist()
            level = np.zeros(rows)
            for block in np.unique(label):
                at = label == block
                level[at] = np.log(np.abs(scale[at])).mean()
            true = np.exp(np.log(np.abs(scale)) - level)
            close = [np.abs(np.roll(each.scale, by) / true - 1) < _CLOSE for by in range(_SHIFTS)]
            scales[f"outer scales of {name}"] += close[0].astype(float).tolist()
            blind[f"outer scales of {name}"].append(float(np.mean(close[1:])))
            ranks[name].append(each.rank / rows)
        how = "no row block is guessed exactly: one of at least R choose 64"
        out = {
            n: Trials(v, 0.0, how, "rows of one operand are dependent", {"rank_share": float(np.mean(r))})
            for (n, v), r in zip(blocks.items(), ranks.values(), strict=True)
        }
        how = "the same guess for other rows, measured"
        return out | {n: Trials(v, float(np.mean(blind[n])), how) for n, v in scales.items()}


def outer(basis: Basis) -> tuple[Index, Array]:
    """Of each row: the block of the last round, and the scale behind it."""
    label, scale = np.zeros(basis.length, np.int64), np.ones(basis.length)
    start, number = 0, 0
    for axis in basis.stretches:
        index = np.arange(axis.length)
        if axis.leave is not None:
            index = axis.leave.index.numpy().astype(np.int64)
            scale[start + index] = axis.leave.scale.numpy()
        block = max(axis.block, 1)
        within = np.minimum(np.arange(axis.length) // block, max(axis.length // block - 1, 0))
        label[start + index] = number + (within if axis.rounds else np.arange(axis.length))
        start, number = start + axis.length, number + axis.length
    return label, scale
