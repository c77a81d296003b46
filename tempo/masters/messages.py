"""What two masters say to each other on one connection of the ring.

    both ways, once      Introduction(version, run, rank, size, nonce, public_key), Proof(evidence), Welcome
    the dialler, then    Piece(sequence, kind, part), each with one piece of a tensor, sealed (secret.py)

Rules, and the attack that each one blocks:
- Evidence answers the other end's nonce and speaks for a key that was made for this connection, in the
  context of this run and these two ranks: nothing is replayed, or used for another place in the ring.
- Pieces are sealed under what both keys give: who passes all of this on learns and changes nothing.
- A piece has the sequence, kind and size that its receiver expects by itself: no claim costs memory, and two
  masters that disagree on what they are doing end with an error instead of a wrong sum.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from tempo.masters.secret import PUBLIC_BYTES
from tempo.wire.messages import Message, decode_as

VERSION: Final = 1
NONCE_BYTES: Final = 32
MAX_EVIDENCE: Final = 262_144
MAX_MESSAGE: Final = MAX_EVIDENCE + 1024
MAX_MASTERS: Final = 1024

Rank = Annotated[int, Meta(ge=0, lt=MAX_MASTERS)]
Kind = Literal["reduce", "gather", "broadcast"]


class Introduction(Message, frozen=True):
    """run: names the run, so that two of one owner do not cross. rank of size: the sender's. public_key: of
    X25519, made for this connection."""

    version: Annotated[int, Meta(ge=0, le=65535)]
    run: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,100}\Z", max_length=100)]
    rank: Rank
    size: Annotated[int, Meta(ge=2, le=MAX_MASTERS)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    public_key: Annotated[bytes, Meta(min_length=PUBLIC_BYTES, max_length=PUBLIC_BYTES)]


class Proof(Message, frozen=True):
    evidence: Annotated[bytes, Meta(min_length=1, max_length=MAX_EVIDENCE)]


class Welcome(Message, frozen=True):
    """The sender has accepted the other's proof, and knows the keys. Without it an end that was refused would
    think it joined."""

    word: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Piece(Message, frozen=True):
    """Payload: contiguous elements of the tensor at hand. sequence: of the collective, part: within it."""

    carries_payload: ClassVar[bool] = True

    sequence: Annotated[int, Meta(ge=0, lt=1 << 62)]
    kind: Kind
    part: Annotated[int, Meta(ge=0, lt=1 << 40)]


Words = Introduction | Proof | Welcome | Piece

_decoder: Final[msgspec.msgpack.Decoder[Words]] = msgspec.msgpack.Decoder(Words)


def context(run: str, size: int, prover: int, verifier: int) -> bytes:
    """What evidence is bound to besides nonce and key."""
    return f"tempo masters 1\0{run}\0{size}\0{prover}\0{verifier}".encode()


def decode(header: bytes | bytearray) -> Words:
    """Raises ProtocolError."""
    return decode_as(_decoder, header, "a message is none of the masters' protocol")
