"""Keys of sealed files.

    DataKey     32 bytes that seal and open (AES-256-GCM through HKDF-SHA256, RFC 5869)
    Recipient   a public key: what is sealed to it, its sealer cannot open again
    OwnerKey    the private half, which stays in-house

Public keys are hybrid, ML-KEM-768 with X25519, through HPKE (RFC 9180): what is stored in the cloud today may
be attacked for as long as it is secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tempo.errors import OutsideError, TamperedError, UsageError
from tempo.kernels.hidden import Hidden

KEY_BYTES: Final = 32
_SEED_BYTES: Final = 64
_KEM_PUBLIC_BYTES: Final = 1184
_INFO: Final = b"tempo sealed file 1"


def _suite() -> hpke.Suite:
    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _name(kind: str, raw: bytes) -> str:
    """Says which key is which; tells nothing about it."""
    return hashlib.sha256(b"tempo key name " + kind.encode() + raw).hexdigest()[:16]


def save_key_file(path: Path, kind: str, raw: bytes) -> None:
    """One line, kind and base64, in a new file that its owner alone may read."""
    text = f"{kind} {base64.b64encode(raw).decode()}\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists: a key is never overwritten. Name another file") from None
    except OSError as error:
        raise OutsideError(f"{path} cannot be written ({error.strerror})") from error
    with os.fdopen(fd, "w") as file:
        file.write(text)


def load_key_file(path: Path, kind: str, length: int) -> bytes:
    """What `save_key_file` wrote. Raises UsageError for another kind or length."""
    try:
        found, text = path.read_text().split()
        raw = base64.b64decode(text, validate=True)
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read ({error.strerror})") from error
    except (ValueError, binascii.Error):
        raise UsageError(f"{path} is no key file: expected one line, {kind!r} and base64") from None
    if found != kind or len(raw) != length:
        raise UsageError(f"{path} holds {found!r}, expected {kind!r}")
    return raw


@final
class DataKey(Hidden):
    """Seals and opens. Never printed or pickled."""

    KIND: Final = "tempo-data-key-1"

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise UsageError(f"a data key has {KEY_BYTES} bytes, not {len(raw)}")
        self._raw = raw

    @classmethod
    def generate(cls) -> DataKey:
        return cls(os.urandom(KEY_BYTES))

    @property
    def name(self) -> str:
        return _name("data", self._raw)

    def save(self, path: Path) -> None:
        """To a new file that its owner alone may read, in the clear: for a machine in-house, or on its way
        into a vault."""
        save_key_file(path, self.KIND, self._raw)

    @classmethod
    def load(cls, path: Path) -> DataKey:
        """Raises UsageError for what is no data key."""
        return cls(load_key_file(path, cls.KIND, KEY_BYTES))

    def unsafe_bytes(self) -> bytes:
        """The key itself."""
        return self._raw


@final
class Recipient:
    """A public key that files are sealed to."""

    KIND: Final = "tempo-recipient-1"

    def __init__(self, raw: bytes) -> None:
        if len(raw) != _KEM_PUBLIC_BYTES + KEY_BYTES:
            raise UsageError(f"a recipient's key has {_KEM_PUBLIC_BYTES + KEY_BYTES} bytes, not {len(raw)}")
        self._raw = raw
        kem = MLKEM768PublicKey.from_public_bytes(raw[:_KEM_PUBLIC_BYTES])
        self._key = hpke.MLKEM768X25519PublicKey(
            kem, X25519PublicKey.from_public_bytes(raw[_KEM_PUBLIC_BYTES:])
        )

    @property
    def name(self) -> str:
        return _name("recipient", self._raw)

    def save(self, path: Path) -> None:
        save_key_file(path, self.KIND, self._raw)

    @classmethod
    def load(cls, path: Path) -> Recipient:
        """Raises UsageError."""
        return cls(load_key_file(path, cls.KIND, _KEM_PUBLIC_BYTES + KEY_BYTES))

    @property
    def public_bytes(self) -> bytes:
        """ML-KEM-768's, then X25519's."""
        return self._raw

    def wrap(self, key: DataKey, info: bytes = _INFO) -> bytes:
        """A key, for whoever holds the private half. info: what it is for; it opens for nothing else."""
        return _suite().encrypt(key.unsafe_bytes(), self._key, info)


@final
class OwnerKey(Hidden):
    """The private half of a recipient."""

    KIND: Final = "tempo-owner-key-1"

    def __init__(self, raw: bytes) -> None:
        if len(raw) != _SEED_BYTES + KEY_BYTES:
            raise UsageError(f"an owner's key has {_SEED_BYTES + KEY_BYTES} bytes, not {len(raw)}")
        self._raw = raw
        self._kem = MLKEM768PrivateKey.from_seed_bytes(raw[:_SEED_BYTES])
        self._ecdh = X25519PrivateKey.from_private_bytes(raw[_SEED_BYTES:])

    @classmethod
    def generate(cls) -> OwnerKey:
        return cls(os.urandom(_SEED_BYTES + KEY_BYTES))

    @property
    def recipient(self) -> Recipient:
        kem, ecdh = self._kem.public_key(), self._ecdh.public_key()
        return Recipient(kem.public_bytes_raw() + ecdh.public_bytes_raw())

    @property
    def name(self) -> str:
        return self.recipient.name

    def save(self, path: Path) -> None:
        """As `DataKey.save`."""
        save_key_file(path, self.KIND, self._raw)

    @classmethod
    def load(cls, path: Path) -> OwnerKey:
        """Raises UsageError."""
        return cls(load_key_file(path, cls.KIND, _SEED_BYTES + KEY_BYTES))

    def unwrap(self, wrapped: bytes, info: bytes = _INFO) -> DataKey:
        """Raises TamperedError where it was not wrapped for this key and `info`, or was altered."""
        try:
            raw = _suite().decrypt(wrapped, hpke.MLKEM768X25519PrivateKey(self._kem, self._ecdh), info)
        except (InvalidTag, ValueError) as error:
            raise TamperedError("a wrapped key is another owner's or for another use, or altered") from error
        return DataKey(raw)
