"""Numbers of a matrix that no permutation or sign of its rows and columns changes, for classifiers.

    log norm, singular values, norms and kurtosis of rows and columns, magnitudes of entries, zeros,
    cosines between rows and between columns

each as quantiles, so that matrices of one kind but of different sizes give vectors of one length.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_LARGEST: Final = 768  # rows or columns that spectra and cosines are taken of
_TINY: Final = 1e-9
_SINGULAR: Final = torch.linspace(0, 1, 24, dtype=torch.float64).square()
_QUANTILES: Final = torch.tensor([0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0], dtype=torch.float64)


def invariants(t_RF: Tensor) -> Tensor:
    """(64 or so,) float64. Scales of rows and columns are left in: where they are drawn from [1/s, s] they
    blur these numbers, and the classifier learns by how much."""
    t = t_RF.double()
    norm = float(t.norm())
    t = t / (norm + _TINY) * t.numel() ** 0.5
    part = t[:_LARGEST, :_LARGEST]
    side = part @ part.mT if part.shape[0] <= part.shape[1] else part.mT @ part
    # Descending, so that the first quantiles are the strongest directions.
    values = torch.linalg.eigvalsh(side / side.trace().clamp(min=_TINY)).clamp(min=1e-12).flip(0)
    spectrum = values.log()[(_SINGULAR * (len(values) - 1)).round().long()]
    return torch.cat(
        [
            torch.tensor([norm + _TINY], dtype=torch.float64).log(),
            spectrum,
            _spread((t.square().mean(1) + _TINY).log()),
            _spread((t.square().mean(0) + _TINY).log()),
            _spread(_kurtosis(t).clamp(max=100.0)),
            _spread(_kurtosis(t.mT).clamp(max=100.0)),
            _spread((part.abs().flatten() + 1e-6).log()),
            torch.tensor([float((t == 0).double().mean())], dtype=torch.float64),
            _spread(_cosines(part)),
            _spread(_cosines(part.mT)),
        ]
    )


def _spread(values: Tensor) -> Tensor:
    ordered = values.flatten().sort().values
    return ordered[(_QUANTILES * (len(ordered) - 1)).round().long()]


def _kurtosis(t: Tensor) -> Tensor:
    square = t.square()
    below: Tensor = square.mean(1).square().clamp(min=_TINY)
    out: Tensor = square.square().mean(1) / below
    return out


def _cosines(t: Tensor) -> Tensor:
    """Largest |cosine| of each row with another."""
    unit = t / t.norm(dim=1, keepdim=True).clamp(min=_TINY)
    return torch.amax((unit @ unit.mT).fill_diagonal_(0).abs(), 1)
