"""Attack 20: zero and repeated rows. Rows of dY that are zero or equal make the sealed rows of their block
dependent, and the dependencies name the blocks of A* and its outer scales; X' of the same operation shares A.

    y_i = s_i sum_j H_ij z_j     for the rows i of one block of 64, z what stood before the last round

1. Rank r of dY'. With fewer than its rows, the column space U (R, r) is the direct sum of those of the
   blocks, so U U^T vanishes between rows of different blocks: connected components are the blocks (Costeira
   and Kanade 1998, the shape interaction matrix).
2. Within a block, what S U spans, S = diag(1/s), is spanned by columns of H, whose entries are all of one
   size. For columns of H themselves the projector's diagonal is constant: the scales that make it so are
   found by a fixed point (Tyler 1987).
3. The same on X' (repeated rows: padding's background, broadcast states).

Axes: R rows, F features, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse.csgraph import connected_components

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.exact_constraints import numerical_rank
from tempo.attacks.knowledge import Nothing
from tempo.attacks.transcript import Transcript

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_OPERANDS: Final = 12
_GROUPS: Final = 2
_ROWS: Final = 2048
#: An entry of the projector below this share of what its row's diagonal allows is none.
_NONE: Final = 1e-3
_TURNS: Final = 2000
#: Multiplications of one fixed point: a block is some 64 rows, and what is much longer is none.
_WORK: Final = 4e8
#: Smallest scale, relative to the largest of its block.
_LEAST: Final = 1e-12


@final
@dataclass(frozen=True, slots=True, eq=False)
class RowBlocks:
    """Of one group of an operand. label: the block of each row. scale: |s| of each row, 1 in the geometric
    mean of a block; NaN where it was not found."""

    operand: int
    kind: Literal["x", "dy"]
    group: int
    rank: int
    label: Index
    scale: Array


@final
class DependentRows(Attack[Nothing, list[RowBlocks]]):
    name = "row-blocks"
    number = 20
    title = "Zero and repeated rows name the row blocks and their scales"
    adversary = "one worker that records single operands"
    side_knowledge = "none"
    knowledge: ClassVar[type[Nothing]] = Nothing
    metric = "share of rows whose block is found exactly; of rows whose scale is within 1 %"
    compute = "a singular value decomposition for each operand, and a fixed point"

    def run(self, transcript: Transcript, knowledge: Nothing) -> list[RowBlocks]:
        out: list[RowBlocks] = []
        for p in transcript.passes()[-_OPERANDS:]:
            for g in range(min(len(p.rows), _GROUPS)):
                if p.dy is not None and p.dy_id is not None:
                    out.append(_blocks(p.dy_id, "dy", g, p.groups(p.dy)[g].double().numpy()))
                out.append(_blocks(p.x_id, "x", g, p.groups(p.x)[g].double().numpy()))
        out = [each for each in out if len(each.label) > 1]
        if not out:
            raise NothingToAttack("row blocks need an X' or dY' of two rows or more")
        return out


def _blocks(id_: int, kind: Literal["x", "dy"], group: int, t_RF: Array) -> RowBlocks:
    t = t_RF[:_ROWS]
    rows = len(t)
    label, scale = np.zeros(rows, np.int64), np.full(rows, np.nan)
    if rows < 2 or not np.isfinite(t).all():
        return RowBlocks(id_, kind, group, 0, label[:0], scale[:0])
    size = np.linalg.norm(t, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(t / (size + 1e-300), full_matrices=False)
    rank = numerical_rank(s)
    if rank >= min(rows, t.shape[1]):  # no dependencies but those that come of the shape
        return RowBlocks(id_, kind, group, rank, label, scale)
    projector = u[:, :rank] @ u[:, :rank].T
    label = _merged(components(projector))
    for block in range(label.max() + 1):
        mine = np.flatnonzero(label == block)
        if len(mine) > 1:
            q, s, _ = np.linalg.svd(u[mine, :rank], full_matrices=False)
            inner = numerical_rank(s)
            if inner < len(mine):
                found = even_scales(q[:, :inner]) * size[mine, 0]
                scale[mine] = found / np.exp(np.log(np.maximum(found, 1e-300)).mean())
    return RowBlocks(id_, kind, group, rank, label, scale)


def components(projector_RR: Array) -> Index:
    """Rows that the projector links. An entry between blocks is rounding; the threshold is the widest gap in
    the sizes of the entries around the expected one."""
    d = np.sqrt(np.maximum(projector_RR.diagonal(), 1e-30))
    linked = np.abs(projector_RR) / np.outer(d, d)
    return np.asarray(connected_components(linked > _NONE, directed=False)[1])


def _merged(label: Index) -> Index:
    """Few columns of H are equal up to sign on halves of a block, which then fall apart. Blocks are of one
    size: what falls short of the largest and adds up to it is one block."""
    counts = np.bincount(label)
    short = np.flatnonzero(counts < counts.max())
    if len(short) and counts[short].sum() == counts.max():
        label = np.where(np.isin(label, short), short[0], label)
    return np.asarray(np.unique(label, return_inverse=True)[1]).ravel()


def even_scales(q_Br: Array) -> Array:
    """|s|, up to a common factor, such that diag(1/s) Q spans a space whose projector has a constant
    diagonal."""
    b, r = q_Br.shape
    s = np.ones(b)
    for _ in range(min(_TURNS, max(2, int(_WORK / (b * r * r))))):
        # diag of the projector on the columns of t: t (t^T t)^-1 t^T, without its other entries.
        t = q_Br / s[:, None]
        try:
            low = np.linalg.cholesky(t.T @ t)
        except np.linalg.LinAlgError:
            break  # scales so far apart that nothing more is to be told
        diagonal = (solve_triangular(low, t.T, lower=True) ** 2).sum(0) * b / r
        # A row that the space does not reach has no scale: its share would vanish turn by turn.
        s = np.maximum(s * np.sqrt(np.maximum(diagonal, 1e-12)), _LEAST * s.max())
        if np.abs(diagonal - 1).max() < 1e-9:
            break
    return s
