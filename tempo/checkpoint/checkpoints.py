"""Checkpoints of one session: its counters and the standing of its workers go with the user's state."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from tempo.checkpoint.checkpoint import Resumed, read, write
from tempo.errors import TamperedError
from tempo.fleet import Fleet, Standing
from tempo.sharing import Owners
from tempo.stats import Stats
from tempo.trust.ledger import SessionLog
from tempo.trust.sealed import DataKey, Expected, OwnerKey, Recipient


@final
class Checkpoints:
    """See `Session.checkpoint` and `Session.resume`."""

    def __init__(self, stats: Stats, fleet: Fleet | Owners, log: SessionLog | None) -> None:
        self._stats = stats
        self._fleet = fleet
        self._log = log
        # Tells a checkpoint of this very session, whose counts are in its own already. No secret.
        self._id = secrets.token_hex(8)

    def write(self, path: Path, key: DataKey | Recipient, step: int, parts: Mapping[str, Any]) -> None:
        state = {
            "id": self._id,
            "counts": self._stats.counts,
            "seconds": self._stats.seconds,
            "workers": {n: [s.relapses, s.quarantine_s] for n, s in self._fleet.standing.items()},
        }
        stateful = {name: part for name, part in parts.items() if name != "extra"}
        extra = parts.get("extra")
        write(path, key, name=path.name, step=step, parts=stateful, session=state, extra=extra)
        if self._log is not None:
            self._log.checkpoint(path.name, step)

    def resume(self, path: Path, key: DataKey | OwnerKey, parts: Mapping[str, Any]) -> Resumed | None:
        least = 0 if self._log is None else self._log.newest_checkpoint(path.name)
        if not path.exists():
            if least:
                raise TamperedError(f"the audit log knows step {least} of {path.name!r}, but {path} is gone")
            return None
        found = read(path, key, parts=parts, expected=Expected(path.name, least))
        if found.session.get("id") != self._id:
            self._stats.go_on_from(found.session["counts"], found.session["seconds"])
        self._fleet.restore({n: Standing(*held) for n, held in found.session["workers"].items()})
        if self._log is not None:
            self._log.resumed(path.name, found.step)
        return found
