"""The master's side: evidence for a question, and a key for the evidence."""

from __future__ import annotations

import time
from typing import Protocol, TypeVar, final

from tempo.errors import ProtocolError, TamperedError, TempoError, UsageError
from tempo.trust.sealed import DataKey, OwnerKey
from tempo.trust.vault.protocol import (
    MAX_EVIDENCE,
    MAX_MESSAGE,
    VERSION,
    Ask,
    Attest,
    Challenge,
    Code,
    Denied,
    Released,
    Reply,
    context,
    decode_reply,
    info,
)
from tempo.trust.vault.store import check_name
from tempo.wire import Channel, Endpoint, TlsFiles, TlsRefused
from tempo.wire.tls import handshake, wrap

DEFAULT_SECONDS = 90.0

R = TypeVar("R", Challenge, Released)

_WORDS: dict[str, str] = {
    "version": "it speaks another version of the protocol",
    "malformed": "it did not understand this side",
    "role": "this side's certificate is not a master's",
    "busy": "all its connections are taken: try again",
    "rate": "too many requests: try again in a minute",
    "expired": "the evidence came too late",
    "grant": "it has no such key for this client",
    "key": "the key was revoked, has expired, or has no such version",
    "evidence": "the evidence did not convince it",
    "failed": "it could not do its part: its own log tells more",
}


class Evidence(Protocol):
    """Makes evidence on this machine, bound to all three: tempo.trust.evidence does."""

    def __call__(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes: ...


@final
class KeyRefused(TempoError):
    """The vault did not release the key. code: why. step: of the appraisal, where it was the evidence."""

    def __init__(self, vault: str, key: str, code: Code, step: str) -> None:
        at = f" (step {step})" if step else ""
        super().__init__(f"the vault {vault} did not release the key {key}: {_WORDS[code]}{at}")
        self.code = code
        self.step = step


def fetch(
    address: str | Endpoint,
    tls: TlsFiles,
    evidence: Evidence,
    key: str,
    version: int | None = None,
    *,
    seconds: float = DEFAULT_SECONDS,
) -> DataKey:
    """The data key `key` from the vault at `address`, sealed to a key that lives for this call alone.

    tls: a master's certificate. version None: the newest. seconds: for all of it.
    Raises KeyRefused, UsageError, and of tempo.wire TlsRefused, WorkerLost, DeadlinePassed, ProtocolError;
    TamperedError where what came does not open.
    """
    check_name(key)
    endpoint = Endpoint.parse(address) if isinstance(address, str) else address
    if not seconds > 0:
        raise UsageError(f"fetching a key takes some time: {seconds} seconds are none")
    deadline = time.monotonic() + seconds
    ours = tls.context("master")  # first: where the files are at fault, no connection is left open
    sock = wrap(endpoint.connect(deadline), ours, "master", endpoint.tls_name)
    try:
        handshake(sock, "master", deadline=deadline, dialled="vault")
    except TlsRefused as refused:
        sock.close()
        raise _named(refused, endpoint) from None
    except BaseException:
        sock.close()
        raise
    channel = Channel(sock, decode_reply, max_header=MAX_MESSAGE)
    try:
        return _exchange(channel, str(endpoint), evidence, key, version, deadline)
    except TlsRefused as refused:  # the vault says no to our certificate after our side is done
        raise _named(refused, endpoint) from None
    finally:
        channel.close()


def _exchange(
    channel: Channel[Reply], vault: str, evidence: Evidence, key: str, version: int | None, deadline: float
) -> DataKey:
    fresh = OwnerKey.generate()
    public = fresh.recipient.public_bytes
    channel.send(Ask(VERSION, key, version), deadline=deadline)
    challenge = _receive(channel, Challenge, vault, key, deadline)
    if challenge.version != VERSION:
        raise ProtocolError(f"the vault {vault} speaks version {challenge.version}, this side {VERSION}")
    shown = evidence(challenge.nonce, public, context(key, version))
    if not 0 < len(shown) <= MAX_EVIDENCE:
        raise UsageError(f"evidence has 1 to {MAX_EVIDENCE} bytes, not {len(shown)}")
    channel.send(Attest(public, shown), deadline=deadline)
    released = _receive(channel, Released, vault, key, deadline)
    found = fresh.unwrap(released.sealed, info(key, version, challenge.nonce))
    if found.name != released.id or version not in (None, released.key_version):
        raise TamperedError(f"the vault {vault} sent another key than it says")
    return found


def _receive(channel: Channel[Reply], kind: type[R], vault: str, key: str, deadline: float) -> R:
    message, _ = channel.receive(deadline)
    if isinstance(message, Denied):
        raise KeyRefused(vault, key, message.code, message.step)
    if not isinstance(message, kind):
        raise ProtocolError(f"the vault {vault} answered with a message that is not due")
    return message


def _named(refused: TlsRefused, endpoint: Endpoint) -> TlsRefused:
    return TlsRefused(refused.why, by_peer=refused.by_peer, whom=f"the vault {endpoint}")
