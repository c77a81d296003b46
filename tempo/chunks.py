"""Into how many chunks an operation's rows are cut, so that encode, link, worker and decode overlap.

While the first chunk is encoded and the last one decoded nothing else runs: with c chunks a worker, about
1/c of its rows R pass through an idle pipeline. A chunk of a layer in training costs a partial dW more,
N K elements that are sent, checked and added. In elements that cross the boundary:

    cost(c) = R (K + N) / c + c N K        least at c = sqrt(R / h),  h = K N / (K + N)

Without dW a chunk costs a message and the drawing of its keys, a fraction of a millisecond, and
_MOST chunks it is. Bounds: at least _LEAST_ROWS rows in each group, since rows are permuted within
chunks and fewer hide less, and _LEAST elements, since a job costs as much as some hundred kilobytes; at
most _MOST chunks, or as many as keep an operand within _LARGEST elements. Chunks as long as the scheme's
own are whole numbers of those. Depends on sizes and on the workers' speeds alone, not on dtypes, so a run
can be repeated and a plan cuts as the engine does.

Axes: G groups, R rows, K in-features, N out-features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import final

#: Per worker.
_MOST = 8
#: Rows of the longest group of a chunk.
_LEAST_ROWS = 2048
#: Elements of operand and result of a chunk, together: 2 MiB in float32.
_LEAST = 1 << 19
#: Elements of one operand or result of a chunk, 128 MiB in float32: several are in memory at once, and a
#: retry costs a whole one.
_LARGEST = 1 << 25
#: Rows of a shorter chunk are a multiple of this, so that few kernels meet ragged tiles.
_GRAIN = 256


@final
@dataclass(frozen=True, slots=True)
class Cut:
    """Shares of the rows in the order of the rows, and the lane of each. Sizes are multiples of `grain`
    rows, but for the last."""

    weights: list[float]
    lanes: list[int]
    grain: int


def cut(counts: Sequence[int], k: int, n: int, speeds: Sequence[float], *, chunk: int, dw: bool) -> Cut:
    """How to share an operation among workers.

    counts: rows of each group. speeds: of the workers, at least one. chunk: rows that the scheme permutes
    together. dw: each chunk will have a partial dW. The workers take turns, so that all are fed early.
    """
    total = sum(speeds)
    numbers = [_chunks(counts, k, n, speed / total, dw=dw) for speed in speeds]
    turns = [
        (lane, speeds[lane] / number)
        for turn in range(max(numbers))
        for lane, number in enumerate(numbers)
        if turn < number
    ]
    rows = max(counts, default=0) * min(s / c for s, c in zip(speeds, numbers, strict=True)) / total
    grain = 1 if max(numbers) == 1 else chunk if rows >= chunk else _GRAIN
    return Cut([weight for _, weight in turns], [lane for lane, _ in turns], grain)


def _chunks(counts: Sequence[int], k: int, n: int, share: float, *, dw: bool) -> int:
    """Of one worker, whose share of the rows this is."""
    rows, elements = max(counts, default=0) * share, sum(counts) * share
    best = round(sqrt(rows * (k + n) / (k * n))) if dw and k and n else _MOST
    most = min(int(rows / (_LEAST_ROWS + _GRAIN)), int(elements * (k + n) / _LEAST), _MOST)
    needed = ceil(elements * max(k, n) / _LARGEST)
    return max(1, min(best, most), needed)
