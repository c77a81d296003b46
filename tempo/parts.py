"""What a session is made of, by scheme: fleets, sealed weights, the engine, and what is to stay."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from tempo.config import Config
from tempo.engine import Engine
from tempo.errors import UsageError
from tempo.fleet import Event, Fleet, TlsFiles, WorkerSpec, workers_from
from tempo.integrity import Verifier
from tempo.nn.placement import Always, Never, Placement, Places, Rules
from tempo.plan.auto import Auto
from tempo.plan.calibrate import calibrate
from tempo.products import Products
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.pieces import Desk
from tempo.secrecy.scheme import SHARES
from tempo.secrecy.weights import Weights
from tempo.sharing import Owners
from tempo.sharing.assemble import assemble, hire, placement
from tempo.sharing.weights import SharedWeights
from tempo.stats import Stats
from tempo.truth import UnsafeTruth

Workers = WorkerSpec | Mapping[str, WorkerSpec]


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Parts:
    """rules, places: what must stay, and what is wanted elsewhere. auto: None where no plan covers the
    scheme. verifier: None where checks are exact."""

    fleet: Fleet | Owners
    weights: Weights | SharedWeights
    engine: Products[Any]
    rules: Rules
    places: Places
    auto: Auto | None
    verifier: Verifier | None


def parts_from(
    config: Config,
    workers: Workers,
    tls: TlsFiles | None,
    note: Callable[[Event], None],
    stats: Stats,
    truth: UnsafeTruth | None,
) -> Parts:
    """Keys are drawn and workers started. Raises UsageError, WorkerError."""
    key, ids, labels = SessionKey(), itertools.count(1), itertools.count(1)
    if config.scheme == SHARES:
        owners = hire(config, workers, tls, note)
        shared, sealed = assemble(config, owners, key, stats, ids, labels, truth)
        rules, places = _placed(config, placement(owners, Always()), None)
        return Parts(owners, sealed, shared, rules, places, None, None)
    if isinstance(workers, Mapping):
        raise UsageError(f"workers by owner are for scheme {SHARES!r}; {config.scheme!r} takes a list")
    fleet = Fleet(workers_from(workers, tls=tls), config.fleet, note)
    scheme, release, verifier = config.make_scheme(), fleet.release, Verifier(key, config.repetitions)
    desk = Desk(key, scheme, verifier, stats, ids, labels, release, config.precision, truth)
    weights = Weights(key, scheme, ids, release, config.weight_uses, desk.pool, stats, truth)
    shift, fallback = config.key_shift, config.local_fallback
    engine = Engine(desk, fleet, weights, key_shift=shift, local_fallback=fallback)
    auto = Auto(lambda schemes: calibrate(fleet, config, ids, schemes=schemes), config)
    rules, places = _placed(config, Always(), auto)
    return Parts(fleet, weights, engine, rules, places, auto, verifier)


def _placed(config: Config, always: Placement, auto: Auto | None) -> tuple[Rules, Places]:
    rules = Rules(config.min_size, config.offload_attention, delicate=config.scheme != SHARES)
    named = {"always": always, "never": Never(), "auto": auto or always}
    return rules, Places(config.placement, named)
