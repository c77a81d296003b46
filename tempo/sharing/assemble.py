"""The parts of a session under scheme `shares`, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

from tempo.fleet import Event, Fleet, TlsFiles, WorkerSpec
from tempo.integrity import ExactVerifier
from tempo.nn.placement import Candidate, Placement
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.shares import REPLICATED
from tempo.sharing.desk import Desk
from tempo.sharing.engine import TOO_FEW_OWNERS, SharesEngine
from tempo.sharing.hire import owners_from
from tempo.sharing.owners import Owners
from tempo.sharing.registry import OwnersSpec, Registry
from tempo.sharing.weights import SharedWeights
from tempo.stats import Stats
from tempo.truth import UnsafeTruth

if TYPE_CHECKING:
    from tempo.config import Config


@final
class PublicOnly(Placement):
    """With workers of two owners: whose weight is secret stays."""

    def __init__(self, rest: Placement) -> None:
        self._rest = rest

    def keep(self, candidate: Candidate) -> str | None:
        if not candidate.public:
            return TOO_FEW_OWNERS
        return self._rest.keep(candidate)


def hire(
    config: Config, workers: WorkerSpec | OwnersSpec, tls: TlsFiles | None, note: Callable[[Event], None]
) -> Owners:
    """Fleets of the owners that a user named. Raises UsageError, WorkerError."""
    one_owner = config.unsafe_one_owner
    registry = Registry(shared=one_owner)
    hired = owners_from(workers, registry, tls=tls, unsafe_one_owner=one_owner)
    return Owners({owner: Fleet(own, config.fleet, note) for owner, own in hired.items()}, registry)


def assemble(
    config: Config,
    owners: Owners,
    key: SessionKey,
    stats: Stats,
    ids: Iterator[int],
    labels: Iterator[int],
    truth: UnsafeTruth | None = None,
) -> tuple[SharesEngine, SharedWeights]:
    desk = Desk(key, ExactVerifier(key), owners, stats, ids, labels, truth=truth)
    weights = SharedWeights(desk)
    engine = SharesEngine(desk, weights, key_shift=config.key_shift, local_fallback=config.local_fallback)
    return engine, weights


def placement(owners: Owners, wanted: Placement) -> Placement:
    """What may be sent to so many owners, and is wanted there."""
    return wanted if len(owners.fleets) == REPLICATED else PublicOnly(wanted)


def notes(config: Config, owners: Owners) -> list[str]:
    """What stands behind the scheme, for a report."""
    names = ", ".join(owners.names)
    if config.unsafe_one_owner:
        return [
            "unsafe_one_owner: one owner may run all workers, and who has two shares has the operand. This "
            "run hid nothing from such an owner"
        ]
    hides = "operands" if len(owners.fleets) == REPLICATED else "activations and their gradients"
    return [
        f"scheme shares: {hides} are hidden perfectly (up to ChaCha20) from each of {names} alone, and not "
        "at all from two of them who pool what they have. Products are in fixed point (docs/numerics.md)"
    ]
