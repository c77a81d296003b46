"""Signed checkpoints: C2SP tlog-checkpoint in a C2SP signed note, Ed25519 (RFC 8032).

    <origin>
    <number of entries, decimal>
    <root, base64>
                                                                 (a blank line)
    — <name> base64(key id || signature)                         over the lines above the blank one

    key id        = SHA-256(name || 0x0A || 0x01 || public key)[:4]
    verifier key  = name+hex(key id)+base64(0x01 || public key)

Any tool for these formats reads them. The name of the key is the origin of its log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tempo.errors import TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger.merkle import HASH_BYTES

_ED25519: Final = b"\x01"
_DASH: Final = "\u2014"
#: A checkpoint that is longer is none.
MAX_NOTE_BYTES: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log as it stood at `size` entries."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def _check_name(name: str) -> str:
    if not name or len(name) > 200 or any(c.isspace() or c == "+" or not c.isprintable() for c in name):
        raise UsageError(
            f"a log is named by 1 to 200 printable characters without spaces and +, not {name!r}"
        )
    return name


@final
class Signer(Hidden):
    """Signs checkpoints of the log `name`. Holds the private key; is neither printed nor pickled."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = _check_name(name)
        self._key = key

    @classmethod
    def generate(cls, name: str) -> Signer:
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, name: str, pem: bytes, password: bytes | None = None) -> Signer:
        """From PKCS #8. Raises UsageError where it is no Ed25519 key or the password is wrong."""
        try:
            key = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError) as error:
            raise UsageError("the log's key is no PKCS #8 PEM, or its password is wrong") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("the log's key is not Ed25519")
        return cls(name, key)

    def to_pem(self, password: bytes) -> bytes:
        """PKCS #8, encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self._key.public_key())

    def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note."""
        signature = self._key.sign(checkpoint.text.encode())
        blob = base64.b64encode(self.verifier.key_id + signature).decode()
        return f"{checkpoint.text}\n{_DASH} {self.name} {blob}\n"


@final
class VerifierKey:
    """The public half: all that whoever checks a log needs."""

    def __init__(self, name: str, key: Ed25519PublicKey) -> None:
        self.name = _check_name(name)
        self._key = key

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(f"{self.name}\n".encode() + _ED25519 + self._key.public_bytes_raw()).digest()[
            :4
        ]

    def __str__(self) -> str:
        blob = base64.b64encode(_ED25519 + self._key.public_bytes_raw()).decode()
        return f"{self.name}+{self.key_id.hex()}+{blob}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """From name+id+key. Raises UsageError."""
        try:
            name, key_id, blob = text.strip().split("+", 2)
            raw = base64.b64decode(blob, validate=True)
            if raw[:1] != _ED25519:
                raise ValueError("not Ed25519")
            key = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        except (ValueError, binascii.Error) as error:
            raise UsageError("a log's public key reads name+id+key, with an Ed25519 key in base64") from error
        if key.key_id.hex() != key_id:
            raise UsageError(f"the public key of {name} does not match its id {key_id}: was it cut?")
        return key

    def open(self, note: str) -> Checkpoint:
        """The checkpoint of a signed note. Raises TamperedError unless this key signed it."""
        if len(note.encode()) > MAX_NOTE_BYTES:
            raise TamperedError("the checkpoint is longer than any that this log signs")
        text, blank, signatures = note.rpartition("\n\n")
        if not blank:
            raise TamperedError("the checkpoint is no signed note: it has no signature")
        text += "\n"
        for line in signatures.splitlines():
            parts = line.split(" ")
            if len(parts) == 3 and parts[0] == _DASH and parts[1] == self.name:
                self._check(text, parts[2])
                return self._parse(text)
        raise TamperedError(f"the checkpoint is not signed by {self.name}")

    def _check(self, text: str, blob: str) -> None:
        try:
            raw = base64.b64decode(blob, validate=True)
            if raw[:4] != self.key_id:
                raise TamperedError(f"the checkpoint names another key of {self.name}: was it replaced?")
            self._key.verify(raw[4:], text.encode())
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise TamperedError(f"the signature of {self.name} does not fit the checkpoint") from error

    def _parse(self, text: str) -> Checkpoint:
        lines = text.splitlines()
        try:
            origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
            number = int(size)
        except (IndexError, ValueError, binascii.Error) as error:
            raise TamperedError("the signed text is no checkpoint") from error
        if origin != self.name or str(number) != size or number < 0 or len(root) != HASH_BYTES:
            raise TamperedError(f"the signed text is no checkpoint of the log {self.name}")
        return Checkpoint(origin, number, root)
