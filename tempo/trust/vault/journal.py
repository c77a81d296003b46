"""The vault's audit log: every change and every release or refusal is in it before anybody is told.

One process holds the log at a time: `serve` for as long as it runs, else the command that changes something.
Changes go through the database: a change and its entry are one transaction there, and whoever holds the log
moves the entry into it, in order and once. A command is done when that has happened. So a process that is
killed anywhere leaves either no change, or one that the log gets from the next process that holds it.

    change committed -> entry in the log -> entry removed from the database -> acknowledged
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, final

import msgspec

from tempo.errors import TamperedError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger import Kind, Ledger, Signer, Value
from tempo.trust.vault.database import Database
from tempo.trust.vault.state import State

#: Field of an entry that says which change it records.
CHANGE: Final = "change"
#: Seals of the states before and after it: they make a chain, which an older database does not continue.
BEFORE: Final = "before"
AFTER: Final = "after"


@final
class Journal(Hidden):
    """Holds the log. Thread-safe."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._db = database
        self._gate = threading.RLock()
        changes = [e.fields for e in ledger.entries() if e.kind is Kind.KEY_CHANGED]
        self._through, self._seal = 0, database.seal_of(State())
        if changes:
            self._through, self._seal = int(str(changes[-1][CHANGE])), str(changes[-1][AFTER])
        self.drain()

    @classmethod
    def open(cls, folder: Path, signer: Signer, database: Database) -> Journal:
        """Raises UsageError while another process holds it, TamperedError where log and database disagree."""
        ledger = Ledger.open(folder, signer)
        try:
            return cls(ledger, database)
        except BaseException:
            ledger.close()
            raise

    def drain(self) -> None:
        """Enter the changes that are committed and not in the log yet."""
        with self._gate:
            newest, seal, waiting = self._db.head()
            if newest < self._through:
                self._taken_back(newest)
            if newest == self._through and not waiting:
                if seal != self._seal:
                    self._taken_back(newest)
                return
            for change, line in self._db.events(self._through):
                fields = unpack(line)
                if fields[BEFORE] != self._seal:
                    self._taken_back(change)
                self._ledger.append(Kind.KEY_CHANGED, **{**fields, CHANGE: change})
                self._through, self._seal = change, fields[AFTER]
            if seal != self._seal and newest == self._through:
                self._taken_back(newest)
            self._db.logged(self._through)

    def _taken_back(self, newest: int) -> NoReturn:
        raise TamperedError(
            f"the vault's database, at change {newest}, does not go on from what its audit log has, up to "
            f"{self._through}: the database was taken back to an older state. Restore the newest one"
        )

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Within: every acknowledged change is visible, and none is acknowledged."""
        with self._gate:
            self.drain()
            yield

    def append(self, kind: Kind, **fields: Value) -> None:
        """Raises OutsideError where the log cannot be written: then nobody may be told."""
        self._ledger.append(kind, **fields)

    def close(self) -> None:
        """May be called again."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def line(fields: dict[str, Value], before: str, after: str) -> bytes:
    """What the database keeps for the log. before, after: seals."""
    return pack({**fields, BEFORE: before, AFTER: after})


def pack(fields: dict[str, Value]) -> bytes:
    return msgspec.json.encode(fields)


def unpack(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(line)
    return found
