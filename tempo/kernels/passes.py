"""The passes of the master: native ones where there are, plain PyTorch otherwise.

TEMPO_KERNELS = avx512 | avx2 | portable | plain asks for one kind; what this machine lacks is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, final

import torch
from torch import Tensor

from tempo.errors import UsageError
from tempo.kernels import plain
from tempo.kernels.native import SETS, Native
from tempo.kernels.plainness import resolved
from tempo.kernels.survey import Sums, Survey
from tempo.kernels.transform import Transform
from tempo.memory import Pool

VARIABLE: Final = "TEMPO_KERNELS"
#: Elements from which a second thread pays for being woken.
_PER_THREAD: Final = 1 << 17
#: Elements between two rounds of the rows, or one stretch if that is more: 32 MiB in float32. Half of it
#: costs Winograd's many short stretches 2 %, since threads wait for each other at the end of each round.
_SCRATCH: Final = 1 << 23
_CHECKED: Final = (torch.float32, torch.float64, torch.bfloat16)


@final
@dataclass(frozen=True, slots=True)
class Serving:
    """Which passes serve, "avx512", "avx2", "portable" or "plain", and why."""

    serving: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class _Kernels:
    native: Native | None
    status: Serving
    #: For what lies between two rounds of the rows.
    scratch: Pool = field(default_factory=Pool)


@lru_cache(maxsize=1)
def _kernels() -> _Kernels:
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "plain", *SETS):
        raise UsageError(f"{VARIABLE}={asked}: expected one of {', '.join((*SETS, 'plain'))}")
    if asked == "plain":
        return _Kernels(None, Serving("plain", f"{VARIABLE} asks for it"))
    reason = ""
    for name in [asked] if asked else SETS:
        try:
            why = f"{VARIABLE} asks for it" if asked else "the best of this processor"
            return _Kernels(Native(name), Serving(name, why))
        except OSError as error:
            reason = str(error)
    if asked:
        raise UsageError(f"{VARIABLE}={asked}: {reason}")
    return _Kernels(None, Serving("plain", reason))


def native_status() -> Serving:
    return _kernels().status


def native_passes() -> Native | None:
    """None where plain PyTorch serves."""
    return _kernels().native


def pool() -> Pool:
    """Memory of the passes, and of what they leave for one another."""
    return _kernels().scratch


def threads_of(t: Tensor) -> int:
    """How many threads a pass over this many elements deserves."""
    native, threads = native_passes(), _threads(t)
    return threads if native is None else native.team(threads)


def transform(tasks: Sequence[Transform]) -> None:
    """Run transforms of one dtype, else ValueError. Rows of more than one round take a pass for each
    further one."""
    if len({task.dtype for task in tasks}) > 1:
        raise ValueError("transforms of one call are computed in one dtype: float32 or float64")
    tasks = [task for task in tasks if task.elements]
    kernels = _kernels()
    native = kernels.native
    if native is None or not all(native.fits(a) for t in tasks for a in (*t.rows, t.features)):
        for task in tasks:
            plain.transform(task)
        return
    single = [task for task in tasks if max(a.rounds for a in task.rows) < 2]
    if single:
        native.transform(single, _threads(single))
    for batch in _batches([task for task in tasks if max(a.rounds for a in task.rows) > 1]):
        _in_rounds(native, kernels.scratch, batch)


def _batches(tasks: Sequence[Transform]) -> Iterator[list[Transform]]:
    """Stretches of rows, as many at a time as fit the scratch memory."""
    batch: list[Transform] = []
    elements = 0
    for part in (part for task in tasks for part in task.stretches()):
        if batch and elements + part.elements > _SCRATCH:
            yield batch
            batch, elements = [], 0
        batch.append(part)
        elements += part.elements
    if batch:
        yield batch


def _in_rounds(native: Native, scratch: Pool, tasks: list[Transform]) -> None:
    """Tasks of one stretch each, whose rows have two rounds or more."""
    threads = _threads(tasks)
    while any(task.rows[0].rounds > 1 for task in tasks):
        firsts: list[Transform] = []
        rest: list[Transform] = []
        memory = scratch.empty((sum(task.elements for task in tasks),), tasks[0].dtype)
        for task, piece in zip(tasks, memory.split([task.elements for task in tasks]), strict=True):
            middle = piece.view(-1, task.features.length)
            first, then = task.first_round(middle) if task.rows[0].rounds > 1 else (None, task)
            firsts += [first] if first else []
            rest.append(then)
        native.transform(firsts, threads)
        tasks = rest
    native.transform(tasks, threads)


def ranking(words: Tensor) -> Tensor:
    """Indices (L,) int32 that put random 64-bit words (L,) in ascending order."""
    if words.dtype != torch.int64 or words.ndim != 1:
        raise ValueError(f"words are int64 (L,), not {words.dtype} {tuple(words.shape)}")
    native = _kernels().native
    return words.argsort().int() if native is None else native.ranking(words)


def survey(
    a: Tensor, along: Sequence[Sums] = (), down: Sequence[Sums] = (), *, rows: Sequence[int] | None = None
) -> Survey:
    """All that is asked of a, which is read from memory once. a: float32, float64 or bfloat16; (T, F), with
    rows[g] of them in group g, all in one if None, or (G, R, F). Raises ValueError."""
    _require_matrix(a, 2, 3)
    groups = _groups(a, rows)
    for sums in along:
        _require_probes(sums, ((a.shape[-1],), (len(groups), a.shape[-1])), f"along {tuple(a.shape)}")
    for sums in down:
        common = {a.shape[1]} if a.ndim == 3 else set(groups)
        leading = [(sum(groups),), *((r,) for r in common if len(common) == 1)]
        _require_probes(sums, leading, f"down {len(groups)} groups of {tuple(a.shape)}")
    native = _kernels().native
    if native is None:
        return plain.survey(a, groups, along, down)
    if _column_major(a) and (a.ndim == 3 or len(groups) == 1):
        return _turned(a, len(groups), along, down)
    along, down = ([Sums(resolved(s.probes), s.squared) for s in sums] for sums in (along, down))
    return native.survey(_rows(a), groups, along, down, _threads(a))


def _turned(a: Tensor, groups: int, along: Sequence[Sums], down: Sequence[Sums]) -> Survey:
    """Of a that lies in memory by columns: sums along its rows are those down the rows of a^T. To copy it
    would take twenty times as long."""
    rows, width = a.shape[-2:]
    found = survey(
        a.mT,
        [
            s if len(s.probes) == rows else Sums(s.probes.reshape(groups, rows, s.columns), s.squared)
            for s in down
        ],
        [s if s.probes.ndim == 2 else Sums(s.probes.flatten(0, 1), s.squared) for s in along],
    )
    return Survey(
        tuple(out.flatten(0, 1) for out in found.down),
        found.squares.sqrt_().flatten(),
        tuple(out.view(groups, width, out.shape[1]) for out in found.along),
        found.norms.square_().view(groups if down else 0, width),
    )


def project(a_RF: Tensor, v_FP: Tensor, *, squared: bool = False) -> tuple[Tensor, Tensor]:
    """(a v (R, P), 2-norms of the rows of a (R,)) in float64; squared: of a o a with v."""
    _require_matrix(a_RF, 2)
    found = survey(a_RF, [Sums(v_FP, squared)])
    return found.along[0], found.norms


def contract(a_RF: Tensor, q_RP: Tensor, *, squared: bool = False) -> tuple[Tensor, Tensor]:
    """(a^T q (F, P), sums of squares of the columns of a (F,)) in float64; squared: of a o a with q."""
    _require_matrix(a_RF, 2)
    found = survey(a_RF, down=[Sums(q_RP, squared)])
    return found.down[0][0], found.squares[0]


def norms(a: Tensor) -> Tensor:
    """2-norms of the rows of a, (R, F) or (G, R, F), one after the other (G R,), float64."""
    return survey(a, [Sums(torch.empty(a.shape[-1], 0, dtype=torch.float64))]).norms


def _require_matrix(t: Tensor, *axes: int) -> None:
    if t.ndim not in axes or t.dtype not in _CHECKED or t.device.type != "cpu":
        raise ValueError(
            f"a matrix of float32, float64 or bfloat16 in main memory, not {t.dtype} {tuple(t.shape)} "
            f"on {t.device}"
        )


def _groups(a: Tensor, rows: Sequence[int] | None) -> list[int]:
    """Rows of each group."""
    if a.ndim == 3:
        if rows is not None:
            raise ValueError("rows of groups are for (T, F): those of (G, R, F) are known")
        return [a.shape[1]] * a.shape[0]
    groups = [a.shape[0]] if rows is None else list(rows)
    if min(groups, default=0) < 0 or sum(groups) != a.shape[0]:
        raise ValueError(f"groups of {groups} rows are not the {a.shape[0]} that there are")
    return groups


def _require_probes(sums: Sums, leading: Sequence[tuple[int, ...]], what: str) -> None:
    t = sums.probes
    if t.dtype != torch.float64 or tuple(t.shape[:-1]) not in leading:
        expected = " or ".join(str((*shape, "P")) for shape in leading)
        raise ValueError(f"probes are float64 {expected} {what}, not {t.dtype} {tuple(t.shape)}")


def _column_major(t: Tensor) -> bool:
    return t.stride(-2) == 1 < t.stride(-1) and min(t.shape) > 0 and t.shape[-1] > 1


def _rows(t: Tensor) -> Tensor:
    t = resolved(t)
    return t if t.numel() == 0 or t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()


def _threads(work: Sequence[Transform] | Tensor) -> int:
    elements = work.numel() if isinstance(work, Tensor) else sum(task.elements for task in work)
    return max(1, min(torch.get_num_threads(), elements // _PER_THREAD))
