"""`join`: the one call between `torchrun` and an ordinary data-parallel script."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, final

import torch.distributed as dist

from tempo.errors import UnsupportedError, UsageError
from tempo.masters.attestation import Attestation
from tempo.masters.backend import MastersGroup, Traffic
from tempo.masters.messages import MAX_MASTERS
from tempo.masters.place import Place
from tempo.masters.ring import Ring
from tempo.wire import Endpoint, TlsFiles

_NAME: Final = "tempo"


def join(
    tls: TlsFiles,
    peer: TlsFiles,
    listen: str,
    attestation: Attestation,
    *,
    run: str = "",
    seconds: float = 600.0,
    **options: Any,
) -> None:
    """`torch.distributed.init_process_group` with the ring of masters in the place of gloo.

        tempo.masters.join(tls, peer, "tee-0.example:7500", Attested(ThisMachine(), "policy.toml"))
        model = DistributedDataParallel(session.protect(model))

    tls: this master's certificate (role master), which dials; peer: its certificate of the role peer, which
    is dialled under the host in `listen`. run: its name, the same for all masters of it and for no other run;
    torchrun's --rdzv-id by default. seconds: for joining and for each piece. options: of
    init_process_group (rank, world_size, init_method, store); without them torchrun's environment says all.

    The store of torchrun is plain TCP: only addresses go through it, and nobody is believed because of them.
    Raises UsageError, and of the ring RefusedError, TlsRefused, OutsideError.
    """
    endpoint = Endpoint.parse(listen)
    if not isinstance(attestation, Attestation):
        raise UsageError("say how masters attest each other: Attested(...), or UnsafeUnattested() for trials")
    name = run or os.environ.get("TORCHELASTIC_RUN_ID", "")
    if name in ("", "none"):
        raise UsageError(
            "two runs of one owner must not meet: give torchrun --rdzv-id NAME, or join(run=NAME)"
        )
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    if not hasattr(dist.Backend, _NAME.upper()):
        dist.Backend.register_backend(_NAME, _make, extended_api=True, devices=["cpu"])
    asked = _Asked(tls, peer, endpoint, attestation, name, seconds)
    dist.init_process_group(_NAME, timeout=timedelta(seconds=seconds), pg_options=asked, **options)


def traffic() -> Traffic:
    """What went between this master and its neighbours so far. Raises UsageError before `join`."""
    group = dist.group.WORLD
    if not isinstance(group, MastersGroup):
        raise UsageError("there is no ring of masters in this process: tempo.masters.join makes one")
    return group.traffic


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """What `join` was told, on its way through torch.distributed."""

    tls: TlsFiles
    peer: TlsFiles
    listen: Endpoint
    attestation: Attestation
    run: str
    seconds: float


def _make(found: Any, asked: _Asked | None) -> dist.ProcessGroup:
    """found: store, rank and size, as torch.distributed has them."""
    if asked is None:
        raise UnsupportedError("a process group of some of the masters", "use the group of all of them")
    store, rank, size = found.store, found.group_rank, found.group_size
    if not 2 <= size <= MAX_MASTERS:
        raise UsageError(f"a ring has 2 to {MAX_MASTERS} masters, not {size}: one needs no process group")
    ring = Ring.join(
        Place(asked.run, rank, size, asked.seconds),
        asked.tls,
        asked.peer,
        asked.listen,
        asked.attestation,
        publish=lambda text: store.set(f"tempo/{rank}", text),
        ask=lambda other: store.get(f"tempo/{other}").decode("ascii", "replace")[:300],
    )
    return MastersGroup(ring)
