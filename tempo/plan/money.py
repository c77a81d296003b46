"""What an epoch costs in money: in the TEE alone, under Tempo, on an unprotected and on a confidential GPU.

Nothing is assumed in silence: each figure comes with the assumptions it stands on. Prices are the user's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Final, final

from tempo.errors import OutsideError, UsageError

_HOUR: Final = 3600.0
_GB: Final = 1e9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Per hour of one machine, in `currency`; None: not given, so nothing that needs it is priced."""

    currency: str = "USD"
    tee_per_hour: float | None = None
    gpu_per_hour: float | None = None
    confidential_gpu_per_hour: float | None = None
    #: Of bytes that leave the TEE's machine or a GPU's.
    egress_per_gb: float = 0.0
    #: Flop per second that a GPU reaches on this model; None: as measured on the workers.
    gpu_flops_per_second: float | None = None
    #: Step time of a confidential GPU against the same GPU without.
    confidential_slowdown: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "currency":
                if not (isinstance(value, str) and value.strip()):
                    raise UsageError("prices: currency is a name such as EUR")
            elif value is not None and not (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and isfinite(value)
                and value >= 0
            ):
                raise UsageError(f"prices: {each.name} = {value!r}: expected a number, 0 or more")
        if self.gpu_flops_per_second == 0:
            raise UsageError("prices: gpu_flops_per_second = 0: expected more than 0")
        if self.confidential_slowdown < 1:
            raise UsageError("prices: confidential_slowdown is 1 or more")

    def with_options(self, **options: Any) -> Prices:
        """A copy; options that are None change nothing."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    @classmethod
    def load(cls, path: Path) -> Prices:
        """Of the table [prices] of a TOML file; none of them if there is no such table.

        Raises OutsideError for a file that cannot be read, UsageError for what is wrong in it.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise OutsideError(
                f"prices {path} cannot be read ({why}). Name a TOML file with a table [prices], or give "
                "prices as options such as --tee-per-hour"
            ) from error
        try:
            table = tomllib.loads(text).get("prices", {})
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not TOML: {error}") from error
        if not isinstance(table, Mapping):
            raise UsageError(f"{path}: prices is a table, [prices]")
        known = {each.name for each in fields(cls)}
        for name in table:
            if name not in known:
                raise UsageError(f"{path}: unknown price {name!r}. There are: {', '.join(sorted(known))}")
        return cls(**table)


@final
@dataclass(frozen=True, slots=True)
class Option:
    """One way to run an epoch. cost: None where a price is missing, which `assumptions` name."""

    name: str
    epoch_seconds: float
    machine_cost: float | None
    egress_cost: float
    assumptions: tuple[str, ...] = field(default=())

    @property
    def cost(self) -> float | None:
        return None if self.machine_cost is None else self.machine_cost + self.egress_cost

    def fields(self, currency: str) -> dict[str, Any]:
        return {
            "option": self.name,
            "epoch_seconds": self.epoch_seconds,
            "cost": self.cost,
            "machine_cost": self.machine_cost,
            "egress_cost": self.egress_cost,
            "currency": currency,
            "assumptions": list(self.assumptions),
        }


def epoch_costs(
    prices: Prices,
    *,
    samples: int,
    batch: int,
    tee_step_seconds: float,
    tempo_step_seconds: float,
    step_flops: int,
    step_bytes: int,
    workers: int,
    worker_flops_per_second: float,
) -> list[Option]:
    """Four ways to train, or serve, `samples` samples.

    step_flops: all linear flops of a step. step_bytes: over the boundary, both ways, under Tempo.
    worker_flops_per_second: measured, of the fastest worker.
    """
    if samples < 1 or batch < 1:
        raise UsageError(f"an epoch of {samples} samples in batches of {batch}: both are at least 1")
    steps = ceil(samples / batch)
    given = prices.gpu_flops_per_second
    gpu_rate = given or worker_flops_per_second
    rate_from = f"GPU at {gpu_rate:.3g} flop/s, {'given' if given else 'measured on the fastest worker'}"
    gpu_seconds = steps * step_flops / gpu_rate
    only_flops = "a GPU's step is its linear flops alone; loading and other work cost nothing"
    tempo_seconds = steps * tempo_step_seconds
    slow = prices.confidential_slowdown
    return [
        _option("tee-only", steps * tee_step_seconds, [("tee_per_hour", prices.tee_per_hour, 1)]),
        _option(
            "tempo",
            tempo_seconds,
            [
                ("tee_per_hour", prices.tee_per_hour, 1),
                ("gpu_per_hour", prices.gpu_per_hour, workers),
            ],
            steps * step_bytes / _GB * prices.egress_per_gb,
            f"{workers} workers, each a machine of its own, paid while the TEE runs"
            if workers
            else "nothing is sent, so no worker is paid",
            f"egress of both ends at {prices.egress_per_gb:g} per GB",
        ),
        _option(
            "unprotected-gpu",
            gpu_seconds,
            [("gpu_per_hour", prices.gpu_per_hour, 1)],
            0.0,
            rate_from,
            only_flops,
        ),
        _option(
            "confidential-gpu",
            gpu_seconds * slow,
            [("confidential_gpu_per_hour", prices.confidential_gpu_per_hour, 1)],
            0.0,
            rate_from,
            only_flops,
            f"{slow:g} times the step time of the same GPU unprotected",
        ),
    ]


def run_cost(prices: Prices, *, seconds: float, nbytes: int, workers: int) -> Option:
    """What a run under Tempo cost. nbytes: over the boundary, both ways."""
    return _option(
        "tempo",
        seconds,
        [("tee_per_hour", prices.tee_per_hour, 1), ("gpu_per_hour", prices.gpu_per_hour, workers)],
        nbytes / _GB * prices.egress_per_gb,
        f"{workers} workers, each a machine of its own, paid while the run lasted",
        f"egress of both ends at {prices.egress_per_gb:g} per GB",
    )


def _option(
    name: str,
    seconds: float,
    machines: list[tuple[str, float | None, int]],
    egress: float = 0.0,
    *assumptions: str,
) -> Option:
    missing = [price for price, value, _ in machines if value is None]
    cost = None
    if not missing:
        cost = sum(count * (value or 0.0) for _, value, count in machines) * seconds / _HOUR
    notes = tuple(f"{price} was not given" for price in missing)
    return Option(name, seconds, cost, egress, (*assumptions, *notes))
