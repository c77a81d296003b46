"""What two masters alone know, under the TLS that carries it: agreed on with keys that evidence vouches for.

    z = X25519(own private key, the other's public key)                                        RFC 7748
    keys = HKDF-SHA-256(z, salt = SHA-256(dialler's key || the other's), info = context)        RFC 5869
    piece = AES-256-GCM(key, counter, bytes, header of the piece as associated data)

The key of a TLS certificate is made outside and lies in a file, so it vouches for whoever has the file. These
keys are made in the measured process, are in its evidence and nowhere else: who took a certificate's key and
stands between two masters passes on ciphertext.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, final

import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from tempo.errors import ProtocolError
from tempo.kernels import Hidden
from tempo.wire.frame import as_bytes

PUBLIC_BYTES: Final = 32
TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32


@final
class Agreement(Hidden):
    """One end's half, for one connection."""

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def with_other(self, other: bytes, *, dials: bool, context: bytes) -> Shared:
        """Raises ProtocolError for a public key that gives a secret anybody knows."""
        try:
            z = self._private.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise ProtocolError("a master sent a public key that is none") from None
        both = self.public + other if dials else other + self.public
        salt = hashlib.sha256(both).digest()
        raw = HKDF(SHA256(), 3 * _KEY_BYTES, salt, b"tempo masters 1\0" + context).derive(z)
        return Shared(*(raw[i : i + _KEY_BYTES] for i in range(0, len(raw), _KEY_BYTES)))


@final
class Shared(Hidden):
    """What both ends know now: keys for pieces, which travel from the dialler to the other, and two words by
    which each shows that it knows them."""

    __slots__ = ("_gcm", "_opened", "_sealed", "dialler", "other")

    def __init__(self, pieces: bytes, dialler: bytes, other: bytes) -> None:
        self._gcm = AESGCM(pieces)
        self.dialler = hmac.digest(dialler, b"welcome", "sha256")
        self.other = hmac.digest(other, b"welcome", "sha256")
        self._sealed = 0
        self._opened = 0

    def seal(self, tensor: Tensor, header: bytes) -> Tensor:
        """uint8: the bytes of a contiguous tensor, sealed as the next piece."""
        sealed = torch.empty(tensor.nbytes + TAG_BYTES, dtype=torch.uint8)
        self._gcm.encrypt_into(self._nonce(self._sealed), as_bytes(tensor), header, as_bytes(sealed))
        self._sealed += 1
        return sealed

    def open(self, sealed: Tensor, header: bytes, tensor: Tensor) -> None:
        """Into a contiguous tensor. Raises ProtocolError for what is not the next piece of the other end."""
        room = tensor if tensor.numel() else torch.empty(0, dtype=torch.uint8)
        try:
            self._gcm.decrypt_into(self._nonce(self._opened), as_bytes(sealed), header, as_bytes(room))
        except InvalidTag:
            raise ProtocolError("a piece was not sealed by the master that was attested") from None
        self._opened += 1

    @staticmethod
    def _nonce(count: int) -> bytes:
        # One key for one direction of one connection, and a number for each piece: never twice.
        return count.to_bytes(12, "big")
