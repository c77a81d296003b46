"""Which machine is whose, as far as addresses tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import final

from tempo.errors import UsageError
from tempo.fleet import WorkerSpec

#: Workers by owner.
OwnersSpec = Mapping[str, WorkerSpec]

_HERE = "this machine"
_OURS = re.compile(r"local:[0-9]+|cpu|cuda(:[0-9]+)?|unix:.*|(localhost|127\.[0-9.]+|\[::1\]):[0-9]+")


@final
class Registry:
    """Refuses one machine to two owners, unless shared: then anything goes."""

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._owners: dict[str, str] = {}

    def enter(self, spec: OwnersSpec) -> None:
        """Raises UsageError for a machine that is another owner's, and enters none then."""
        owners = dict(self._owners)
        for owner, address in addresses(spec):
            machine = machine_of(address)
            if owners.setdefault(machine, owner) != owner and not self._shared:
                raise UsageError(
                    f"owners {owners[machine]!r} and {owner!r} both have workers on {machine}: whoever runs "
                    "it could add up two shares. Name workers of different owners; for a trial "
                    "unsafe_one_owner=True"
                )
        self._owners = owners


def machine_of(address: str) -> str:
    """The machine that a worker runs on. Processes and devices of this one have one owner."""
    return _HERE if _OURS.fullmatch(address) else address.rsplit(":", 1)[0].lower()


def addresses(spec: OwnersSpec) -> Iterator[tuple[str, str]]:
    """Owner and address of every worker that is given by one. Worker objects are their caller's business."""
    for owner, own in spec.items():
        for each in own if isinstance(own, Sequence) and not isinstance(own, str) else [own]:
            if isinstance(each, str):
                yield owner, each
