"""Attacks 6, 8 and 18: what a monomial mask leaves as it was.

    cross ratios (6)   M_ij M_kl / (M_il M_kj) is unchanged by row and column coefficients. All at once: L =
                       log|M| less its row and column means is unchanged, so rows of L match those of L0 by
                       their sorted values, columns then by value, and rows again
    signatures (8)     moments of a row relative to its norm (kurtosis and its like), with columns brought to
                       equal norm: unchanged by the row's own coefficient, bent by the columns'
    norms (8)          the order of row norms: SOTER (Shen et al., USENIX ATC 2022) hides layers by a scalar,
                       which norms give back; unchanged by orthogonal maps of the other axis
    mantissas (18)     coefficients that are powers of two leave the mantissa of a float as it is: the
                       multiset of mantissas of W' against that of W0

They need W itself or a W0 near it, and no data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from tempo.attacks.attack import Attack
from tempo.attacks.knowledge import PublicWeights
from tempo.attacks.public import matched
from tempo.attacks.transcript import Transcript

OPERANDS: Final = 8
#: Quantiles of a row's magnitudes that its signature holds.
QUANTILES: Final = 24
_MANTISSA: Final = (1 << 23) - 1
_SEED: Final = 6


@final
@dataclass(frozen=True, slots=True, eq=False)
class Invariants:
    """Of one group of a W'. Rows and columns: the plain place of each encoded one, by cross ratios, by
    signatures and by norms.

    cross_ratios: median relative deviation at the places found (0 where masks are monomial and W is W0).
    mantissas: share of W' whose mantissa is in W0, counted as multisets; blind: the same for a W0 of which
    each entry was multiplied by a random number.
    """

    id: int
    group: int
    name: str
    by_ratios: tuple[Tensor, Tensor]
    by_signatures: tuple[Tensor, Tensor]
    by_norms: tuple[Tensor, Tensor]
    cross_ratios: float
    mantissas: float
    blind: float


@final
class MonomialInvariants(Attack[PublicWeights, list[Invariants]]):
    name = "invariants"
    number = 6
    title = "Monomial invariants: cross ratios, row signatures, mantissas"
    adversary = "one worker that keeps W'"
    side_knowledge = "public weights W0 that the secret ones were fine-tuned from, or are"
    knowledge = PublicWeights
    metric = "rows and columns placed; share of mantissas found again"
    compute = "sorting and six linear assignments an operand: seconds"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> list[Invariants]:
        generator = torch.Generator().manual_seed(_SEED)
        out = []
        for m in matched(transcript, knowledge, OPERANDS):
            by_ratios = _by_ratios(m.sent, m.public)
            random = torch.rand(m.public.shape, generator=generator, dtype=torch.float64) + 1
            out.append(
                Invariants(
                    m.id,
                    m.group,
                    m.name,
                    by_ratios,
                    (_signed(m.sent, m.public), _signed(m.sent.mT, m.public.mT)),
                    (_by_norms(m.sent, m.public), _by_norms(m.sent.mT, m.public.mT)),
                    _deviation(m.sent, m.public[by_ratios[0]][:, by_ratios[1]], generator),
                    _common(m.sent, m.public),
                    _common(m.sent, m.public * random),
                )
            )
        return out


def _by_ratios(sent_NK: Tensor, public_NK: Tensor) -> tuple[Tensor, Tensor]:
    mine, theirs = _centred_logs(sent_NK), _centred_logs(public_NK)
    rows = _match(mine.sort(1).values, theirs.sort(1).values)
    columns = _match(mine.mT, theirs[rows].mT)
    rows = _match(mine, theirs[:, columns])
    return rows, _match(mine.mT, theirs[rows].mT)


def _centred_logs(w_NK: Tensor) -> Tensor:
    """log|w| less its row and column means, (N, K), float64: the logarithms of all cross ratios in one.
    What is far below the rest says little and is cut off."""
    size = w_NK.abs()
    logs = size.clamp_min(1e-4 * float(size.median().clamp_min(1e-30))).log()
    return logs - logs.mean(1, keepdim=True) - logs.mean(0, keepdim=True) + logs.mean()


def _signed(sent_NK: Tensor, public_NK: Tensor) -> Tensor:
    """Rows placed by their signatures."""
    return _match(_signature(sent_NK), _signature(public_NK))


def _by_norms(sent_NK: Tensor, public_NK: Tensor) -> Tensor:
    """Rows placed by the order of their norms."""
    mine, theirs = (w.norm(dim=1).argsort() for w in (sent_NK, public_NK))
    places = torch.empty_like(mine)
    places[mine] = theirs
    return places


def _signature(w_NK: Tensor) -> Tensor:
    """(N, features): unchanged by row coefficients."""
    even = w_NK / w_NK.norm(dim=0).clamp_min(1e-30)
    size = even.abs() / even.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
    at = torch.linspace(0.02, 1, QUANTILES, dtype=torch.float64)
    moments = torch.stack([size.pow(p).mean(1).log() for p in (0.5, 1, 3, 4, 6)], 1)
    return torch.cat([size.quantile(at, dim=1).mT, moments], 1)


def _match(mine: Tensor, theirs: Tensor) -> Tensor:
    """Plain place of each row, one to one, by correlation of features that were standardised over rows."""
    sets: list[Tensor] = []
    for t in (mine, theirs):
        each = (t - t.mean(0)) / t.std(0).clamp_min(1e-12)
        sets.append(normalize(each, dim=1))
    return torch.from_numpy(linear_sum_assignment((sets[0] @ sets[1].mT).numpy(), maximize=True)[1])


def _deviation(sent_NK: Tensor, public_NK: Tensor, generator: torch.Generator) -> float:
    """Median relative deviation of cross ratios, some of them."""
    n, k = sent_NK.shape
    i, o = (torch.randint(n, (4096,), generator=generator) for _ in range(2))
    j, m = (torch.randint(k, (4096,), generator=generator) for _ in range(2))

    def ratio(w: Tensor) -> Tensor:
        return w[i, j] * w[o, m] / (w[i, m] * w[o, j])

    return float((ratio(sent_NK) / ratio(public_NK) - 1).abs().nanmedian())


def _common(a: Tensor, b: Tensor) -> float:
    """Share of the floats of a whose mantissa is in b as well, each used once."""
    of: Callable[[Tensor], Tensor] = lambda t: t.float().flatten().view(torch.int32) & _MANTISSA  # noqa: E731
    (mine, counts), (theirs, others) = (of(t).unique(return_counts=True) for t in (a, b))
    at = torch.searchsorted(theirs, mine).clamp_max(len(theirs) - 1)
    both = torch.where(theirs[at] == mine, torch.minimum(counts, others[at]), 0)
    return float(both.sum()) / a.numel()
