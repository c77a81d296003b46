"""The native passes (tempo/kernels/cpp), through ctypes, which leaves the interpreter lock meanwhile.

This file is the only one that hands out addresses: sizes and types were checked before (Transform),
and every tensor stays referenced until the call returns.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_void_p, pointer
from itertools import accumulate
from typing import Any, Final, final

import torch
from torch import Tensor

from tempo.kernels.axis import Axis, Monomial
from tempo.kernels.native_images import ImagePasses
from tempo.kernels.survey import Sums, Survey
from tempo.kernels.transform import Transform

_TYPES: Final = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
#: As in cpp/abi.h.
MAX_BLOCK: Final = 128
_ABI: Final = 4
#: The fastest first.
SETS: Final = ("avx512", "avx2", "portable")


class _Axis(ctypes.Structure):
    _fields_ = (
        ("length", c_int64),
        *((f"{part}_{what}", c_void_p) for part in ("in", "middle", "out") for what in ("index", "scale")),
        ("rounds", c_int32),
        ("block", c_int32),
        ("inverse", c_int32),
    )


class _Transform(ctypes.Structure):
    _fields_ = (
        ("source", c_void_p),
        ("target", c_void_p),
        ("source_stride", c_int64),
        ("target_stride", c_int64),
        ("source_rows", c_void_p),
        ("target_rows", c_void_p),
        ("rows", POINTER(_Axis)),
        ("stretches", c_int64),
        ("features", POINTER(_Axis)),
        ("width", c_int64),
        ("before", c_void_p),
        ("after", c_void_p),
        ("source_type", c_int32),
        ("target_type", c_int32),
    )


class _Sums(ctypes.Structure):
    _fields_ = (
        ("with", c_void_p),
        ("out", c_void_p),
        *((name, c_int32) for name in ("probes", "squared", "common")),
    )


class _Survey(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("a", "bounds", "starts")),
        *((name, c_int64) for name in ("groups", "width", "stride")),
        ("along", POINTER(_Sums)),
        ("down", POINTER(_Sums)),
        ("along_count", c_int64),
        ("down_count", c_int64),
        ("norms", c_void_p),
        ("squares", c_void_p),
        ("type", c_int32),
    )


class _Passes(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("transform", ctypes.CFUNCTYPE(c_int, POINTER(_Transform), c_int64, c_int)),
        ("survey", ctypes.CFUNCTYPE(c_int, POINTER(_Survey), c_int)),
        ("images", ImagePasses),
    )


@final
class Native:
    """Passes of one instruction set. Raises OSError where the library or the instructions are missing."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec("tempo.kernels._passes")
        if spec is None or spec.origin is None:
            raise OSError("the native passes were not built: install a C++ compiler and Tempo again")
        library = ctypes.CDLL(spec.origin)
        if not hasattr(library, "tempo_abi") or library.tempo_abi() != _ABI:
            raise OSError("the native passes were built for another version of Tempo: install it again")
        library.tempo_passes.restype = POINTER(_Passes)
        library.tempo_passes.argtypes = [c_char_p]
        library.tempo_ranking.argtypes = [c_void_p, c_void_p, c_int64]
        table = library.tempo_passes(name.encode())
        if not table:
            raise OSError(f"this processor lacks {name}")
        self.name = name
        self._library = library
        self._passes = table.contents
        self._process = os.getpid()
        self.images: ImagePasses = self._passes.images

    def team(self, threads: int) -> int:
        """A child made by fork has none of the threads that OpenMP believes to have: waiting for them it
        would hang, so it works alone."""
        return threads if os.getpid() == self._process else 1

    def fits(self, axis: Axis) -> bool:
        """Whether the passes can apply this axis."""
        return axis.rounds == 0 or axis.block <= MAX_BLOCK

    def transform(self, tasks: Sequence[Transform], threads: int) -> None:
        """All of one dtype; rows have one round at most. features of 0 rounds without monomials are
        left alone."""
        structs = (_Transform * len(tasks))()
        alive: list[object] = []
        for struct, task in zip(structs, tasks, strict=True):
            rows = (_Axis * len(task.rows))(*[_native(a, task.dtype) for a in task.rows])
            feature = None if _trivial(task.features) else pointer(_native(task.features, task.dtype))
            alive += [rows, feature]
            struct.source, struct.target = task.source.data_ptr(), task.target.data_ptr()
            struct.source_stride, struct.target_stride = task.source.stride(0), task.target.stride(0)
            struct.source_rows, struct.target_rows = _at(task.source_rows), _at(task.target_rows)
            struct.rows, struct.stretches = rows, len(task.rows)
            if feature is not None:
                struct.features = feature
            struct.width = task.features.length
            struct.before, struct.after = _at(task.before), _at(task.after)
            struct.source_type = _TYPES[task.source.dtype]
            struct.target_type = _TYPES[task.target.dtype]
        _done(self._passes.transform(structs, len(tasks), self.team(threads)))

    def ranking(self, words: Tensor) -> Tensor:
        words = words.contiguous()
        index = torch.empty(words.numel(), dtype=torch.int32)
        _done(self._library.tempo_ranking(words.data_ptr(), index.data_ptr(), words.numel()))
        return index

    def survey(
        self, a: Tensor, rows: Sequence[int], along: Sequence[Sums], down: Sequence[Sums], threads: int
    ) -> Survey:
        """rows: of each group of a (T, F) or (G, R, F)."""
        bounds, stride = torch.tensor([0, *accumulate(rows)]), a.stride(-2)
        starts = torch.arange(len(rows)) * a.stride(0) if a.ndim == 3 else bounds * stride
        along_PF = [(each, each.probes.mT.contiguous(), each.probes.ndim == 2) for each in along]
        down_RP = [(each, each.probes.contiguous(), len(each.probes) < sum(rows)) for each in down]
        found = Survey.empty(rows, a.shape[-1], along, down)
        struct = _Survey(a.data_ptr(), bounds.data_ptr(), starts.data_ptr(), len(rows), a.shape[-1], stride)
        struct.type = _TYPES[a.dtype]
        if along:
            struct.along, struct.along_count = _sums(along_PF, found.along), len(along)
            struct.norms = found.norms.data_ptr()
        if down:
            struct.down, struct.down_count = _sums(down_RP, found.down), len(down)
            struct.squares = found.squares.data_ptr()
        _done(self._passes.survey(byref(struct), self.team(threads)))
        return found


