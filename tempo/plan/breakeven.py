"""Prices at which Tempo and an alternative cost the same, from the prices that the user gave.

With t, T, c hours of an epoch under Tempo, in the TEE alone, on a confidential GPU; a, g, k prices of an hour
of the TEE's machine, of one of n workers, of a confidential GPU; e of a gigabyte, V gigabytes an epoch:

    (a + n g) t + e V = a T       solved for g, or for e         Tempo against the TEE alone
    (a + n g) t + e V = k c       solved for k                   Tempo against a confidential GPU
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from tempo.plan.money import Option, Prices

_HOUR: Final = 3600.0
_GB: Final = 1e9


@final
@dataclass(frozen=True, slots=True)
class Even:
    """price: None where none would do. unit: "hour", "GB" or "epoch". yours: what was given, if anything.
    favours_tempo: whether yours is on Tempo's side; None where nothing was given or nothing is compared."""

    name: str
    price: float | None
    unit: str
    yours: float | None = None
    favours_tempo: bool | None = None

    def fields(self, currency: str) -> dict[str, Any]:
        return asdict(self) | {"currency": currency}


def break_even(prices: Prices, options: Sequence[Option], *, workers: int, epoch_bytes: float) -> list[Even]:
    """options: of `tempo.plan.money.epoch_costs`. epoch_bytes: over the boundary, both ways. Empty where
    nothing is sent; a price that others are missing for is left out."""
    by_name = {option.name: option for option in options}
    tempo, tee = by_name.get("tempo"), by_name.get("tee-only")
    if not workers or tempo is None or tee is None:
        return []
    out: list[Even] = []
    a, g = prices.tee_per_hour, prices.gpu_per_hour
    t, alone = tempo.epoch_seconds / _HOUR, tee.epoch_seconds / _HOUR
    if a is not None and t > 0:
        out.append(_below("gpu_per_hour", (a * (alone - t) - tempo.egress_cost) / (workers * t), "hour", g))
    if a is not None and g is not None and epoch_bytes > 0:
        most = (a * alone - (a + workers * g) * t) / (epoch_bytes / _GB)
        out.append(_below("egress_per_gb", most, "GB", prices.egress_per_gb))
    confidential = by_name.get("confidential-gpu")
    if tempo.cost is not None and confidential is not None and confidential.epoch_seconds > 0:
        least, yours = tempo.cost / (confidential.epoch_seconds / _HOUR), prices.confidential_gpu_per_hour
        wins = None if yours is None else yours > least
        out.append(Even("confidential_gpu_per_hour", least, "hour", yours, wins))
    if tempo.cost is not None and tee.cost is not None and alone > t:
        out.append(Even("hour_saved", (tempo.cost - tee.cost) / (alone - t), "hour"))
    plain = by_name.get("unprotected-gpu")
    if tempo.cost is not None and plain is not None and plain.cost is not None:
        out.append(Even("protection", tempo.cost - plain.cost, "epoch"))
    return out


def _below(name: str, price: float, unit: str, yours: float | None) -> Even:
    """Tempo wins below this price; below nothing, never."""
    if price <= 0:
        return Even(name, None, unit, yours, None if yours is None else False)
    return Even(name, price, unit, yours, None if yours is None else yours < price)
