"""Judge of attack 11, and the curve that Config.weight_uses is chosen from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from tempo.attacks.reuse import KeyReuse, Nearest, Reuse, Use, spectrum
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.score.unmixing import Unmixings, unmixed
from tempo.attacks.truth import Plain, Truth, matrix
from tempo.attacks.verdict import Trials, interval

#: An operand counts as a repeat where its second moment lies this much nearer than the others' (median).
_REPEAT: Final = 0.3


@final
@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Largest share of a true feature in a component, after so many uses of one key; chance: random rotations
    of the same components. way: "components" or "moments". rank: of the operands stacked."""

    uses: int
    way: str
    score: float
    low: float
    high: float
    chance: float
    rank: int


def reuse_curve(guess: Reuse, truth: Truth) -> list[CurvePoint]:
    """By way, then by uses."""
    out = []
    for (way, uses), (trials, rank) in _shares(guess, truth).items():
        of = interval(trials.values).at_least(trials.error)
        out.append(CurvePoint(uses, way, of.mean, of.low, of.high, trials.chance, rank))
    return out


@final
class ReuseScorer(Scorer[Reuse]):
    """Basis: a trial for each component. Repeats: one for each operand that has one. Changed rows: energy of
    the true change in the directions found; chance by dimensions. Steps: correlation of the change of spectra
    with the true one; chance by the change of another step."""

    attack = KeyReuse

    def score(self, guess: Reuse, truth: Truth) -> dict[str, Trials]:
        shares = _shares(guess, truth)
        out = {f"basis after {uses} uses, {way}": of for (way, uses), (of, _) in shares.items()}
        for name, found in (("same key", guess.same_key), ("fresh keys", guess.fresh_keys)):
            hits, chances = _repeats(found, truth)
            if hits:
                out[f"repeats, {name}"] = Trials(
                    hits, sum(chances) / len(chances), "derived: one over those it was chosen from"
                )
        opened, chances = _changed(guess.same_key, truth)
        if opened:
            out["changed row, same key"] = Trials(
                opened, sum(chances) / len(chances), "derived: as many random directions"
            )
        steps, chances = _steps(guess, truth)
        if steps:
            out["steps of W, fresh keys"] = Trials(
                steps, sum(chances) / len(chances), "measured: true change of another step"
            )
        return out


def _shares(guess: Reuse, truth: Truth) -> dict[tuple[str, int], tuple[Trials, int]]:
    """By way and uses: how well the basis is known, and the rank of what was stacked."""
    found: dict[tuple[str, int], Unmixings] = defaultdict(Unmixings)
    ranks: dict[tuple[str, int], int] = {}
    for use in guess.curve:
        mixing, first = _mixing(use, truth), truth.of(use.x_ids[0])
        for way, unmixing in use.unmixing.items():
            found[way, use.uses].add(unmixing.mT.numpy(), mixing.numpy(), unmixed(first, 0, use.seen))
            ranks[way, use.uses] = use.rank
    return {key: (of.trials(rank=float(ranks[key])), ranks[key]) for key, of in sorted(found.items())}


def _mixing(use: Use, truth: Truth) -> Tensor:
    """B times the deviations of the plain features, (K, K)."""
    plain = [truth.of(i) for i in use.x_ids]
    x = torch.cat([p.groups[0] for p in plain]).double()
    mixing: Tensor = matrix(plain[0].right[0]) * x.std(0)
    return mixing


def _repeats(found: Iterable[Nearest], truth: Truth) -> tuple[list[float], list[float]]:
    hits: list[float] = []
    chances: list[float] = []
    ids = sorted({i for each in found for i in (each.x_id, *each.among)})
    flat = [_moment(truth.of(i)) for i in ids]
    for of_shape in {t.shape for t in flat}:
        mine = [i for i, t in zip(ids, flat, strict=True) if t.shape == of_shape]
        moments = torch.stack([t for t in flat if t.shape == of_shape])
        gram = moments @ moments.mT
        apart = (gram.diagonal()[:, None] + gram.diagonal() - 2 * gram).clamp_min(0).sqrt()
        at = {i: n for n, i in enumerate(mine)}
        for each in found:
            if each.x_id not in at:
                continue
            among = [i for i in each.among if i in at]
            distance = apart[at[each.x_id]][[at[i] for i in among]]
            if len(among) and float(distance.min()) < _REPEAT * float(distance.median()):
                # Any repeat will do, there may be several.
                near = distance < _REPEAT * distance.median()
                twins = {i for i, is_near in zip(among, near.tolist(), strict=True) if is_near}
                hits.append(float(each.other in twins))
                chances.append(len(twins) / len(each.among))
    return hits, chances


def _moment(plain: Plain) -> Tensor:
    x = plain.groups[0].double()
    return (x.mT @ x).flatten()


def _changed(found: Iterable[Nearest], truth: Truth) -> tuple[list[float], list[float]]:
    values: list[float] = []
    chances: list[float] = []
    for each in found:
        if each.changed is None:
            continue
        mine, other = truth.of(each.x_id), truth.of(each.other)
        new = _new_row(mine, other)
        if new is None:
            continue
        b = matrix(mine.right[0])
        space = torch.linalg.svd(other.groups[0].double() @ b.mT, full_matrices=False).Vh
        direction = b @ new
        direction = direction - space.mT @ (space @ direction)
        values.append(float((each.changed.mT @ direction).norm() ** 2 / direction.norm() ** 2))
        chances.append(each.changed.shape[1] / (len(b) - len(space)))
    return values, chances


def _new_row(mine: Plain, other: Plain) -> Tensor | None:
    """The row of one operand that the other has not, where there is just one."""
    a, b = mine.groups[0].double(), other.groups[0].double()
    fresh = torch.cdist(a, b).amin(1) > 1e-3 * float(a.square().mean().sqrt())
    return a[fresh][0] if int(fresh.sum()) == 1 else None


def _steps(guess: Reuse, truth: Truth) -> tuple[list[float], list[float]]:
    seen: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for a, b, change in guess.steps:
        true = spectrum(truth.of(b).groups[0]) - spectrum(truth.of(a).groups[0])
        if float(true.norm()) > 1e-9:
            seen[true.shape].append((change, true))
    values: list[float] = []
    chances: list[float] = []
    for of_shape in seen.values():
        for i, (change, true) in enumerate(of_shape):
            values.append(_correlation(change, true))
            if len(of_shape) > 1:
                chances.append(_correlation(change, of_shape[i - 1][1]))
    return values, chances or [0.0]


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1].nan_to_num())
