"""Costs from measurements: least squares without negative coefficients.

    min over c >= 0 of  sum_i ((sum_j a_ij c_j - s_i) / s_i)^2

Relative errors, so that small shapes count as much as large ones. At most a handful of unknowns: every
set of non-zero ones is tried, which is slow, short and right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain, combinations

import torch

from tempo.plan.machine import Cost


def non_negative(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """rows[i]: amounts of each unknown in measurement i, which took seconds[i] > 0."""
    a = torch.tensor(rows, dtype=torch.float64)
    s = torch.tensor(seconds, dtype=torch.float64)
    a = a / s.unsqueeze(1)
    scale = a.abs().amax(0).clamp_min(torch.finfo(torch.float64).tiny)
    a = a / scale
    target = torch.ones_like(s)
    unknowns = [j for j in range(a.shape[1]) if bool(a[:, j].any())]
    best, smallest = torch.zeros(a.shape[1], dtype=torch.float64), float(target.square().sum())
    sets = chain.from_iterable(combinations(unknowns, size) for size in range(1, len(unknowns) + 1))
    for chosen in sets:
        columns = a[:, list(chosen)]
        found = torch.linalg.lstsq(columns, target.unsqueeze(1), driver="gelsd").solution[:, 0]
        if bool((found < 0).any()):
            continue
        error = float((columns @ found - target).square().sum())
        if error < smallest * (1 - 1e-9):
            best = torch.zeros_like(best)
            best[list(chosen)] = found
            smallest = error
    return [float(each) for each in best / scale]


def cost(shapes: Sequence[tuple[float, float, float]], seconds: Sequence[float]) -> Cost:
    """shapes: (groups, rows, elements) of each measurement."""
    call, group, row, element = non_negative([(1.0, *shape) for shape in shapes], seconds)
    return Cost(call_seconds=call, group_seconds=group, row_seconds=row, element_seconds=element)


def seconds_of(work: Callable[[], object], *, repeats: int = 5, enough_s: float = 0.03) -> float:
    """The least of a few runs, two at least: what the machine can do while nobody else asks for it."""
    best, spent = float("inf"), 0.0
    for number in range(repeats):
        start = time.perf_counter()
        work()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
        if number and spent >= enough_s:
            break
    return max(best, 1e-9)
