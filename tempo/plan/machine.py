"""What calibration found out about a TEE, its links and its workers: figures only, units in the names.

    seconds of a pass = call + group G + row T + element E

over T rows of G groups with E elements in all. Narrow: short axes, where what a row
costs counts for more. One or all: threads that a tile of that size is given (tempo/kernels/threads.py).
The figures are of float32; float64 takes twice as long.
"""

from __future__ import annotations

from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Final

import msgspec
import torch

from tempo.errors import OutsideError, UsageError
from tempo.kernels.threads import SMALL
from tempo.ops import Arithmetic, Op
from tempo.secrecy.form import Form

#: Axes of features up to this length are narrow.
NARROW: Final = 128
#: Elements of a pass for which it is given a thread.
PER_THREAD: Final = 1 << 17
#: The three products of a step.
OPS: Final = tuple(op.value for op in Op)
#: A worker's rate on residues, among its others, where that was measured.
RING: Final = "ring"
#: Of the JSON format.
VERSION: Final = 1
#: Larger files are none of ours.
_LARGEST_FILE: Final = 1 << 20

#: Maps of a lowering, in the names of tempo/lowering/base.py.
MAPS: Final = ("lower_x", "lower_w", "raise_y", "lower_dy", "raise_dx", "raise_dw")


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Cost(_Frozen, frozen=True):
    """Seconds of a pass."""

    call_seconds: float
    group_seconds: float
    row_seconds: float
    element_seconds: float

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _require(name, getattr(self, name), least=0.0)

    def of(self, *, groups: float, rows: float, elements: float) -> float:
        return (
            self.call_seconds
            + self.group_seconds * groups
            + self.row_seconds * rows
            + self.element_seconds * elements
        )


class Pass(_Frozen, frozen=True):
    """One pass by width of its tiles and by threads."""

    narrow_one: Cost
    narrow_all: Cost
    wide_one: Cost
    wide_all: Cost

    def at(self, width: int, *, large: bool) -> Cost:
        """The costs for an axis of features of this width. large: see `is_large`."""
        if width <= NARROW:
            return self.narrow_all if large else self.narrow_one
        return self.wide_all if large else self.wide_one

    @property
    def costs(self) -> tuple[Cost, Cost, Cost, Cost]:
        return (self.narrow_one, self.narrow_all, self.wide_one, self.wide_all)


class Map(_Frozen, frozen=True):
    """One map of a lowering, by threads. Elements are those of its lowered side."""

    one: Cost
    all: Cost


class Passes(_Frozen, frozen=True):
    """The master's passes under one scheme."""

    #: Draw the bases of T rows.
    keys: Pass
    #: Draw those of in- and out-features; elements K + N of each group.
    features: Pass
    #: X to X', dY to dY', W to W'.
    encode: Pass
    #: Y' to Y, dX' to dX, dW' to dW.
    decode: Pass
    #: One projection of a tensor, sent or received.
    check: Pass
    #: Row norms: which rows may be sent.
    scan: Pass
    #: Estimate the common mean of rows. Encoding takes it off, decoding adds its share.
    centre: Pass


class Plain(_Frozen, frozen=True):
    """Linear algebra that stays in the TEE, float32."""

    call_seconds: float
    flop_seconds: float

    def __post_init__(self) -> None:
        _require("call_seconds", self.call_seconds, least=0.0)
        _require("flop_seconds", self.flop_seconds, above=0.0)

    def of(self, flops: float, *, calls: float = 1.0) -> float:
        return self.call_seconds * calls + self.flop_seconds * flops


class Tee(_Frozen, frozen=True):
    cpu: str
    threads: int
    memcpy_elements_per_second: float
    #: Matrix product, best of the sizes tried, by arithmetic: "float32", "bfloat16".
    matmul_flops_per_second: dict[str, float]
    #: By kind of operation: "linear", "conv", "bmm"; one forward or gradient product.
    plain: dict[str, Plain]
    #: A training step's element-wise and normalising work, per element of their forward results.
    other_element_seconds: float

    def __post_init__(self) -> None:
        _require("threads", self.threads, above=0)
        _require("memcpy_elements_per_second", self.memcpy_elements_per_second, above=0.0)
        _require("other_element_seconds", self.other_element_seconds, least=0.0)
        if "float32" not in self.matmul_flops_per_second or not set(self.plain) >= {"linear", "conv", "bmm"}:
            raise ValueError("flop/s of float32 and plain linear, conv and bmm are needed")
        for name, value in self.matmul_flops_per_second.items():
            _require(f"matmul_flops_per_second[{name}]", value, above=0.0)

    @property
    def fastest(self) -> tuple[str, float]:
        """The arithmetic with the most flop per second, and how many."""
        return max(self.matmul_flops_per_second.items(), key=lambda each: each[1])


