"""What a user writes for `workers=` under scheme `shares`: workers by owner, as fleets.

    {"alpha": ["a:7443"], "beta": ["b:7443"], "gamma": ["c:7443", "d:7443"]}

The scheme hides everything from any one owner, and nothing from two who pool what they have. So one machine
under two names is refused, and so are processes and devices of the master's own machine: they have one owner.
For trials and tests unsafe_one_owner allows both, and takes a plain list too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tempo.errors import UsageError
from tempo.fleet import TlsFiles, Worker, WorkerSpec, workers_from
from tempo.secrecy.shares import ADDITIVE, REPLICATED
from tempo.sharing.registry import OwnersSpec, Registry, addresses

_EXAMPLE = 'workers={"alpha": ["a:7443"], "beta": ["b:7443"], "gamma": ["c:7443"]}'
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def owners_from(
    spec: WorkerSpec | OwnersSpec, registry: Registry, *, tls: TlsFiles | None, unsafe_one_owner: bool
) -> dict[str, list[Worker]]:
    """Workers of each owner, local ones spawned, in the order of the shares.

    Raises UsageError where two shares would go to one owner, or owners are too few or too many.
    """
    if not isinstance(spec, Mapping):
        if not unsafe_one_owner:
            raise UsageError(
                "scheme 'shares' hides operands from workers of different owners, who must be named: "
                f"{_EXAMPLE}. For a trial on machines of one owner, who then sees everything: "
                "unsafe_one_owner=True"
            )
        return _spread(workers_from(spec, tls=tls))
    if len(spec) not in (ADDITIVE, REPLICATED):
        raise UsageError(
            f"scheme 'shares' takes {REPLICATED} owners of workers, or {ADDITIVE} where all weights that are "
            f"sent are public, not {len(spec)}: {_EXAMPLE}"
        )
    for name in spec:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"an owner's name is letters, digits, '.', '_' and '-', not {name!r}")
    registry.enter(spec)
    return _hired(spec, tls)


def _hired(spec: OwnersSpec, tls: TlsFiles | None) -> dict[str, list[Worker]]:
    local = sum(int(each.split(":")[1]) for _, each in addresses(spec) if each.startswith("local:"))
    threads = max(1, len(os.sched_getaffinity(0)) // local) if local else None
    workers: dict[str, list[Worker]] = {}
    try:
        for owner, own in spec.items():
            first = sum(map(len, workers.values()))
            workers[owner] = workers_from(own, threads=threads, tls=tls, first=first)
    except BaseException:
        for several in workers.values():
            for worker in several:
                worker.close()
        raise
    return workers


def _spread(workers: list[Worker]) -> dict[str, list[Worker]]:
    """Workers of one owner in as many groups as there are shares, in turn."""
    groups = min(len(workers), REPLICATED)
    if groups < ADDITIVE:
        for worker in workers:
            worker.close()
        raise UsageError(f"scheme 'shares' takes {REPLICATED} workers at least, such as workers='local:3'")
    return {f"group-{i}": workers[i::groups] for i in range(groups)}
