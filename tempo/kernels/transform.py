"""One transform: which rows, through which axes, to where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from tempo.kernels.axis import Axis
from tempo.kernels.plainness import plain_memory

#: Operand and result. bfloat16 is computed in float32.
_DTYPES = {
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float64, torch.float64),
}


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Transform:
    """target = E_rows (source - before) E_features^T + after, for R rows and F features.

    source, target: (rows, F) in main memory, unit stride along features; they do not overlap.
    rows: stretches of R rows together. source_rows, target_rows: (R,) int64, row r of the axis in the
    tensor; None: row r itself. Those of the target differ from each other, which is not checked.
    before, after: (F,), contiguous. Raises ValueError where sizes, types, strides or devices do not fit.
    """

    source: Tensor
    target: Tensor
    rows: Sequence[Axis]
    features: Axis
    source_rows: Tensor | None = None
    target_rows: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None

    def __post_init__(self) -> None:
        rows, width = sum(a.length for a in self.rows), self.features.length
        for name, t, index in (
            ("source", self.source, self.source_rows),
            ("target", self.target, self.target_rows),
        ):
            if t.ndim != 2 or t.shape[1] != width or (t.shape[1] > 1 and t.stride(1) != 1):
                raise ValueError(
                    f"{name}: {width} features with unit stride, not {tuple(t.shape)} {t.stride()}"
                )
            if not plain_memory(t):
                raise ValueError(f"{name}: plain main memory, not {t.device} {t.layout} or a lazy view")
            if (t.shape[0] if index is None else index.numel()) != rows:
                raise ValueError(f"{name}: rows of the tensor, or the index into it, and of the axes differ")
            if index is not None and (
                index.dtype != torch.int64 or index.ndim != 1 or not index.is_contiguous()
            ):
                raise ValueError(f"{name}: the index of rows is int64, contiguous and of one dimension")
            if index is not None and rows and not 0 <= int(index.min()) <= int(index.max()) < t.shape[0]:
                raise ValueError(f"{name}: the index of rows leaves the tensor")
        if self.target.shape[0] > 1 and self.target.stride(0) < width:
            raise ValueError(
                f"target: rows {self.target.stride(0)} apart overlap, they have {width} features"
            )
        if (self.source.dtype, self.target.dtype) not in _DTYPES:
            raise ValueError(f"no pass from {self.source.dtype} to {self.target.dtype}")
        for vector in (self.before, self.after):
            if vector is not None and (vector.shape != (width,) or vector.dtype != self.dtype):
                raise ValueError(f"before and after have {width} entries of {self.dtype}")
            if vector is not None and not (vector.is_contiguous() and plain_memory(vector)):
                raise ValueError("before and after are contiguous and in main memory")

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return torch.float64 if self.source.dtype == torch.float64 else torch.float32

    @property
    def elements(self) -> int:
        return sum(a.length for a in self.rows) * self.features.length

    def stretches(self) -> Iterator[Transform]:
        """The same, a stretch of rows at a time."""
        if len(self.rows) == 1:
            yield self
            return
        lo = 0
        for a in self.rows:
            hi = lo + a.length
            source = self.source[lo:hi] if self.source_rows is None else self.source
            target = self.target[lo:hi] if self.target_rows is None else self.target
            source_rows = None if self.source_rows is None else self.source_rows[lo:hi]
            target_rows = None if self.target_rows is None else self.target_rows[lo:hi]
            yield Transform(
                source, target, [a], self.features, source_rows, target_rows, self.before, self.after
            )
            lo = hi

    def first_round(self, middle: Tensor) -> tuple[Transform, Transform]:
        """The first round of the one stretch of rows, into `middle`, and the rest, from there."""
        first, rest = self.rows[0].first_round()
        nothing = Axis(self.features.length)
        begun = Transform(self.source, middle, [first], nothing, self.source_rows, before=self.before)
        then = Transform(
            middle, self.target, [rest], self.features, target_rows=self.target_rows, after=self.after
        )
        return begun, then
