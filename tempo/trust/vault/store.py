"""The vault's folder, and all that is done in it: keys added, granted, rotated, revoked.

    DIR/root.json    the root key, sealed with a passphrase; or the name of one in a PKCS #11 token
    DIR/vault.db     keys, wrapped; grants; policies (and vault.db-wal, vault.db-shm beside it)
    DIR/log/         the audit log
    DIR/log.pub      its public key, for auditors

Each change is on disk, sealed and in the audit log when its method returns.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tempo.errors import OutsideError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger import Ledger, Signer, Value
from tempo.trust.sealed import DataKey
from tempo.trust.vault.database import Database
from tempo.trust.vault.journal import Journal, line
from tempo.trust.vault.protocol import NAME
from tempo.trust.vault.root import KEY_BYTES, RootKey, write_new
from tempo.trust.vault.state import MAX_POLICY_BYTES, Grant, Key, Policy, State

Clock = Callable[[], datetime]
Change = Callable[[State, int], tuple[State, dict[str, Value]]]

DATABASE: Final = "vault.db"
LOG: Final = "log"
LOG_PUBLIC: Final = "log.pub"
_STATE_KEY: Final = b"tempo vault state key 1"
_LOG_KEY: Final = b"tempo vault log key 1"
_SETTLE_S: Final = 60.0
_POLL_S: Final = 0.02


def utc_now() -> datetime:
    return datetime.now(UTC)


def about_key(name: str, version: int) -> bytes:
    """What a wrapped data key is bound to: moved to another name or version it does not open."""
    return b"tempo vault data key 1\0" + name.encode() + b"\0" + str(version).encode()


@final
class Store(Hidden):
    """Thread-safe. Made by `create` or `open`; `close` forgets the root key."""

    def __init__(self, folder: Path, database: Database, root: RootKey, clock: Clock) -> None:
        self._folder = folder
        self._db = database
        self._root = root
        self._clock = clock
        database.seal_with(root.unwrap(database.meta("state_key"), _STATE_KEY))
        raw = root.unwrap(database.meta("log_key"), _LOG_KEY)
        self._signer = Signer(database.meta("name").decode(), Ed25519PrivateKey.from_private_bytes(raw))
        database.state()  # is it ours, and whole?

    @classmethod
    def create(cls, folder: Path, name: str, root: RootKey, clock: Clock = utc_now) -> Store:
        """An empty vault. The folder is there, with what the root key left in it. name: of the audit log.

        Raises UsageError where there is a vault already.
        """
        key, state_key = Ed25519PrivateKey.generate(), os.urandom(KEY_BYTES)
        signer = Signer(name, key)
        write_new(folder / LOG_PUBLIC, f"{signer.verifier}\n".encode())
        Ledger.create(folder / LOG, signer, clock).close()
        wrapped = {
            "name": name.encode(),
            "state_key": root.wrap(state_key, _STATE_KEY),
            "log_key": root.wrap(key.private_bytes_raw(), _LOG_KEY),
        }
        return cls(folder, Database.create(folder / DATABASE, wrapped, state_key), root, clock)

    @classmethod
    def open(cls, folder: Path, root: RootKey, clock: Clock = utc_now) -> Store:
        """Raises UsageError where there is none, TamperedError where it is not as it was written, or the root
        key is another's."""
        database = Database.open(folder / DATABASE)
        try:
            return cls(folder, database, root, clock)
        except BaseException:
            database.close()
            raise

    @property
    def name(self) -> str:
        return self._signer.name

    def now(self) -> int:
        return int(self._clock().timestamp())

    def state(self) -> State:
        """As it is on disk now, changes of other processes included."""
        return self._db.state()

    def journal(self) -> Journal:
        """The audit log, held until it is closed. Raises UsageError while another process holds it."""
        return Journal.open(self._folder / LOG, self._signer, self._db)

    def add(self, name: str, key: DataKey, expires: int | None = None) -> Key:
        """The first version of a new name. Raises UsageError where there is one: rotate it."""

        def change(state: State, now: int) -> tuple[State, dict[str, Value]]:
            if state.versions(name):
                raise UsageError(f"there is a key {name} already: tempo vault rotate gives it a new version")
            return self._with_version(state, name, 1, key, now, expires, "added")

        self._change(change)
        return self._key(name, 1)

    def rotate(self, name: str, key: DataKey, expires: int | None = None) -> Key:
        """A new version, which is the newest from now on. Older ones stay, for data that was sealed with
        them, until they expire or are revoked."""

        def change(state: State, now: int) -> tuple[State, dict[str, Value]]:
            return self._with_version(state, name, _last(state, name) + 1, key, now, expires, "rotated")

        self._change(change)
        return self.state().versions(name)[-1]

    def grant(
        self,
        name: str,
        policy: bytes,
        client: str | None = None,
        expires: int | None = None,
        signer: str | None = None,
    ) -> Grant:
        """Machines that satisfy `policy` may have the key, all its versions. The policy was looked at before:
        to the store it is a text. signer: who signed it, for the log."""
        if not 0 < len(policy) <= MAX_POLICY_BYTES:
            raise UsageError(f"a policy has 1 to {MAX_POLICY_BYTES} bytes, not {len(policy)}")
        if client is not None:
            check_name(client)
        digest = hashlib.sha256(policy).hexdigest()
        made: list[Grant] = []

        def change(state: State, now: int) -> tuple[State, dict[str, Value]]:
            _last(state, name)
            _check_ahead(expires, now)
            number = max((g.number for g in state.grants), default=0) + 1
            made.append(Grant(number, name, digest, client, now, expires, None))
            fields: dict[str, Value] = {"action": "granted", "key": name, "grant": number, "policy": digest}
            fields |= {"client": client, "expires": expires, "signer": signer}
            return state.with_policy(Policy(digest, policy)).with_grant(made[-1]), fields

        self._change(change)
        return made[-1]

    def revoke(self, name: str, version: int | None = None) -> list[Key]:
        """One version, or all: never released again. Those that were revoked before stay so."""

        def change(state: State, now: int) -> tuple[State, dict[str, Value]]:
            _last(state, name)
            wanted = [k for k in state.versions(name) if version in (None, k.version)]
            if not wanted:
                raise UsageError(f"the key {name} has no version {version}")
            for key in wanted:
                if key.revoked is None:
                    state = state.with_key(msgspec.structs.replace(key, revoked=now))
            versions: list[str | int | float | bool | None] = [k.version for k in wanted]
            return state, {"action": "revoked", "key": name, "versions": versions}

        self._change(change)
        return [k for k in self.state().versions(name) if version in (None, k.version)]

    def revoke_grant(self, number: int) -> Grant:
        """Raises UsageError where there is none."""

        def change(state: State, now: int) -> tuple[State, dict[str, Value]]:
            grant = state.grant(number)
            if grant.revoked is None:
                state = state.with_grant(msgspec.structs.replace(grant, revoked=now))
            return state, {"action": "grant_revoked", "key": grant.key, "grant": number}

        self._change(change)
        return self.state().grant(number)

    def note(self, action: str, **fields: Value) -> None:
        """Enter what was done with keys without changing any, in its place among the changes. Returns once
        the audit log has it, as every change does."""
        self._change(lambda state, now: (state, {"action": action, **fields}))

    def unwrap(self, key: Key) -> DataKey:
        """The key itself, for a release. Raises TamperedError."""
        return DataKey(self._root.unwrap(key.wrapped, about_key(key.name, key.version)))

    def close(self) -> None:
        """May be called again."""
        self._db.close()
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _key(self, name: str, version: int) -> Key:
        key = self.state().key(name, version)
        if key is None:
            raise AssertionError("a key that was just written")
        return key

    def _with_version(
        self, state: State, name: str, version: int, key: DataKey, now: int, expires: int | None, action: str
    ) -> tuple[State, dict[str, Value]]:
        check_name(name)
        _check_ahead(expires, now)
        if any(k.id == key.name for k in state.keys):
            raise UsageError(f"the vault holds this very key already (id {key.name})")
        wrapped = self._root.wrap(key.unsafe_bytes(), about_key(name, version))
        fields: dict[str, Value] = {"action": action, "key": name, "version": version, "key_id": key.name}
        fields["expires"] = expires
        return state.with_key(Key(name, version, key.name, now, expires, None, wrapped)), fields

    def _change(self, change: Change) -> None:
        with self._db.writing():
            before = self._db.state()
            after, fields = change(before, self.now())
            after = msgspec.structs.replace(after, change=before.change + 1)
            seals = self._db.seal_of(before), self._db.seal_of(after)
            self._db.save(before, after, line(fields, *seals))
        self._settle(after.change)

    def _settle(self, change: int) -> None:
        """Return once the audit log has it, by our hand or by that of the process that holds the log."""
        until = time.monotonic() + _SETTLE_S
        while self._db.pending(change):
            try:
                self.journal().close()
            except UsageError:  # another process holds the log
                if time.monotonic() > until:
                    raise OutsideError(
                        f"change {change} is in the vault, but the process that holds its audit log did not "
                        "enter it: look at that process; the entry is made when the log is next opened"
                    ) from None
                time.sleep(_POLL_S)


def check_name(name: str) -> str:
    """Raises UsageError for what is no name of a key or client."""
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r}: a name has 1 to 63 letters, digits, dots, dashes, underscores")
    return name


def _last(state: State, name: str) -> int:
    versions = state.versions(name)
    if not versions:
        raise UsageError(f"there is no key {name}: tempo vault add makes one")
    return versions[-1].version


def _check_ahead(expires: int | None, now: int) -> None:
    if expires is not None and expires <= now:
        raise UsageError("it would have expired already: name a time that is still to come")
