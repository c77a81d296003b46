"""The messages: their bytes, frozen; their limits, each with a value just inside and one just outside."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vault_scene import make_pki

from tempo.errors import ProtocolError
from tempo.fleet import RemoteWorker
from tempo.trust.vault.protocol import (
    MAX_EVIDENCE,
    MAX_NONCE_S,
    MAX_SEALED,
    PUBLIC_KEY_BYTES,
    VERSION,
    Ask,
    Attest,
    Challenge,
    Denied,
    Released,
    context,
    decode_reply,
    decode_request,
    info,
)
from tempo.wire import Endpoint, TlsRefused, Why, encode
from tempo.worker.listener import Listener, ListenSettings

pytestmark = pytest.mark.security

KEY = bytes(PUBLIC_KEY_BYTES)
GOOD = {
    "ask": (Ask(VERSION, "photos", 2), decode_request),
    "newest": (Ask(VERSION, "photos"), decode_request),
    "attest": (Attest(KEY, b"{}"), decode_request),
    "challenge": (Challenge(VERSION, bytes(32), 60), decode_reply),
    "released": (Released(2, "0123456789abcdef", b"sealed"), decode_reply),
    "denied": (Denied("evidence", "policy 4 code"), decode_reply),
}


@pytest.mark.parametrize("name", GOOD)
def test_messages_come_back(name):
    message, decode = GOOD[name]
    assert decode(encode(message)) == message
    other = decode_reply if decode is decode_request else decode_request
    with pytest.raises(ProtocolError):  # nothing can be reflected
        other(encode(message))


def test_the_bytes_are_frozen():
    assert encode(Ask(1, "photos", 2)).hex() == (
        "84a26973a361736ba776657273696f6e01a36b6579a670686f746f73ab6b65795f76657273696f6e02"
    )
    assert encode(Denied("rate")).hex() == "83a26973a664656e696564a4636f6465a472617465a473746570a0"
    assert encode(Challenge(1, bytes(32), 60)).hex() == (
        "84a26973a96368616c6c656e6765a776657273696f6e01a56e6f6e6365c420" + "00" * 32 + "a77365636f6e64733c"
    )


def test_what_evidence_is_bound_to_is_frozen():
    assert context("photos", None) == b"tempo vault release 1\0photos\0newest"
    assert context("photos", 12) == b"tempo vault release 1\0photos\x0012"
    assert info("photos", 12, b"n" * 32) == context("photos", 12) + b"\0" + b"n" * 32


@pytest.mark.parametrize(
    ("message", "decode", "fits"),
    [
        (Attest(KEY, bytes(MAX_EVIDENCE)), decode_request, True),
        (Attest(KEY, bytes(MAX_EVIDENCE + 1)), decode_request, False),
        (Attest(KEY, b""), decode_request, False),
        (Attest(KEY[1:], b"x"), decode_request, False),
        (Attest(KEY + b"x", b"x"), decode_request, False),
        (Ask(VERSION, "x" * 63), decode_request, True),
        (Ask(VERSION, "x" * 64), decode_request, False),
        (Ask(VERSION, ""), decode_request, False),
        (Ask(VERSION, "x\n"), decode_request, False),
        (Ask(VERSION, "x", 1_000_000), decode_request, True),
        (Ask(VERSION, "x", 1_000_001), decode_request, False),
        (Ask(65536, "x"), decode_request, False),
        (Challenge(VERSION, bytes(31), 60), decode_reply, False),
        (Challenge(VERSION, bytes(32), MAX_NONCE_S), decode_reply, True),
        (Challenge(VERSION, bytes(32), MAX_NONCE_S + 1), decode_reply, False),
        (Challenge(VERSION, bytes(32), 0), decode_reply, False),
        (Released(1, "0123456789abcdef", bytes(MAX_SEALED)), decode_reply, True),
        (Released(1, "0123456789abcdef", bytes(MAX_SEALED + 1)), decode_reply, False),
        (Released(1, "0123456789abcdeX", b""), decode_reply, False),
        (Released(1, "0123456789abcdef\n", b""), decode_reply, False),
        (Denied("evidence", "\x1b[31m"), decode_reply, False),
        (Denied("evidence", "a step\n"), decode_reply, False),
        (Denied("nonsense"), decode_reply, False),
    ],
)
def test_limits(message, decode, fits):
    data = encode(message)
    if fits:
        assert decode(data) == message
    else:
        with pytest.raises(ProtocolError):
            decode(data)


def test_unknown_fields_and_other_types_are_refused():
    fields = msgspec.msgpack.decode(encode(Ask(VERSION, "photos")))
    for change in (
        {"more": 1},
        {"key": 5},
        {"key": None},
        {"version": "1"},
        {"key_version": True},
        {"is": "x"},
    ):
        with pytest.raises(ProtocolError):
            decode_request(msgspec.msgpack.encode(fields | change))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data):
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(ProtocolError):
            decode(data)


@settings(deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_flipped_messages_do_no_harm(name, data):
    message, decode = GOOD[name]
    raw = bytearray(encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(raw))


def test_a_vaults_certificate_serves_as_no_workers(tmp_path):
    import threading

    pki = make_pki(tmp_path)
    listener = Listener(ListenSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=pki["vault"]))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        worker = RemoteWorker(listener.endpoint, tls=pki["trainer"])
        with pytest.raises(TlsRefused) as caught:
            worker.connect()
        assert caught.value.why is Why.WRONG_ROLE
        worker.close()
    finally:
        listener.stop()
        thread.join(30)
