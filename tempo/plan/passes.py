"""Times the master's passes: keys, encodings, checks, lowerings, each by the function production calls.

Whatever replaces those functions (native kernels) is measured instead of them, without a change here.
Numbers that are sealed are random and no secret; keys come from a session key of this calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from tempo.integrity import Verifier
from tempo.kernels import threads_for
from tempo.kernels.threads import SMALL
from tempo.lowering import Conv1x1, ConvShape, ConvTransposed, Im2col, Winograd
from tempo.lowering.base import Lowering
from tempo.lowering.winograd import F2, F4
from tempo.plan.fit import cost, seconds_of
from tempo.plan.machine import Cost, Map, Pass, Passes
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection, row_norms
from tempo.secrecy.scheme import Scheme
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre, open_rows

Shape = tuple[int, int, int]

#: (G, R, F) of each regime of `Pass`, and its threads: one group and many, small tiles and large. Passes take
#: a thread for each PER_THREAD elements: with "all", enough for 16 threads.
SHAPES: Final[dict[str, tuple[tuple[Shape, ...], int]]] = {
    "narrow_one": (((1, 256, 64), (1, 4096, 128), (36, 64, 64), (36, 512, 64)), 0),
    "narrow_all": (((1, 32768, 64), (1, 32768, 128), (16, 2048, 128)), SMALL),
    "wide_one": (((1, 128, 512), (1, 1024, 768), (36, 64, 256)), 0),
    "wide_all": (((1, 4096, 512), (1, 4096, 1024), (1, 8192, 1024)), SMALL),
}

Work = Callable[[], object]


def measure_passes(scheme: Scheme, *, probes: int) -> Passes:
    """All passes of one scheme, in one or two seconds on two cores."""
    key = SessionKey()
    labels = iter(range(1 << 40))
    measured: dict[str, dict[str, Cost]] = {}
    for regime, (shapes, threads) in SHAPES.items():
        taken: dict[str, list[float]] = {}
        for shape in shapes:
            with threads_for(threads):
                for name, work in _works(scheme, key, probes, labels, shape).items():
                    taken.setdefault(name, []).append(seconds_of(work))
        for name, seconds in taken.items():
            amounts = [_amounts(name, shape) for shape in shapes]
            measured.setdefault(name, {})[regime] = cost(amounts, seconds)
    return Passes(**{name: Pass(**regimes) for name, regimes in measured.items()})


def _amounts(name: str, shape: Shape) -> tuple[float, float, float]:
    """(groups, rows, elements) that the cost of a pass is linear in. See `Passes`."""
    groups, rows, width = shape
    if name == "keys":
        return groups, groups * rows, 0
    if name == "features":
        return groups, 0, 2 * groups * width
    return groups, 0, groups * rows * width


def _works(scheme: Scheme, key: SessionKey, probes: int, labels: object, shape: Shape) -> dict[str, Work]:
    groups, rows, width = shape
    counts = [rows] * groups
    x_GRF = random_like(groups, rows, width)
    out, sealed = torch.empty_like(x_GRF), torch.empty(groups * rows, width)
    verifier, everything = Verifier(key, probes), Selection.everything(groups, rows)

    def label() -> tuple[int]:
        return (next(labels),)  # type: ignore[call-overload]

    def row_key() -> RowKey:
        return RowKey(key, scheme, label(), counts)

    def features() -> FeatureKey:
        return FeatureKey(key, scheme, label(), groups=groups, k=width, n=width)

    b, bases = features().b, row_key().bases()
    sealed_TF = row_key().seal_x(bases, b, x_GRF, everything, out=sealed)

    return {
        "keys": lambda: row_key().bases(),
        "features": features,
        "encode": lambda: row_key().seal_x(bases, b, x_GRF, everything, out=sealed),
        "decode": lambda: open_rows(sealed_TF, bases, b, everything, out),
        "check": lambda: verifier.witness(sealed_TF, counts),
        "scan": lambda: row_norms(x_GRF),
        "centre": lambda: draw_centre(key, label(), x_GRF, everything),
    }


def measure_lowerings() -> dict[str, dict[str, Map]]:
    """The six maps of each convolution lowering that copies."""
    found: dict[str, dict[str, Map]] = {}
    for make in _LOWERINGS:
        lowerings = [make(batch, channels, side) for batch, channels, side in ((4, 64, 14), (8, 64, 56))]
        by_threads = [_maps(lowerings, threads) for threads in (0, SMALL)]
        one, every = by_threads
        found[lowerings[0].name] = {name: Map(one=one[name], all=every[name]) for name in one}
    return found


def _maps(lowerings: list[Lowering], threads: int) -> dict[str, Cost]:
    taken: dict[str, list[float]] = {}
    elements: dict[str, list[float]] = {}
    for lowering in lowerings:
        with threads_for(threads):
            for name, (work, size) in _map_works(lowering).items():
                taken.setdefault(name, []).append(seconds_of(work))
                elements.setdefault(name, []).append(size)
    return {name: cost([(0, 0, e) for e in elements[name]], taken[name]) for name in taken}


def _map_works(lowering: Lowering) -> dict[str, tuple[Work, int]]:
    """Each map, and the elements of its lowered side."""
    s = lowering.shape
    assert isinstance(lowering, Conv1x1 | Im2col | Winograd | ConvTransposed)
    conv = lowering if isinstance(lowering, ConvTransposed) else lowering.conv
    x, w, dy = (random_like(*shape) for shape in (conv.x_shape, conv.w_shape, conv.y_shape))
    x_GRK, w_GNK = random_like(s.groups, s.rows, s.k), random_like(s.groups, s.n, s.k)
    y_GRN = random_like(s.groups, s.rows, s.n)
    return {
        "lower_x": (lambda: lowering.lower_x(x), x_GRK.numel()),
        "lower_w": (lambda: lowering.lower_w(w), w_GNK.numel()),
        "raise_y": (lambda: lowering.raise_y(y_GRN), y_GRN.numel()),
        "lower_dy": (lambda: lowering.lower_dy(dy), y_GRN.numel()),
        "raise_dx": (lambda: lowering.raise_dx(x_GRK), x_GRK.numel()),
        "raise_dw": (lambda: lowering.raise_dw(w_GNK), w_GNK.numel()),
    }


def _conv(batch: int, channels: int, side: int, kernel: int, stride: int, padding: int) -> ConvShape:
    return ConvShape.of(
        (batch, channels, side, side),
        (channels, channels, kernel, kernel),
        stride=stride,
        padding=padding,
        dilation=1,
        groups=1,
    )


_LOWERINGS: Final[tuple[Callable[[int, int, int], Lowering], ...]] = (
    lambda b, c, s: Conv1x1(_conv(b, c, s, 1, 1, 0)),
    lambda b, c, s: Im2col(_conv(b, c, s, 3, 2, 1)),
    lambda b, c, s: Winograd(_conv(b, c, s, 3, 1, 1), F2),
    lambda b, c, s: Winograd(_conv(b, c, s, 3, 1, 1), F4),
    lambda b, c, s: ConvTransposed(
        (b, c, s, s), (c, c, 2, 2), (b, c, 2 * s, 2 * s), (2, 2), (0, 0), (1, 1), groups=1
    ),
)


def random_like(*shape: int) -> Tensor:
    """Float32 numbers to time with, from a generator of their own: the user's is left alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
