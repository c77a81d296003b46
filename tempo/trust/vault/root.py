"""The root key, under which a vault wraps all others, and the file in which it lies by default.

    root.json   {"tempo_vault_root": 1, "kind": "passphrase", "salt", "iterations", "lanes", "memory_kib",
                 "nonce", "sealed"}
    sealed    = AES-256-GCM(Argon2id(passphrase), root key), bound to all other fields

    wrapped   = nonce (12 random bytes) || AES-256-GCM(root key, secret), bound to `about`

Argon2id is RFC 9106, with its second recommended setting (64 MiB, 3 passes, 4 lanes). Nonces are random: a
vault wraps far less than the 2^32 secrets that one key allows (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Final, Literal, final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Meta, Struct

from tempo.errors import OutsideError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger.ledger import replace

ROOT_FILE: Final = "root.json"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
#: Shorter ones can be guessed by whoever has the file.
MIN_PASSPHRASE: Final = 12
_SALT_BYTES: Final = 16
_MAX_FILE: Final = 4096


class RootKey(Hidden):
    """Abstract. Wraps secrets of a vault; does not leave where it is kept."""

    @abstractmethod
    def wrap(self, secret: bytes, about: bytes) -> bytes:
        """Sealed, for `unwrap` with the same `about` alone."""

    @abstractmethod
    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """Raises TamperedError where it was wrapped otherwise, or altered."""

    def close(self) -> None:
        """End of use. May be called again."""
        return


@final
class WrapsHere(Hidden):
    """A root key in this process's memory: what the kinds of them that lie there have in common."""

    def __init__(self, raw: bytes) -> None:
        self._cipher = AESGCM(raw)

    def wrap(self, secret: bytes, about: bytes) -> bytes:
        """As RootKey.wrap."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """As RootKey.unwrap."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], about)
        except (InvalidTag, ValueError):
            raise NotWrappedHere from None


class _Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounded, so that an altered file cannot take all memory."""

    iterations: Annotated[int, Meta(ge=1, le=64)] = 3
    lanes: Annotated[int, Meta(ge=1, le=16)] = 4
    memory_kib: Annotated[int, Meta(ge=8192, le=4 << 20)] = 64 << 10


#: Of new root keys.
COST: Final = _Cost()


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    tempo_vault_root: Literal[1]
    kind: Literal["passphrase"]
    salt: Annotated[bytes, Meta(min_length=_SALT_BYTES, max_length=_SALT_BYTES)]
    cost: _Cost
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    sealed: Annotated[bytes, Meta(max_length=64)]


@final
class PassphraseRoot(RootKey):
    """In a file, sealed with a passphrase; in memory while the vault is open."""

    def __init__(self, raw: bytes) -> None:
        self._here = WrapsHere(raw)

    @classmethod
    def create(cls, path: Path, passphrase: bytes) -> PassphraseRoot:
        """A new root key in a new file. Raises UsageError for a passphrase that is too short, or where the
        file exists."""
        raw = AESGCM.generate_key(256)
        write_new(path, _sealed(raw, passphrase))
        return cls(raw)

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> PassphraseRoot:
        """Raises UsageError for another passphrase, or a file that is none (or was altered)."""
        return cls(_raw(path, passphrase))

    @staticmethod
    def change(path: Path, passphrase: bytes, new: bytes) -> None:
        """The same root key, under another passphrase; the file is the old one or the new one, never none.

        Copies of the old file still open with the old passphrase. Raises as `create` and `open` do, and
        UsageError where both passphrases are one.
        """
        raw = _raw(path, passphrase)
        if passphrase == new:
            raise UsageError("the new passphrase is the old one: take another")
        sealed = _sealed(raw, new)
        try:
            replace(path, sealed)
        except OSError as error:
            raise OutsideError(f"{path} cannot be written ({error.strerror})") from error

    def wrap(self, secret: bytes, about: bytes) -> bytes:
        return self._here.wrap(secret, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        return self._here.unwrap(wrapped, about)


class NotWrappedHere(TamperedError):
    """What every kind of root key says of a secret that it did not wrap so."""

    def __init__(self) -> None:
        super().__init__(
            "a secret in the vault was not wrapped under this root key, or was altered or moved: restore the "
            "vault's folder from a backup, root.json and database together"
        )


def _raw(path: Path, passphrase: bytes) -> bytes:
    try:
        found = msgspec.json.decode(read_small(path), type=_File)
    except (msgspec.MsgspecError, ValueError):
        raise UsageError(f"{path} holds no root key under a passphrase") from None
    try:
        return AESGCM(_stretch(found, passphrase)).decrypt(found.nonce, found.sealed, _bound(found))
    except (InvalidTag, ValueError):
        raise UsageError(f"the passphrase does not open {path}, or that file was altered") from None


def _sealed(raw: bytes, passphrase: bytes) -> bytes:
    """What the file holds. Raises UsageError for a passphrase that is too short."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(f"a passphrase has {MIN_PASSPHRASE} characters or more: take several words")
    nonce = os.urandom(NONCE_BYTES)
    empty = _File(1, "passphrase", os.urandom(_SALT_BYTES), COST, nonce, b"")
    sealed = AESGCM(_stretch(empty, passphrase)).encrypt(nonce, raw, _bound(empty))
    return msgspec.json.encode(msgspec.structs.replace(empty, sealed=sealed)) + b"\n"


def _stretch(file: _File, passphrase: bytes) -> bytes:
    cost = file.cost
    kdf = Argon2id(
        salt=file.salt,
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    return kdf.derive(passphrase)


def _bound(file: _File) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(file, sealed=b""), order="deterministic")


def read_small(path: Path) -> bytes:
    """Raises UsageError where it cannot be read, ValueError where it is too long."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): is this a vault's folder?") from error
    if len(data) > _MAX_FILE:
        raise ValueError("too long")
    return data


def write_new(path: Path, data: bytes) -> None:
    """A new file that its owner alone may read, on disk when it returns. Raises UsageError, OutsideError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"{path} exists: nothing was replaced. Name another folder") from None
    except OSError as error:
        raise OutsideError(f"{path} cannot be written ({error.strerror})") from error
