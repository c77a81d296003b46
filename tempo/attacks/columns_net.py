"""A network that puts the columns of a sealed matrix in their places, whatever order they come in.

    Z    rows and columns brought to equal norms (Sinkhorn), signs from the leading singular vectors
    A    correlations of the columns of Z: a graph whose nodes are the columns
    H    node states: statistics of a column, then rounds of message passing over A
    X^   = Z softmax(H Q^T) diag(alpha) + m       Q, alpha, m: learned for each place

Row and column permutations and scales leave the output as it is, up to the order of rows, so the network
need not learn them; what it learns is which correlations which place has. (Graph networks for matching:
Nowak et al., arXiv 1706.07450; Sinkhorn and Knopp, 1967.)

Axes: R rows, K columns as seen, P places.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

from tempo.attacks.canonical import canonical

_SINKHORN: Final = 10
_POWER: Final = 6
_STATS: Final = 14
_TINY: Final = 1e-6
#: Mean square below which a column of an operand of mean square 1 counts as zero.
_DEAD: Final = 1e-8


def signed(x_RK: Tensor) -> Tensor:
    """Z (R, K): mean square 1 in every row and column that is not zero, signs fixed."""
    x = x_RK.float() / x_RK.float().square().mean().sqrt().clamp(min=_TINY)
    z = canonical(torch.where(x.square().mean(0) < _DEAD, 0.0, x), _SINKHORN) * x.sign()
    v = torch.ones(z.shape[1]) / z.shape[1] ** 0.5
    for _ in range(_POWER):
        v = torch.nn.functional.normalize(z.mT @ (z @ v), dim=0)
    u = z @ v
    return z * torch.where(u < 0, -1.0, 1.0)[:, None] * torch.where(v < 0, -1.0, 1.0)


@final
class ColumnsNet(nn.Module):
    """width: of node states. places: P, which is K."""

    def __init__(self, places: int, width: int = 48, rounds: int = 3) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(_STATS, width), nn.ReLU(), nn.Linear(width, width))
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.near = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(rounds))
        self.close = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.query = nn.Linear(width, places)
        self.gain = nn.Parameter(torch.ones(places))
        self.mean = nn.Parameter(torch.zeros(places))

    def forward(self, z_RK: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as they would be in the clear (R, P), and the places' logits of each column (K, P)."""
        centred = z_RK - z_RK.mean(0)
        deviation = centred.square().mean(0).sqrt()
        unit = centred / deviation.clamp(min=1e-3)
        a = unit.mT @ unit / len(unit)
        # Strong correlations alone, and all of them: neighbours, and the whole.
        strong = a.pow(3)
        strong, weak = _normal(strong), _normal(a)
        h = self.enter(_stats(unit, deviation, a))
        for own, near, close, norm in zip(self.own, self.near, self.close, self.norms, strict=True):
            h = norm(h + torch.relu(own(h) + near(weak @ h) + close(strong @ h)))
        logits = self.query(h)
        return unit @ torch.softmax(logits, 1) * self.gain + self.mean, logits


def _normal(a: Tensor) -> Tensor:
    return a / a.abs().sum(1, keepdim=True).clamp(min=_TINY)


def _stats(unit: Tensor, deviation: Tensor, a: Tensor) -> Tensor:
    at = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    ordered = unit.sort(0).values
    quantiles = ordered[(at * (len(unit) - 1)).round().long()].mT
    rest = [
        deviation,
        unit.pow(3).mean(0),
        unit.pow(4).mean(0).clamp(max=50.0).log1p(),
        a.square().mean(1).sqrt(),
        a.mean(1),
        a.pow(4).mean(1),
        (a.abs() > 0.5).float().mean(1),
    ]
    return torch.cat([quantiles.clamp(-8, 8), torch.stack(rest, 1)], 1)
