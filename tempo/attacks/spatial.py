"""Attack 14: spatial leakage of convolution. Does any map that can be made of X' look like an image?

Rows of a lowered convolution are places, images after images, so a column in the order of its rows is a map.
By
the public algorithm and without keys:

1. raw: columns as they came.
2. unmixed: components of FastICA on features (attack 9).
3. unhadamard: the block Hadamard undone on rows in known blocks of 64, as if the outer monomial were none.
4. blocks: every row replaced by the mean square of its block of 64, and rows by their own norms (grouping by
   scale).
5. ordered: the order of rows that keys permuted is sought (seriation.py), in all eight turns and mirrors.
6. deconvolved: each map above with the amplitudes of its spectrum replaced by 1/f, which natural images have,
   phases kept; and its sparse edges (soft threshold of the Laplacian).

Axes: R rows = M images x I x J places, K features, c maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing
from tempo.attacks.separation import fastica
from tempo.attacks.seriation import ordered, symmetries
from tempo.attacks.transcript import Transcript

Array = NDArray[np.float64]

_OPERANDS: Final = 4
_COLUMNS: Final = 8
_IMAGES: Final = 64
#: Components that are put in order, besides columns.
_ORDERED: Final = 3
_BLOCK: Final = 64
_SAMPLES: Final = 6000
#: A map is at least so high and wide.
_SIDE: Final = 4


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch(Nothing):
    """The architecture, and the number of images in each batch (public: threat model 4)."""

    images: int = 0


@final
@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Of one group of an X': (M, c, I, J), with the name of each of the c ways. others: ids of X' of other
    batches that look the same, for a judge to tell what any image would score."""

    operand: int
    group: int
    others: tuple[int, ...]
    maps_MCIJ: Array
    names: tuple[str, ...]


@final
class Spatial(Attack[Batch, list[Maps]]):
    name = "spatial"
    number = 14
    title = "Spatial leakage of convolution"
    adversary = "one worker that records single operands"
    side_knowledge = "the number of images in a batch, which is public"
    knowledge: ClassVar[type[Batch]] = Batch
    metric = "structural similarity of the best recovered map to any true one"
    compute = "FastICA on 8 components, Fourier transforms, likeness of all pairs of rows"

    def run(self, transcript: Transcript, knowledge: Batch) -> list[Maps]:
        out: list[Maps] = []
        layers: set[int | None] = set()
        passes = transcript.passes()
        for p in reversed(passes):
            side = _side(max(p.rows, default=0), knowledge.images)
            if side and p.w_id not in layers and len(layers) < _OPERANDS:
                layers.add(p.w_id)
                # Points of Winograd that add neighbours up look most like the image.
                g = int(len(p.rows) ** 0.5) + 1 if len(p.rows) > 1 else 0
                rows = p.groups(p.x)[g].double().numpy()
                if 1 < len(rows) <= knowledge.images * side * side:
                    form = (p.x.shape[1], len(p.rows))
                    others = tuple(
                        q.x_id
                        for q in reversed(passes)
                        if (q.x.shape[1], len(q.rows)) == form and q.x_id != p.x_id
                    )
                    out.append(_maps(p.x_id, g, others, rows, knowledge.images, side))
        if not out:
            raise NothingToAttack(
                f"spatial leakage needs an X' whose rows are {knowledge.images} square maps of "
                f"{_SIDE} x {_SIDE} or more: tell the number of images in a batch"
            )
        return out


def _side(rows: int, images: int) -> int:
    """Of square maps, the smallest that hold all rows: zero rows may have been left out. 0 if rows are
    none."""
    side = int(np.ceil((rows / images) ** 0.5 - 1e-9)) if images else 0
    return side if side >= _SIDE else 0


def _maps(operand: int, group: int, others: tuple[int, ...], rows: Array, images: int, side: int) -> Maps:
    strong = np.argsort(-rows.var(0))[:_COLUMNS]
    raw = rows[:, strong]
    v = fastica(rows[:_SAMPLES], most=_COLUMNS)
    # A short last block overlaps the one before; here it is left as it is.
    whole = len(rows) // _BLOCK * _BLOCK
    undone = raw.copy()
    if whole:
        undone[:whole] = _hadamard(raw[:whole].reshape(-1, _BLOCK, raw.shape[1])).reshape(whole, -1)
    norms = (rows * rows).mean(1)
    means = norms.copy()
    means[:whole] = np.repeat(norms[:whole].reshape(-1, _BLOCK).mean(1), _BLOCK) if whole else 0
    ways = {
        "raw": raw,
        "unmixed": rows @ v,
        "unhadamard": undone,
        "blocks": np.stack([means, norms], 1),
    }
    parts, names = [], []
    for name, t in ways.items():
        t = np.pad(t, ((0, images * side * side - len(t)), (0, 0)))
        maps = t.T.reshape(t.shape[1], images, side, side).transpose(1, 0, 2, 3)[:_IMAGES]
        for way, made in ((name, maps), (f"{name}, natural", natural(maps)), (f"{name}, edges", edges(maps))):
            parts.append(made)
            names += [way] * t.shape[1]
    found, of_place = ordered(rows, images, side)
    flat = of_place.ravel().astype(np.int64)
    unmixed = np.where(flat[:, None] >= 0, (rows @ v)[flat], 0.0)
    columns = np.concatenate(
        [found[:, strong], unmixed[:, :_ORDERED], (found * found).mean(1, keepdims=True)], 1
    )
    maps = columns.T.reshape(-1, images, side, side).transpose(1, 0, 2, 3)[:_IMAGES]
    for made in symmetries(maps):
        parts.append(made)
        names += ["ordered"] * maps.shape[1]
    return Maps(operand, group, others, np.concatenate(parts, 1), tuple(names))


def _hadamard(t_BLC: Array) -> Array:
    h = np.ones((1, 1))
    while len(h) < t_BLC.shape[1]:
        h = np.block([[h, h], [h, -h]])
    return np.asarray(np.einsum("ij,bjc->bic", h / len(h) ** 0.5, t_BLC))


def natural(maps: Array) -> Array:
    """Phases of each map with the amplitudes 1/f."""
    spectrum = np.fft.fft2(maps - maps.mean((-2, -1), keepdims=True))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(maps.shape[-2]), np.fft.fftfreq(maps.shape[-1]), indexing="ij"))
    amplitude = np.where(f > 0, 1 / np.where(f > 0, f, 1), 0)
    return np.asarray(np.fft.ifft2(spectrum / (np.abs(spectrum) + 1e-300) * amplitude).real)


def edges(maps: Array) -> Array:
    """Each map from its strong edges alone: the Poisson equation for the soft-thresholded Laplacian."""
    rows, columns = maps.shape[-2:]
    u, w = np.meshgrid(np.fft.fftfreq(rows), np.fft.fftfreq(columns), indexing="ij")
    laplace = 2 * np.cos(2 * np.pi * u) + 2 * np.cos(2 * np.pi * w) - 4
    sharp = np.fft.ifft2(np.fft.fft2(maps) * laplace).real
    sharp = np.sign(sharp) * np.maximum(np.abs(sharp) - np.abs(sharp).mean((-2, -1), keepdims=True), 0)
    inverse = np.where(laplace < -1e-12, 1 / np.where(laplace < -1e-12, laplace, -1), 0)
    return np.asarray(np.fft.ifft2(np.fft.fft2(sharp) * inverse).real)
