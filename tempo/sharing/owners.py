"""Who gets which share: the fleets of a session, one for each owner of workers.

All workers of one owner may compare what they were sent, so an owner is the party that a proof speaks of.
Two shares of an operand never go to one owner; replies of different owners are added up here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

from tempo.errors import UsageError
from tempo.fleet import Fleet, Standing, Stats, Worker, WorkerSpec
from tempo.fleet.settings import Watcher
from tempo.secrecy.shares import ADDITIVE, REPLICATED
from tempo.sharing.registry import Registry


@final
class Owners:
    """Thread-safe, as fleets are. Owns them: `close` closes them all. registry: of their machines."""

    def __init__(self, fleets: Mapping[str, Fleet], registry: Registry) -> None:
        if len(fleets) not in (ADDITIVE, REPLICATED):
            raise UsageError(
                f"scheme 'shares' takes workers of {REPLICATED} owners, or of {ADDITIVE} where all weights "
                f"that are sent are public, not of {len(fleets)}: {', '.join(fleets) or 'none'}"
            )
        self._by_name = dict(fleets)
        self._registry = registry
        #: In the order of the shares.
        self.fleets = tuple(fleets.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def lanes(self) -> int:
        """Products that may be computed at once: workers usable now, of the owner that has most."""
        return max(1, *(fleet.width for fleet in self.fleets))

    def claim(self, owner: str | None, workers: WorkerSpec) -> None:
        """These workers are about to join those of an owner. Raises UsageError for an owner there is none
        of, and for a machine that is another's."""
        if owner not in self._by_name:
            raise UsageError(f"owner = {owner!r}: expected one of {', '.join(self.names)}")
        self._registry.enter({owner: workers})

    def add(self, owner: str, worker: Worker) -> None:
        """A worker of that owner joins."""
        self._by_name[owner].add(worker)

    def remove(self, name: str) -> None:
        """A worker leaves, whoever owns it."""
        known = [worker for fleet in self.fleets for worker in fleet.stats.jobs]
        for fleet in self.fleets:
            if name in fleet.stats.jobs:
                return fleet.remove(name)
        raise UsageError(f"no worker is named {name!r}. There are: {', '.join(known)}")

    def release(self, ids: Iterable[int]) -> None:
        """No later job refers to these operands. Only enqueues, as `Fleet.release`."""
        names = tuple(ids)
        for fleet in self.fleets:
            fleet.release(names)

    def watch(self, watcher: Watcher | None) -> None:
        for fleet in self.fleets:
            fleet.watch(watcher)

    @property
    def width(self) -> int:
        """Workers usable now, of all owners."""
        return sum(fleet.width for fleet in self.fleets)

    @property
    def standing(self) -> dict[str, Standing]:
        """Of each worker that was caught, by name."""
        return {name: held for fleet in self.fleets for name, held in fleet.standing.items()}

    def restore(self, standing: Mapping[str, Standing]) -> None:
        """What an earlier run held against workers of these names counts again."""
        for fleet in self.fleets:
            fleet.restore(standing)

    @property
    def stats(self) -> Stats:
        each = [fleet.stats for fleet in self.fleets]
        return Stats(
            retries=sum(s.retries for s in each),
            bytes_sent=sum(s.bytes_sent for s in each),
            bytes_received=sum(s.bytes_received for s in each),
            jobs={name: jobs for s in each for name, jobs in s.jobs.items()},
            busy_seconds={name: seconds for s in each for name, seconds in s.busy_seconds.items()},
        )

    def close(self) -> None:
        for fleet in self.fleets:
            fleet.close()
