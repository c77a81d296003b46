"""The order of rows that keys permuted: which rows were places of one image, and where each of them stood.

Neighbouring places of an image are alike, and a basis of rows that only permutes leaves likeness as it is.
With coefficients too: |cosine| of rows, columns brought to one size first (canonical form, columns_net.py).

    1. images   a region grows by the row most like any of its own, until it has as many as an image has
                places (Prim's order; rows of other images are less alike than neighbours)
    2. grid     lengths of shortest paths over each region's graph of nearest rows, made two coordinates by
                classical scaling (Isomap: Tenenbaum, de Silva and Langford 2000); turned and assigned to the
                grid's places, the graph and turn whose neighbours are most alike is kept
    3. refine   max <S, P A P^T>, A the grid's neighbours, by FAQ (Vogelstein and others 2015)

What is left open is the order of the images and, of each, one of eight turns and mirrors.

Axes: R rows, K features, L rows of a region, I = J = side of an image; S likeness.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, quadratic_assignment
from scipy.sparse.csgraph import shortest_path

from tempo.attacks.columns_net import signed

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Rows that are ordered at most: likeness of all pairs is held.
ROWS: Final = 4096
#: Graphs of so many nearest rows are tried, and turns of each.
_NEAREST: Final = (4, 5, 6, 8)
_TURNS: Final = 8
_REFINE: Final = 30
#: What the start weighs in the refinement, beside an even guess.
_START: Final = 0.7


def ordered(rows_RK: Array, images: int, side: int) -> tuple[Array, Array]:
    """Rows in the order of images and places, (images * side * side, K), zero where there were too few; and,
    as (images, side * side), which row stands where, -1 for none."""
    some = rows_RK[:ROWS]
    z = signed(torch.from_numpy(some)).double().numpy()
    unit = z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-300)
    likeness = np.abs(unit @ unit.T)
    np.fill_diagonal(likeness, 0.0)
    places = np.full((images, side * side), -1)
    for image, region in enumerate(regions(likeness, side * side)[:images]):
        order = grid(likeness[np.ix_(region, region)], side)
        places[image] = np.where(order >= 0, region[np.maximum(order, 0)], -1)
    out = np.zeros((images * side * side, z.shape[1]))
    flat = places.ravel()
    out[flat >= 0] = z[flat[flat >= 0]]
    return out, places


def regions(likeness_RR: Array, size: int) -> list[Index]:
    """Rows in sets of that size, the last one smaller."""
    free = np.ones(len(likeness_RR), bool)
    out: list[Index] = []
    while free.any():
        left = np.flatnonzero(free)
        # Where likeness is greatest there is least doubt.
        start = left[int(np.where(free, likeness_RR[:, left].max(1), -1.0)[left].argmax())]
        region, near = [int(start)], likeness_RR[start].copy()
        free[start] = False
        while len(region) < size and free.any():
            best = int(np.where(free, near, -1.0).argmax())
            region.append(best)
            free[best] = False
            near = np.maximum(near, likeness_RR[best])
        out.append(np.array(region))
    return out


def grid(likeness_LL: Array, side: int) -> Index:
    """Which of the L rows stands at each of side * side places, -1 for none."""
    count, places = len(likeness_LL), side * side
    near, s = _neighbours(side), np.zeros((places, places))
    s[:count, :count] = likeness_LL**2
    best, rng = np.arange(places), np.random.default_rng(0)
    for nearest in _NEAREST:
        xy = np.zeros((places, 2))
        xy[:count] = _flat(likeness_LL, min(nearest, count - 1)) if count > 2 else 0.0
        starts = [_assigned(xy, turn * np.pi / 2 / _TURNS, side) for turn in range(_TURNS)]
        start = max(starts, key=lambda at: _value(s, at, near))
        soft = _START * np.eye(places)[start] + (1 - _START) / places
        options = {"maximize": True, "P0": soft, "maxiter": _REFINE, "rng": rng}
        found = np.asarray(quadratic_assignment(near, s, method="faq", options=options).col_ind)
        best = max((best, start, found), key=lambda at: _value(s, at, near))
    return np.where(best < count, best, -1)


def symmetries(maps: Array) -> list[Array]:
    """The eight turns and mirrors of square maps (..., I, J)."""
    turned = [np.rot90(maps, k, axes=(-2, -1)) for k in range(4)]
    return [*turned, *(np.flip(each, -1) for each in turned)]


def _flat(likeness_LL: Array, nearest: int) -> Array:
    """(L, 2)."""
    apart = np.sqrt(np.maximum(1 - likeness_LL, 1e-12))
    least = np.sort(likeness_LL, 1)[:, -nearest][:, None]
    linked = (likeness_LL >= least) | (likeness_LL >= least.T)
    paths = shortest_path(np.where(linked, apart, 0.0), directed=False)
    finite = np.isfinite(paths)
    # Parts that nothing links lie farther apart than anything within them.
    squares = np.where(finite, paths, 1.5 * paths[finite].max()) ** 2
    middle = np.eye(len(squares)) - 1 / len(squares)
    values, vectors = np.linalg.eigh(-middle @ squares @ middle / 2)
    return np.asarray(vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0)))


def _assigned(xy_L2: Array, angle: float, side: int) -> Index:
    """Places of the grid to turned coordinates, by least squares."""
    c, s = np.cos(angle), np.sin(angle)
    turned = xy_L2 @ np.array([[c, -s], [s, c]])
    low, high = np.quantile(turned, (0.02, 0.98), axis=0)
    turned = (turned - low) / (high - low + 1e-12) * (side - 1)
    at = np.stack([t.ravel() for t in np.meshgrid(np.arange(side), np.arange(side), indexing="ij")], 1)
    return np.asarray(linear_sum_assignment(((at[:, None] - turned) ** 2).sum(-1))[1])


def _neighbours(side: int) -> Array:
    i, j = (t.ravel() for t in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    apart = np.abs(i[:, None] - i) + np.abs(j[:, None] - j)
    return np.asarray((apart == 1).astype(float))


def _value(s: Array, order: Index, near: Array) -> float:
    return float((s[np.ix_(order, order)] * near).sum())
