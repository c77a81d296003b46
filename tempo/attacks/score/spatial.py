"""Judge of attack 14. Images are trials: the structural similarity (Wang and others 2004) of the best of the
recovered maps in an image's place to any true map of its batch.

True maps: the strongest channels of the plain operand. Chance: the same maps against as many true ones of
another batch of the same layer, which are other images of the same kind; where no other was sent (the same
one again is none), against the same true ones turned by a quarter.
"""

from __future__ import annotations

from functools import cache
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from tempo.attacks.score.scorer import Scorer
from tempo.attacks.spatial import Maps, Spatial
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials

Array = NDArray[np.float64]

_CHANNELS: Final = 4
_WINDOW: Final = 7
_PICTURES: Final = 8
#: Digits: 0.05 between operands of the same images by moved weights, 0.37 to 0.42 between those of others.
_ALIKE: Final = 0.2


@final
class SpatialScorer(Scorer[list[Maps]]):
    attack = Spatial

    def score(self, guess: list[Maps], truth: Truth) -> dict[str, Trials]:
        values: list[float] = []
        blind: list[float] = []
        for each in guess:
            true, other = _true(each, truth), _other(each, truth)
            for image in each.maps_MCIJ:
                values.append(float(_table(image, true).max()))
                blind.append(float(_table(image, other).max()))
        how = (
            "the same maps against images of another batch, or true ones turned where none was sent, measured"
        )
        return {"maps of convolutions": Trials(values, float(np.mean(blind)), how)}

    def pictures(self, guess: list[Maps], truth: Truth) -> list[tuple[str, Tensor, Tensor]]:
        """(how it was made, recovered, the true map it is nearest to), the best of some images."""
        out = []
        for each in guess:
            true = _true(each, truth)
            for image in each.maps_MCIJ[: _PICTURES // max(len(guess), 1) + 1]:
                table = _table(image, true)
                c, t = np.unravel_index(int(table.argmax()), table.shape)
                sign = np.sign((_even(image[c]) * _even(true[t])).sum()) or 1.0
                pair = (torch.from_numpy(sign * image[c].copy()), torch.from_numpy(true[t].copy()))
                out.append((each.names[int(c)], *pair))
        return out[:_PICTURES]


def _other(each: Maps, truth: Truth) -> Array:
    weight = truth.of(each.operand).weight
    for id_ in each.others:
        if truth.of(id_).weight == weight and not _same(each, truth, id_):
            return _true(each, truth, id_)
    return np.rot90(_true(each, truth), axes=(-2, -1))


def _same(each: Maps, truth: Truth, id_: int) -> bool:
    """Whether another operand is of the same images, which a later step or a gradient meets again: 0 is said
    of equal ones, about 1 of such that have nothing in common."""
    one, two = (truth.of(i).groups[each.group].double() for i in (each.operand, id_))
    if one.shape != two.shape:
        return False
    one, two = one - one.mean(0), two - two.mean(0)
    return float((one - two).square().sum()) < _ALIKE * float(one.square().sum() + two.square().sum())


def _true(each: Maps, truth: Truth, id_: int | None = None) -> Array:
    """(images * channels, I, J). id_: of another operand of that form."""
    plain = truth.of(each.operand if id_ is None else id_).groups[each.group].double().numpy()
    height, width = each.maps_MCIJ.shape[-2:]
    strong = np.argsort(-plain.var(0))[:_CHANNELS]
    count = -(-len(plain) // (height * width))
    # Rows that were left out are missing here too: an order that shows in X' shows against this one.
    plain = np.pad(plain, ((0, count * height * width - len(plain)), (0, 0)))
    maps = plain[:, strong].T
    # Of the images that were looked at.
    return np.asarray(
        maps.reshape(len(strong), count, height, width)[:, : len(each.maps_MCIJ)].reshape(-1, height, width)
    )


def _table(maps_CIJ: Array, true_TIJ: Array) -> Array:
    """|SSIM| of each map with each true one, (c, t); both made even in mean and deviation first, and either
    sign taken, since neither is known to an attacker. Constant maps resemble nothing."""
    height, width = maps_CIJ.shape[-2:]
    a, b = (_even(t).reshape(len(t), -1) for t in (maps_CIJ, true_TIJ))
    # The window's mean as a matrix (places, places): only its products with pairs are made pair by pair.
    mean = _window(height, width)
    ma, mb = a @ mean.T, b @ mean.T
    va, vb = (a * a) @ mean.T - ma * ma, (b * b) @ mean.T - mb * mb
    # Constants of the index for a range of about four deviations.
    c1, c2 = (0.01 * 4) ** 2, (0.03 * 4) ** 2
    plus, minus = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    for at, weights in enumerate(mean):
        both = np.outer(ma[:, at], mb[:, at])
        cov = (a * weights) @ b.T - both
        bottom = (ma[:, at, None] ** 2 + mb[:, at] ** 2 + c1) * (va[:, at, None] + vb[:, at] + c2)
        plus += (2 * both + c1) * (2 * cov + c2) / bottom
        minus += (-2 * both + c1) * (-2 * cov + c2) / bottom
    alive = (maps_CIJ.std((-2, -1)) > 1e-9)[:, None] & (true_TIJ.std((-2, -1)) > 1e-9)[None]
    return np.where(alive, np.maximum(plus, minus) / len(mean), 0.0)


@cache
def _window(height: int, width: int) -> Array:
    size = min(_WINDOW, height, width)
    one = np.eye(height * width).reshape(-1, height, width)
    return np.asarray(uniform_filter(one, (0, size, size), mode="reflect").reshape(len(one), -1).T)


def _even(t: Array) -> Array:
    about = t - t.mean((-2, -1), keepdims=True)
    return np.asarray(about / (about.std((-2, -1), keepdims=True) + 1e-12))
