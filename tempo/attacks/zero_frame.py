"""Attack 19: the zero frame of a filtered convolution, a retraction kept (docs/attacks/retractions.md).

No scheme of ours sends such operands. The idea was: a convolution commutes with circular filters, so maps
that
are padded to a torus may be sent through a secret all-pass filter g, exactly and cheaply:

    X'_c = g * X_c        X_c = 0 on the frame of the padding, |g^(f)| = 1 at every frequency f

The padding is an exact linear constraint at a known place. For h = the inverse of g

    (h * X'_c)[f] = 0     for every channel c and every place f of the frame,

which is linear in h: the eigenvector of the least eigenvalue of the normal matrix.

Axes: C maps (channels and images, mixed by whatever acts on them: the constraint does not mind), P x P the
torus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tempo.attacks.attack import NothingToAttack

Array = NDArray[np.float64]

#: Unknowns of one eigenproblem: the torus has at most so many places.
_LARGEST: Final = 2500


@final
@dataclass(frozen=True, slots=True, eq=False)
class Unfiltered:
    """inverse (P, P): the filter h that empties the frame, of unit norm, up to sign. maps_CPP: h * X'. gap:
    least
    eigenvalue over the one before: small where the answer is unique."""

    inverse: Array
    maps_CPP: Array
    gap: float


def unfilter(sealed_CPP: Array, frame_PP: NDArray[np.bool_]) -> Unfiltered:
    """Raises NothingToAttack where there is no frame, or fewer equations than unknowns."""
    c, p, q = sealed_CPP.shape
    places = np.argwhere(frame_PP)
    if p * q > _LARGEST or c * len(places) < p * q:
        raise NothingToAttack(
            f"{c} maps with a frame of {len(places)} places are {c * len(places)} equations, needed are "
            f"{p * q}, at most {_LARGEST}"
        )
    # (h * X)[f] = sum_d h[d] X[f - d]
    rows = (np.arange(p)[:, None], np.arange(q)[None])
    normal = np.zeros((p * q, p * q))
    for i, j in places:
        a = sealed_CPP[:, (i - rows[0]) % p, (j - rows[1]) % q].reshape(c, -1)
        normal += a.T @ a
    values, vectors = np.linalg.eigh(normal)
    h = vectors[:, 0].reshape(p, q)
    maps = np.fft.ifft2(np.fft.fft2(sealed_CPP) * np.fft.fft2(h)).real
    return Unfiltered(h, maps, float(max(values[0], 0) / (values[1] + 1e-300)))
