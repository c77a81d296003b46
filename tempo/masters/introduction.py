"""Two masters that have a connection under mutual TLS say who they are, prove it, and agree on keys."""

from __future__ import annotations

import hmac
import os
from ssl import SSLSocket
from typing import Final

from tempo.errors import OutsideError, ProtocolError, RefusedError, TempoError, WorkerLost
from tempo.masters.attestation import Attestation
from tempo.masters.messages import (
    MAX_MESSAGE,
    NONCE_BYTES,
    VERSION,
    Introduction,
    Proof,
    Welcome,
    Words,
    context,
    decode,
)
from tempo.masters.place import Place
from tempo.masters.secret import Agreement, Shared
from tempo.wire.frame import Channel

_STEP: Final = "masters appraisal"


def introduce(
    sock: SSLSocket,
    place: Place,
    other: int,
    attestation: Attestation,
    *,
    dials: bool,
    first: float,
    deadline: float,
) -> tuple[Channel[Words], Shared]:
    """other: the rank that the other end must be. first: until when it must have said who it is; deadline:
    until when all of it must be over. Raises ProtocolError, RefusedError, OutsideError."""
    channel: Channel[Words] = Channel(sock, decode, max_header=MAX_MESSAGE)
    nonce, agreement = os.urandom(NONCE_BYTES), Agreement()
    ours = Introduction(VERSION, place.run, place.rank, place.size, nonce, agreement.public)
    channel.send(ours, deadline=first)
    theirs, _ = channel.receive(first)
    if not isinstance(theirs, Introduction):
        raise ProtocolError("a master began with something else than an introduction")
    if theirs.version != VERSION:
        raise ProtocolError(f"the other master speaks version {theirs.version}, this one {VERSION}")
    if (theirs.run, theirs.rank, theirs.size) != (place.run, other, place.size):
        raise ProtocolError(f"a master is not rank {other} of {place.size} of this run")
    if hmac.compare_digest(theirs.nonce, nonce) or hmac.compare_digest(theirs.public_key, agreement.public):
        raise ProtocolError("a master returned our own nonce or key")
    about = context(place.run, place.size, place.rank, other)
    channel.send(Proof(attestation.prove(theirs.nonce, agreement.public, about)), deadline=deadline)
    proof, _ = channel.receive(deadline)
    if not isinstance(proof, Proof):
        raise ProtocolError("a master gave no proof")
    _judge(
        attestation,
        proof.evidence,
        nonce,
        theirs.public_key,
        context(place.run, place.size, other, place.rank),
    )
    dialler, answerer = (place.rank, other) if dials else (other, place.rank)
    shared = agreement.with_other(
        theirs.public_key, dials=dials, context=context(place.run, place.size, dialler, answerer)
    )
    mine, expected = (shared.dialler, shared.other) if dials else (shared.other, shared.dialler)
    channel.send(Welcome(mine), deadline=deadline)
    try:
        welcome, _ = channel.receive(deadline)
    except WorkerLost:
        raise OutsideError(
            f"master {other} did not accept what this one is: its own error says why"
        ) from None
    if not isinstance(welcome, Welcome) or not hmac.compare_digest(welcome.word, expected):
        raise ProtocolError("a master does not know the keys that were agreed on")
    return channel, shared


def _judge(attestation: Attestation, evidence: bytes, nonce: bytes, key: bytes, about: bytes) -> None:
    try:
        attestation.judge(evidence, nonce, key, about)
    except TempoError:
        raise
    except Exception as error:  # of a library that parses what a stranger sent
        raise RefusedError(_STEP, type(error).__name__, "evidence that can be judged") from None
