"""The vault's embedded database: the state in tables, what is to be logged beside it, in one transaction.

    meta      name -> bytes: format, name of the vault, two wrapped secrets, number of the last change, seal
    keys, policies, grants   as in state.py
    events    change -> entry for the audit log, until the log has it

    seal  = HMAC-SHA256(state key, state in canonical JSON)          of all rows together
    event = line of JSON, HMAC-SHA256(state key, "event" || change || line)

The state key is wrapped under the root key. So whoever can write to the file, but has no root key, cannot
grant, un-revoke, exchange or remove a thing: a state is one that the vault wrote, whole. An older whole state
is told by the audit log, which has seen a later change.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import msgspec

from tempo.errors import DataError, OutsideError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.vault.state import Grant, Key, Policy, State

FORMAT: Final = b"tempo vault 1"
_BUSY_S: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE keys (name TEXT, version INTEGER, id TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER,
    revoked INTEGER, wrapped BLOB NOT NULL, PRIMARY KEY (name, version)) STRICT;
CREATE TABLE policies (digest TEXT PRIMARY KEY, text BLOB NOT NULL) STRICT;
CREATE TABLE grants (number INTEGER PRIMARY KEY, key TEXT NOT NULL, policy TEXT NOT NULL, client TEXT,
    created INTEGER NOT NULL, expires INTEGER, revoked INTEGER) STRICT;
CREATE TABLE events (change INTEGER PRIMARY KEY, line BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
"""


