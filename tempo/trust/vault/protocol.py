"""What a master and a vault can say to each other. One exchange for one key, then the connection ends.

    master to vault                             vault to master
    Ask(version, key, key_version)              Challenge(version, nonce, seconds) | Denied
    Attest(public_key, evidence)                Released(key_version, id, sealed) | Denied

    evidence   bound to nonce, public_key and `context(key, key_version)`
    sealed     the data key under HPKE (RFC 9180, ML-KEM-768 with X25519, HKDF-SHA256, AES-256-GCM) to
               public_key, with info = context || nonce

Rules, and the attack that each one blocks:
- A nonce belongs to one connection, is used once and for a short time: evidence of yesterday, of another
  session or given twice answers no question that was asked.
- The public key is in the evidence: whoever passes evidence on gets a key that only its maker can open.
- What is asked for is in the evidence and in the sealing: neither serves for another key or version.
- All sizes are capped before anything is decoded, and nothing but these messages is decoded.
- Neither side says free text. The vault says at which step it refused; what it found is in its own log.
- Unknown keys and keys without a grant are refused by the same words: nobody learns what there is.
- Ask and Denied keep their fields in every version, so that skew is told apart from an attack.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tempo.wire.messages import Message, decode_as

VERSION: Final = 1
#: Of keys and clients; certificates have the same rule.
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
STEP: Final = r"[A-Za-z0-9 ._:,()/-]{0,100}"
NONCE_BYTES: Final = 32
#: Of ML-KEM-768 with X25519.
PUBLIC_KEY_BYTES: Final = 1216
#: Evidence in base64, with certificates: the largest kinds have some 100 KB.
MAX_EVIDENCE: Final = 262_144
MAX_SEALED: Final = 4096
#: Of a whole message.
MAX_MESSAGE: Final = MAX_EVIDENCE + PUBLIC_KEY_BYTES + 1024
#: Seconds for which a nonce lives, at most.
MAX_NONCE_S: Final = 600

Name = Annotated[str, Meta(pattern=rf"\A{NAME}\Z", max_length=63)]
KeyVersion = Annotated[int, Meta(ge=1, le=1_000_000)]
Version = Annotated[int, Meta(ge=0, le=65535)]

#: version: another protocol. malformed: a message breaks a rule. role: the certificate is not a master's.
#: busy: no connection is free. rate: too many requests. expired: the evidence came too late. grant: there is
#: no such key for this client. key: it was revoked or has expired. evidence: refused at `step`. failed: the
#: vault could not do its part.
Code = Literal[
    "version", "malformed", "role", "busy", "rate", "expired", "grant", "key", "evidence", "failed"
]


class Ask(Message, frozen=True):
    """First message. key_version None: the newest."""

    version: Version
    key: Name
    key_version: KeyVersion | None = None


class Attest(Message, frozen=True):
    public_key: Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    evidence: Annotated[bytes, Meta(min_length=1, max_length=MAX_EVIDENCE)]


class Challenge(Message, frozen=True):
    """seconds: until the nonce is worth nothing."""

    version: Version
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    seconds: Annotated[int, Meta(ge=1, le=MAX_NONCE_S)]


class Released(Message, frozen=True):
    """id: the name of the data key, which tells nothing about it."""

    key_version: KeyVersion
    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z", max_length=16)]
    sealed: Annotated[bytes, Meta(max_length=MAX_SEALED)]


class Denied(Message, frozen=True):
    code: Code
    step: Annotated[str, Meta(pattern=rf"\A{STEP}\Z", max_length=100)] = ""


_NONE: Final = "a message is none of the vault's protocol; expected one of its structs"

Request = Ask | Attest
Reply = Challenge | Released | Denied

_requests: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_replies: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)


def context(key: str, version: int | None) -> bytes:
    """What evidence and sealing are bound to besides nonce and public key."""
    return (
        b"tempo vault release 1\0"
        + key.encode()
        + b"\0"
        + (b"newest" if version is None else b"%d" % version)
    )


def info(key: str, version: int | None, nonce: bytes) -> bytes:
    """HPKE's info."""
    return context(key, version) + b"\0" + nonce


def decode_request(header: bytes | bytearray) -> Request:
    """What a vault reads. Raises ProtocolError."""
    return decode_as(_requests, header, _NONE)


def decode_reply(header: bytes | bytearray) -> Reply:
    """What a master reads. Raises ProtocolError."""
    return decode_as(_replies, header, _NONE)
