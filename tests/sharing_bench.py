"""An engine on shares over workers of this process, and what each of them was shown. Imported by tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tempo import FleetSettings
from tempo.fleet import Event, Fleet, Worker
from tempo.integrity import ExactVerifier
from tempo.ops import RingJob, Unverified, ring_compute
from tempo.secrecy.keys import SessionKey
from tempo.sharing import Owners, SharesEngine
from tempo.sharing.desk import Desk
from tempo.sharing.registry import Registry
from tempo.sharing.weights import SharedWeights
from tempo.stats import Stats


class Seen(Worker):
    """A worker in this process that remembers what it was shown, and changes a reply if told so."""

    def __init__(self, name: str, lie: Callable[[int, RingJob, object], None] | None = None) -> None:
        self.name = name
        self.views: list[tuple[RingJob, list[object]]] = []
        self.store: dict[int, object] = {}
        self._lie = lie
        self._bytes = 0

    def connect(self) -> None:
        pass

    def run(self, job: RingJob, ship: frozenset[int], deadline: float) -> Unverified:
        operands = []
        for operand in job.operands:
            if operand.id in ship:
                self._bytes += operand.nbytes
                shares = operand.expanded()
                if operand.keep:
                    self.store[operand.id] = shares
            else:
                shares = self.store[operand.id]
            operands.append(shares)
        self.views.append((job, operands))
        result = ring_compute(job.op, *operands, job.rows)
        if self._lie is not None:
            self._lie(len(self.views), job, result)
        return Unverified(result)

    def release(self, ids, deadline: float) -> None:
        for number in ids:
            self.store.pop(number, None)

    def close(self) -> None:
        pass

    @property
    def bytes_sent(self) -> int:
        return self._bytes

    @property
    def bytes_received(self) -> int:
        return 0


class Bench:
    """An engine on these workers, by owner, with its account and events."""

    def __init__(
        self, *owners: list[Worker], fallback: bool = True, shift: bool = True, truth=None, **fleet
    ) -> None:
        self.events: list[Event] = []
        self.stats = Stats()
        key, settings = SessionKey(), FleetSettings(**fleet)
        self.owners = Owners(
            {f"owner-{i}": Fleet(own, settings, self.events.append) for i, own in enumerate(owners)},
            Registry(shared=True),
        )
        desk = Desk(
            key, ExactVerifier(key), self.owners, self.stats, itertools.count(1), itertools.count(1), truth
        )
        self.engine = SharesEngine(desk, SharedWeights(desk), key_shift=shift, local_fallback=fallback)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.kind.value, event.worker) for event in self.events]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.owners.close()