@final
class Database(Hidden):
    """Thread-safe; several processes may have it open. `seal_with` comes before state and events."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._state_key = b""
        self._cached: tuple[int, State] | None = None
        self._newest = 0  # change that was seen
        with self._errors():
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
                self._db.execute(f"PRAGMA {pragma}")

    @classmethod
    def create(cls, path: Path, meta: dict[str, bytes], state_key: bytes) -> Database:
        """A new one, with an empty state. Raises UsageError where the path exists."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # its journals get this mode
        except FileExistsError:
            raise UsageError(f"{path} exists: there is a vault already") from None
        except OSError as error:
            raise OutsideError(f"{path} cannot be written ({error.strerror})") from error
        made = cls(path)
        made.seal_with(state_key)
        with made._errors():
            made._db.executescript(_SCHEMA)
            with made.writing():
                for name, value in {"format": FORMAT, **meta}.items():
                    made._put("meta", (name, value))
                made._save_head(State())
        return made

    @classmethod
    def open(cls, path: Path) -> Database:
        """Raises UsageError where there is none, DataError for another version."""
        if not path.is_file():
            raise UsageError(f"there is no vault in {path.parent}: tempo vault init {path.parent}")
        found = cls(path)
        if found.meta("format") != FORMAT:
            raise DataError(f"{path} is no vault of this version: expected {FORMAT.decode()}")
        return found

    def meta(self, name: str) -> bytes:
        with self._errors():
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise TamperedError(f"the vault's database lacks its {name.replace('_', ' ')}")
        return row[0]

    def seal_with(self, state_key: bytes) -> None:
        self._state_key = state_key

    def state(self) -> State:
        """As it is on disk now. Raises TamperedError where the vault did not write it so, or it went back."""
        with self._errors():
            (seen,) = self._db.execute("PRAGMA data_version").fetchone()  # moves when others write
            if self._cached is not None and self._cached[0] == seen:
                return self._cached[1]
            state = self._load()
            if state.change < self._newest:
                raise TamperedError("the vault's database was taken back to an older state while it was open")
            self._cached, self._newest = (seen, state), state.change
            return state

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction, of this process alone: on disk when the block is left, or undone."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._cached = None
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def save(self, before: State, after: State, line: bytes) -> None:
        """Within `writing`: the rows that differ, and the entry that the audit log is to have of it."""
        for key in set(after.keys) - set(before.keys):
            self._put("keys", msgspec.structs.astuple(key))
        for policy in set(after.policies) - set(before.policies):
            self._put("policies", msgspec.structs.astuple(policy))
        for grant in set(after.grants) - set(before.grants):
            self._put("grants", msgspec.structs.astuple(grant))
        self._put("events", (after.change, line, self._event_mac(after.change, line)))
        self._save_head(after)
        self._cached = None

    def events(self, after: int) -> list[tuple[int, bytes]]:
        """Entries that the log has not got, by their change, oldest first: all changes since `after`."""
        with self._errors(), self._reading():
            rows = self._db.execute("SELECT change, line, mac FROM events ORDER BY change").fetchall()
            newest = self.newest()
        found = []
        for change, line, mac in rows:
            if not hmac.compare_digest(mac, self._event_mac(change, line)):
                raise TamperedError(f"the record of change {change} was altered in the vault's database")
            if change > after:
                found.append((change, line))
        if [change for change, _ in found] != list(range(after + 1, newest + 1)):
            raise TamperedError(
                f"the vault's database has changes up to {newest}, its audit log up to {after}, and the "
                "records between them are not all there: one of the two was altered or taken back"
            )
        return found

    def newest(self) -> int:
        """Number of the last change."""
        return int.from_bytes(self.meta("change"), "big")

    def pending(self, change: int) -> bool:
        """Whether the log has not got it yet."""
        with self._errors():
            found = self._db.execute("SELECT 1 FROM events WHERE change = ?", (change,)).fetchone()
        return found is not None

    def head(self) -> tuple[int, str, bool]:
        """Number of the last change, its seal, and whether there is anything that the log has not got yet."""
        with self._errors(), self._reading():
            waiting = self._db.execute("SELECT 1 FROM events LIMIT 1").fetchone() is not None
            return self.newest(), self.meta("seal").hex(), waiting

    def seal_of(self, state: State) -> str:
        """Hex."""
        return self._seal(state).hex()

    def logged(self, change: int) -> None:
        """The log has everything up to this change."""
        with self.writing():
            self._db.execute("DELETE FROM events WHERE change <= ?", (change,))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _load(self) -> State:
        with self._reading():
            state = State(
                self.newest(),
                tuple(self._rows(Key, "keys ORDER BY name, version")),
                tuple(self._rows(Grant, "grants ORDER BY number")),
                tuple(self._rows(Policy, "policies ORDER BY digest")),
            )
            seal = self.meta("seal")
        if not hmac.compare_digest(seal, self._seal(state)):
            raise TamperedError(
                "the vault's database is not as the vault wrote it: restore its folder from a backup"
            )
        return state

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One view of all tables."""
        own = not self._db.in_transaction
        if own:
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            if own:
                self._db.execute("COMMIT")

    def _rows(self, kind: type[Any], what: str) -> Iterator[Any]:
        columns = ", ".join(kind.__struct_fields__)
        for row in self._db.execute(f"SELECT {columns} FROM {what}"):  # noqa: S608 (names of ours)
            yield kind(*row)

    def _put(self, table: str, row: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608 (as above)

    def _save_head(self, state: State) -> None:
        self._put("meta", ("change", state.change.to_bytes(8, "big")))
        self._put("meta", ("seal", self._seal(state)))

    def _seal(self, state: State) -> bytes:
        ordered = State(
            state.change,
            tuple(sorted(state.keys, key=lambda k: (k.name, k.version))),
            tuple(sorted(state.grants, key=lambda g: g.number)),
            tuple(sorted(state.policies, key=lambda p: p.digest)),
        )
        return self._mac(b"state" + msgspec.json.encode(ordered, order="deterministic"))

    def _event_mac(self, change: int, line: bytes) -> bytes:
        return self._mac(b"event" + change.to_bytes(8, "big") + line)

    def _mac(self, data: bytes) -> bytes:
        if not self._state_key:
            raise UsageError("the vault is not open: its root key comes first")
        return hmac.new(self._state_key, data, hashlib.sha256).digest()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                what = getattr(error, "sqlite_errorname", type(error).__name__)
                raise OutsideError(
                    f"the vault's database {self._path} cannot be used ({what}): is the disk full, or the "
                    "file damaged?"
                ) from None
