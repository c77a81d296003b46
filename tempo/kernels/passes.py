"""The passes of the master: native ones where there are, plain PyTorch otherwise.

TEMPO_KERNELS = avx512 | avx2 | portable | plain asks for one kind; what this machine lacks is an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.kernels import plain
from tempo.kernels.axis import Axis
from tempo.kernels.native import SETS, Native
from tempo.kernels.transform import Transform

VARIABLE: Final = "TEMPO_KERNELS"
#: Elements from which a second thread pays for being woken.
_PER_THREAD: Final = 1 << 17


@final
@dataclass(frozen=True, slots=True)
class Serving:
    """Which passes serve, "avx512", "avx2", "portable" or "plain", and why."""

    serving: str
    reason: str


@lru_cache(maxsize=1)
def _choose() -> tuple[Native | None, Serving]:
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "plain", *SETS):
        raise UsageError(f"{VARIABLE}={asked}: expected one of {', '.join((*SETS, 'plain'))}")
    if asked == "plain":
        return None, Serving("plain", f"{VARIABLE} asks for it")
    reason = ""
    for name in [asked] if asked else SETS:
        try:
            return Native(name), Serving(
                name, f"{VARIABLE} asks for it" if asked else "the best of this processor"
            )
        except OSError as error:
            reason = str(error)
    if asked:
        raise UsageError(f"{VARIABLE}={asked}: {reason}")
    return None, Serving("plain", reason)


def native_status() -> Serving:
    return _choose()[1]


def native_passes() -> Native | None:
    """None where plain PyTorch serves."""
    return _choose()[0]


def threads_of(t: Tensor) -> int:
    """How many threads a pass over this many elements deserves."""
    return _threads(t.numel())


def transform(tasks: Sequence[Transform]) -> None:
    """Run transforms of one dtype. Rows of more than one round take a pass for each further one."""
    tasks = [task for task in tasks if task.elements]
    native = _choose()[0]
    if native is None or not all(native.fits(a) for t in tasks for a in (*t.rows, t.features)):
        for task in tasks:
            plain.transform(task)
        return
    threads = _threads(sum(task.elements for task in tasks))
    while tasks and (most := max(a.rounds for t in tasks for a in t.rows)) > 1:
        firsts, tasks = zip(*[_split(task, most) for task in tasks], strict=True)
        native.transform([first for first in firsts if first is not None], threads)
    if tasks:
        native.transform(tasks, threads)


def ranking(words: Tensor) -> Tensor:
    """Indices (L,) int32 that put random 64-bit words (L,) in ascending order."""
    native = _choose()[0]
    return words.argsort().int() if native is None else native.ranking(words)


def project(a_RF: Tensor, v_FP: Tensor) -> tuple[Tensor, Tensor]:
    """(a v (R, P), 2-norms of the rows of a (R,)) in float64. a: float32, float64 or bfloat16."""
    if v_FP.shape[0] != a_RF.shape[1] or v_FP.dtype != torch.float64:
        raise ValueError(f"probes are float64 with {a_RF.shape[1]} entries, not {tuple(v_FP.shape)}")
    native = _choose()[0]
    if native is None:
        return plain.project(a_RF, v_FP)
    return native.project(_rows(a_RF), v_FP, _threads(a_RF.numel()))


def contract(a_RF: Tensor, q_RP: Tensor) -> tuple[Tensor, Tensor]:
    """(a^T q (F, P), sums of squares of the columns of a (F,)) in float64."""
    if q_RP.shape[0] != a_RF.shape[0] or q_RP.dtype != torch.float64:
        raise ValueError(f"projections are float64 with {a_RF.shape[0]} rows, not {tuple(q_RP.shape)}")
    native = _choose()[0]
    if native is None:
        return plain.contract(a_RF, q_RP)
    return native.contract(_rows(a_RF), q_RP, _threads(a_RF.numel()))


def norms(a_RF: Tensor) -> Tensor:
    """2-norms of the rows of a, float64."""
    return project(a_RF, torch.empty(a_RF.shape[1], 0, dtype=torch.float64))[1]


def _split(task: Transform, most: int) -> tuple[Transform | None, Transform]:
    """The first round of the rows as a pass of its own, where they have `most`; and the rest."""
    if max(a.rounds for a in task.rows) < most:
        return None, task
    firsts: list[Axis] = []
    rest: list[Axis] = []
    for a in task.rows:
        first, then = a.first_round() if a.rounds > 1 else (Axis(a.length), a)
        firsts.append(first)
        rest.append(then)
    width = task.features.length
    middle = torch.empty(sum(a.length for a in task.rows), width, dtype=task.dtype)
    nothing = Axis(width)
    first_task = Transform(
        task.source, middle, firsts, nothing, source_rows=task.source_rows, before=task.before
    )
    return first_task, Transform(
        middle, task.target, rest, task.features, target_rows=task.target_rows, after=task.after
    )


def _rows(t: Tensor) -> Tensor:
    return t if t.numel() == 0 or t.stride(1) == 1 or t.shape[1] == 1 else t.contiguous()


def _threads(elements: int) -> int:
    return max(1, min(torch.get_num_threads(), elements // _PER_THREAD))