def _sums(asked: Sequence[tuple[Sums, Tensor, bool]], out: Sequence[Tensor]) -> Any:
    """asked: with the probes as the passes read them, and whether all groups have the same."""
    return (_Sums * len(out))(
        *(
            _Sums(t.data_ptr(), o.data_ptr(), sums.columns, sums.squared, common)
            for (sums, t, common), o in zip(asked, out, strict=True)
        )
    )


def _native(axis: Axis, dtype: torch.dtype) -> _Axis:
    """The C form of an axis, made once for each dtype."""
    made: tuple[_Axis, object] | None = axis.native.get(dtype)
    if made is None:
        middle = None
        if axis.middle:
            middle = Monomial(
                torch.cat([m.index for m in axis.middle]), torch.cat([m.scale for m in axis.middle])
            )
        parts = [
            None if m is None else (m.index.contiguous(), m.scale.to(dtype).contiguous())
            for m in (axis.enter, middle, axis.leave)
        ]
        pointers = [_at(t) for part in parts for t in (part or (None, None))]
        struct = _Axis(axis.length, *pointers, axis.rounds, axis.block, axis.inverse)
        # Another thread may have made one meanwhile, whose addresses are in use: the first one stays.
        kept: tuple[_Axis, object] = axis.native.setdefault(dtype, (struct, parts))
        return kept[0]
    return made[0]


def _trivial(axis: Axis) -> bool:
    return axis.rounds == 0 and axis.enter is None and axis.leave is None


def _at(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("a pass found no memory to work in")