class WorkerFigures(_Frozen, frozen=True):
    """One worker and the link to it, by real jobs through the production protocol."""

    name: str
    #: A job with next to no operands.
    round_trip_seconds: float
    up_bytes_per_second: float
    down_bytes_per_second: float
    #: By operation: those of OPS, in float32; RING; and those of OPS in other numbers, as `rate_name` calls
    #: them, where a session sends or allows such. Operands at the worker already.
    flops_per_second: dict[str, float]

    def __post_init__(self) -> None:
        _require("round_trip_seconds", self.round_trip_seconds, least=0.0)
        _require("up_bytes_per_second", self.up_bytes_per_second, above=0.0)
        _require("down_bytes_per_second", self.down_bytes_per_second, above=0.0)
        for op in dict.fromkeys((*OPS, *self.flops_per_second)):
            _require(f"flops_per_second[{op}]", self.flops_per_second.get(op, 0.0), above=0.0)

    def rate(self, op: str, form: Form) -> float:
        """Flops per second of one of OPS. float64 has no figures of its own: half of float32's. Raises
        UsageError where these numbers were not measured."""
        if form.dtype == torch.float64:
            return self.flops_per_second[op] / 2
        name = rate_name(op, form)
        if name not in self.flops_per_second:
            raise UsageError(
                f"this calibration has no figures of {self.name} for {name}: calibrate again under the wire "
                "and arithmetic of the session (tempo plan --wire, --arithmetic)"
            )
        return self.flops_per_second[name]


class Machine(_Frozen, frozen=True):
    """All that a plan needs to know of the hardware."""

    version: int
    #: ISO date and time.
    measured_at: str
    #: How long calibration took.
    calibration_seconds: float
    probes: int
    tee: Tee
    passes: dict[str, Passes]
    #: By name of the lowering, then by map; a lowering that is not here costs nothing (a view).
    lowerings: dict[str, dict[str, Map]]
    workers: list[WorkerFigures]
    #: Speed of all workers at once against the sum of each alone.
    together: float
    #: Share of the shorter of two that is saved when master and workers are busy at once; workers on the
    #: master's own cores save little.
    overlap: float

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"this is version {self.version} of the format; expected {VERSION}")
        if not self.workers or not self.passes:
            raise ValueError("one worker and one scheme at least")
        _require("probes", self.probes, above=0)
        _require("together", self.together, above=0.0)
        _require("overlap", self.overlap, least=0.0)
        if self.overlap > 1.0:
            raise ValueError(f"overlap is at most 1, not {self.overlap}")
        for kind, maps in self.lowerings.items():
            if set(maps) != set(MAPS):
                raise ValueError(f"lowering {kind!r} needs the maps {', '.join(MAPS)}")

    def scheme(self, name: str) -> Passes:
        """Its passes. Raises UsageError."""
        if name not in self.passes:
            raise UsageError(
                f"this calibration knows the schemes {', '.join(sorted(self.passes))}, not {name!r}: "
                f"calibrate again with --scheme {name}"
            )
        return self.passes[name]

    def save(self, path: str | PathLike[str]) -> None:
        """Raises OutsideError where the file cannot be written."""
        try:
            Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        except OSError as error:
            raise OutsideError(
                f"calibration cannot be written to {path} ({error.strerror}). "
                "Name a file in a folder that exists"
            ) from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Machine:
        """Raises OutsideError for a file that cannot be read, UsageError for one that is no calibration."""
        path = Path(path)
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise UsageError(f"{path} is no calibration: more than {_LARGEST_FILE >> 20} MiB")
            data = path.read_bytes()
        except OSError as error:
            raise OutsideError(
                f"calibration {path} cannot be read ({error.strerror}). Name a file that tempo plan --save "
                "FILE wrote, or leave --calibration out to measure"
            ) from error
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} is no calibration of this version: {error}. Make one with tempo plan --save FILE"
            ) from error


def rate_name(op: str, form: Form) -> str:
    """Of a product of operands sent in this form."""
    if form.dtype == torch.bfloat16:
        return f"{op}, sent as bfloat16"
    return op if form.arithmetic is Arithmetic.FP32 else f"{op}, rounded to {form.arithmetic.value}"


def is_large(rows: int, k: int, n: int) -> bool:
    """Whether the passes over an operation get all threads, as tempo/nn/autograd.py decides it."""
    return rows * max(k, n) >= SMALL


def is_alone(elements: float) -> bool:
    """Whether a pass over so many elements has one thread even so, as tempo/kernels/passes.py decides it."""
    return elements < 2 * PER_THREAD


def _require(name: str, value: float, *, least: float | None = None, above: float | None = None) -> None:
    low = value >= least if least is not None else value > (above or 0.0)
    if not (low and isfinite(value)):
        raise ValueError(
            f"{name} is {value}: expected a finite number {'>=' if least is not None else '>'} 0"
        )
