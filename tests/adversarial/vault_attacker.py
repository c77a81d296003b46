"""A master with a valid certificate who says what he likes to a vault."""

import time

import pytest
from vault_scene import machine

from tempo.errors import WorkerLost
from tempo.trust.sealed import OwnerKey
from tempo.trust.vault import protocol
from tempo.trust.vault.protocol import Ask, Challenge, Denied, context, decode_reply
from tempo.wire import Channel
from tempo.wire.tls import handshake, wrap


class Attacker:
    """A master with a valid certificate who says what he likes."""

    connections: list[Channel] = []

    def __init__(self, where, tls):
        self.until = time.monotonic() + 20
        sock = wrap(where.connect(self.until), tls.context("master"), "master", where.tls_name)
        handshake(sock, "master", deadline=self.until, dialled="vault")
        self.channel = Channel(sock, decode_reply)
        self.connections.append(self.channel)

    def say(self, message):
        self.channel.send(message, deadline=self.until)

    def hear(self):
        return self.channel.receive(self.until)[0]

    def ask(self, key="photos", version=None):
        self.say(Ask(protocol.VERSION, key, version))
        reply = self.hear()
        assert isinstance(reply, Challenge)
        return reply.nonce

    def denied(self, code):
        reply = self.hear()
        assert isinstance(reply, Denied)
        assert reply.code == code
        with pytest.raises(WorkerLost):  # and that was all
            self.hear()
        return reply


def shown(nonce, public, key="photos", version=None):
    return machine()(nonce, public, context(key, version))


def public():
    return OwnerKey.generate().recipient.public_bytes
