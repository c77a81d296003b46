"""One exchange with one master: what is asked, in which order it is checked, and what is released.

1. the master's rate, and the overall one
2. Ask: version; then a fresh nonce is sent, whatever was asked for
3. Attest arrives before the nonce is old
4. grants of that key that hold for this client, now
5. the evidence, bound to nonce, public key and what was asked, satisfies the policy of one of them
6. in one piece, while no change is acknowledged: grant and key are still good, and the log has the release
7. the key leaves, sealed to the public key of the evidence

A refusal after the handshake is in the log before the master reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from tempo.errors import ProtocolError, RefusedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger import Kind, Value
from tempo.trust.sealed import DataKey, Recipient
from tempo.trust.vault.appraise import Appraiser
from tempo.trust.vault.journal import Journal
from tempo.trust.vault.protocol import (
    NONCE_BYTES,
    STEP,
    VERSION,
    Ask,
    Attest,
    Challenge,
    Code,
    Denied,
    Released,
    Reply,
    Request,
    context,
    info,
)
from tempo.trust.vault.rates import Rates
from tempo.trust.vault.state import Grant, Key, State
from tempo.trust.vault.store import Store
from tempo.wire import Channel, DeadlinePassed

#: Seconds for a message that needs no thought.
MESSAGE_S: Final = 10.0


@final
class Refusal(Exception):
    """Ends an exchange. step, found, expected: for the log; the step is told to the master too."""

    def __init__(self, code: Code, step: str = "", found: str = "", expected: str = "") -> None:
        super().__init__(code)
        self.code: Code = code
        self.step = step
        self.found = found
        self.expected = expected


@final
@dataclass(frozen=True, slots=True)
class _Passed:
    """A grant whose policy the evidence satisfies. about: what the log says of the machine."""

    grant: Grant
    about: Mapping[str, Value]


@final
class Exchange(Hidden):
    """Answers masters, one call of `serve` for each connection, by several threads at once."""

    def __init__(
        self, store: Store, journal: Journal, appraiser: Appraiser, rates: Rates, nonce_s: int
    ) -> None:
        self._store = store
        self._journal = journal
        self._appraiser = appraiser
        self._rates = rates
        self._nonce_s = nonce_s

    def serve(self, channel: Channel[Request], client: str, leave: Callable[[], None]) -> str:
        """What came of it, in words of ours. leave: called before the last message is sent.

        Raises WorkerError where the master is gone or breaks the protocol, OutsideError or TamperedError
        where the vault cannot go on.
        """
        asked: Ask | None = None
        try:
            self._check_rate(client)
            asked = self._asked(channel)
            nonce, until = os.urandom(NONCE_BYTES), time.monotonic() + self._nonce_s
            _send(channel, Challenge(VERSION, nonce, self._nonce_s))
            attest = self._attested(channel, until)
            reply = self._release(client, asked, attest, nonce)
        except Refusal as refusal:
            self._refuse(client, asked, refusal)
            leave()
            _send(channel, Denied(refusal.code, _told(refusal.step)))
            return f"refused: {refusal.code} {_told(refusal.step)}".rstrip()
        except DeadlinePassed:
            raise
        except ProtocolError:
            self._refuse(client, asked, Refusal("malformed"))
            leave()
            _send(channel, Denied("malformed"))
            raise
        leave()
        _send(channel, reply)
        return f"released version {reply.key_version} of {asked.key}"

    def _check_rate(self, client: str) -> None:
        admitted, turned = self._rates.admit(client)
        if not admitted:
            # The first of a row is entered, the others are counted: nobody fills the disk by asking.
            raise Refusal("rate", found="" if turned == 0 else "again")
        if turned > 1:
            self._journal.append(Kind.KEY_REFUSED, client=client, code="rate", times=turned - 1)

    def _asked(self, channel: Channel[Request]) -> Ask:
        message, _ = channel.receive(time.monotonic() + MESSAGE_S)
        if not isinstance(message, Ask):
            raise ProtocolError("evidence came before a question")
        if message.version != VERSION:
            raise Refusal("version", found=str(message.version), expected=str(VERSION))
        return message

    def _attested(self, channel: Channel[Request], until: float) -> Attest:
        try:
            message, _ = channel.receive(until)
        except DeadlinePassed:
            raise Refusal("expired", expected=f"evidence within {self._nonce_s} seconds") from None
        if not isinstance(message, Attest):
            raise ProtocolError("a second question came where evidence is due")
        return message

    def _release(self, client: str, asked: Ask, attest: Attest, nonce: bytes) -> Released:
        try:
            recipient = Recipient(attest.public_key)
            recipient.wrap(DataKey.generate())  # a point of small order is found only where it is used
        except (UsageError, ValueError):
            raise ProtocolError("the public key is none of ML-KEM-768 with X25519") from None
        passed = self._appraised(client, asked, attest, nonce)
        with self._journal.settled():
            state, now = self._store.state(), self._store.now()
            key = _releasable(state, asked, passed.grant, client, now)
            sealed = recipient.wrap(self._store.unwrap(key), info(asked.key, asked.key_version, nonce))
            self._journal.append(
                Kind.KEY_RELEASED,
                client=client,
                key=key.name,
                version=key.version,
                key_id=key.id,
                grant=passed.grant.number,
                policy=passed.grant.policy,
                recipient=recipient.name,
                nonce=nonce.hex(),
                evidence_sha256=hashlib.sha256(attest.evidence).hexdigest(),
                **{f"machine_{name}"[:64]: value for name, value in passed.about.items()},
            )
        return Released(key.version, key.id, sealed)

    def _appraised(self, client: str, asked: Ask, attest: Attest, nonce: bytes) -> _Passed:
        state, now = self._store.state(), self._store.now()
        grants = state.grants_for(asked.key, client, now)
        refused = Refusal("grant", expected="a grant of this key that holds for this client now")
        for grant in grants:
            try:
                about = self._appraiser.appraise(
                    state.policy(grant.policy).text,
                    attest.evidence,
                    nonce=nonce,
                    public_key=attest.public_key,
                    context=context(asked.key, asked.key_version),
                    now=datetime.fromtimestamp(now, UTC),
                )
            except RefusedError as error:
                # Of several grants the newest one's refusal is told.
                if refused.code == "grant":
                    refused = Refusal("evidence", error.step, error.found, error.expected)
                continue
            except (
                Exception
            ) as error:  # what a stranger sends must not stop the vault, whatever a library does
                if refused.code == "grant":
                    refused = Refusal("evidence", "vault appraisal", type(error).__name__, "a verdict")
                continue
            return _Passed(grant, about)
        raise refused

    def _refuse(self, client: str, asked: Ask | None, refusal: Refusal) -> None:
        if refusal.code == "rate" and refusal.found:
            return
        fields: dict[str, Value] = {"client": client, "code": refusal.code}
        if asked is not None:
            fields |= {"key": asked.key, "version": asked.key_version}
        for name in ("step", "found", "expected"):
            if text := _plain(getattr(refusal, name)):
                fields[name] = text
        self._journal.append(Kind.KEY_REFUSED, **fields)


def _releasable(state: State, asked: Ask, grant: Grant, client: str, now: int) -> Key:
    """The key, as things stand now: it was some time since the grants were read."""
    if not state.grant(grant.number).holds(client, now):
        raise Refusal("grant", expected="a grant that holds until the key is released")
    key = state.key(asked.key, asked.key_version)
    if key is None:
        raise Refusal("key", found="no such version")
    if fault := key.fault(now):
        raise Refusal("key", found=fault, expected="a version that is neither revoked nor expired")
    return key


def _send(channel: Channel[Request], reply: Reply) -> None:
    channel.send(reply, deadline=time.monotonic() + MESSAGE_S)


def _plain(text: str) -> str:
    """For the log: what a machine claims may hold anything."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:300])


def _told(step: str) -> str:
    """For the master: nothing but what a message may hold."""
    found = re.match(STEP, step)
    return found[0] if found else ""
