"""What all kinds share: the binding, frozen; the envelope; and the simulator."""

from __future__ import annotations

import base64
import json
from datetime import datetime

import pytest
from authorities import NOW
from hypothesis import given, settings
from hypothesis import strategies as st

from tempo.errors import RefusedError, UsageError
from tempo.trust.evidence import (
    VENDORS,
    Anchors,
    Collateral,
    Evidence,
    Expected,
    Kind,
    report_data,
    simulated,
)
from tempo.trust.evidence.envelope import PARTS as PARTS_OF
from tempo.trust.verifier import Verifier

pytestmark = pytest.mark.security
DATA = bytes(range(64))


def test_the_binding_is_frozen() -> None:
    """By sha512sum over the bytes, in a shell. A change here breaks every machine that answers."""
    found = report_data(bytes(range(32)), b"public key", b"context")
    assert found.hex() == FROZEN
    assert Expected.answer(bytes(range(32)), b"public key", b"context").report_data == found


FROZEN = (
    "779b40d08ff73413445dead7704dff5d85ea1ccc92e1863d7b148c42c7dd944a"
    "648d7b3b8bb3e94487678ceddb9491fcafbbbce56034e76d003a1a0f9e3c7843"
)


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_bytes_do_not_move_between_key_and_context(key, context, cut) -> None:
    whole = key + context
    other = (whole[:cut], whole[cut:])
    same = report_data(bytes(32), key, context) == report_data(bytes(32), *other)
    assert same == ((key, context) == other)


def test_limits_of_the_binding() -> None:
    for nonce, key, context in (
        (bytes(31), b"", b""),
        (bytes(32), bytes(16385), b""),
        (bytes(32), b"", bytes(1025)),
    ):
        with pytest.raises(UsageError):
            report_data(nonce, key, context)
    with pytest.raises(UsageError, match="64 bytes"):
        Expected(bytes(63))


def made() -> Evidence:
    return simulated.produce(DATA, b"\x07" * 48)


def test_the_envelope_comes_back() -> None:
    assert Evidence.from_json(made().to_json()) == made()


def changed(**fields) -> bytes:
    return json.dumps(json.loads(made().to_json()) | fields).encode()


@pytest.mark.parametrize(
    ("match", "raw"),
    [
        ("no JSON", lambda: b""),
        ("no JSON", lambda: made().to_json()[:-20]),
        ("no JSON", lambda: made().to_json() + b"x"),
        ("no JSON", lambda: b"[" * 100000),
        ("no JSON", lambda: b'{"kind": 1, "kind": 2}'),
        ("no JSON", lambda: b"\xff\xfe"),
        ("other fields", lambda: b"[]"),
        ("other fields", lambda: changed(more=1)),
        ("version 2", lambda: changed(tempo_evidence=2)),
        ("version True", lambda: changed(tempo_evidence=True)),
        ("the kind 'sgx'", lambda: changed(kind="sgx")),
        ("the parts", lambda: changed(kind="tdx")),
        ("the parts", lambda: changed(parts={})),
        ("no texts", lambda: changed(parts=[1])),
        ("no texts", lambda: changed(parts={"statement": 1, "signature": ""})),
        ("no base64", lambda: changed(parts={"statement": "!", "signature": ""})),
        ("at most 262144", lambda: made().to_json() + b" " * 300000),
        (
            "at most 65536",
            lambda: changed(parts={"statement": base64.b64encode(bytes(70000)).decode(), "signature": ""}),
        ),
    ],
)
def test_what_is_no_envelope(match, raw) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        Evidence.from_json(raw())
    assert error.value.step == "envelope 1 form"


def test_the_simulator() -> None:
    verifier = Verifier(Anchors())
    assert verifier.verify(made(), Expected(DATA), NOW).measurements == {"measurement": "07" * 48}
    with pytest.raises(RefusedError) as error:
        verifier.verify(simulated.produce(DATA, bytes(48), debug=True), Expected(DATA), NOW)
    assert error.value.step == simulated.Step.DEBUG
    for part, step in (("signature", simulated.Step.SIGNATURE), ("statement", None)):
        for place in range(len(made().parts[part])):
            raw = bytearray(made().parts[part])
            raw[place] ^= 1
            with pytest.raises(RefusedError) as error:
                simulated.verify(
                    Evidence(Kind.SIMULATED, made().parts | {part: bytes(raw)}), Anchors(), Collateral(), NOW
                )
            assert step is None or error.value.step == step


PARTS = [(kind, sorted(PARTS_OF[kind][0])) for kind in Kind]


@pytest.mark.parametrize(("kind", "names"), PARTS, ids=lambda value: str(value))
def test_whatever_bytes_come_the_answer_is_a_refusal(kind, names) -> None:
    pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed (pip extra trust)")
    pytest.importorskip("cbor2", reason="cbor2 is not installed (pip extra trust)")
    verifier = Verifier(Anchors(VENDORS | {Kind.TPM: frozenset({"00" * 32})}))
    cose, quote = b"\x84\x44\xa1\x01\x38\x22\xa0", b"\x04\0\x02\0\x81\0\0\0"
    heads = (b"", cose, b"\xffTCG\x80\x18", b"\x02\0\0\0", quote)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(heads), st.lists(st.binary(max_size=1300), min_size=4, max_size=4))
    def ask(head, tails) -> None:
        parts = {name: head + tail for name, tail in zip(names, tails, strict=False)}
        with pytest.raises(RefusedError):
            verifier.verify(Evidence(kind, parts), Expected(DATA), NOW)

    ask()


NAMES = st.sampled_from(["tempo_evidence", "kind", "parts"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_file_comes_the_answer_is_a_refusal(raw) -> None:
    with pytest.raises(RefusedError):
        Evidence.from_json(raw)


def test_now_has_a_time_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        Verifier(Anchors()).verify(made(), Expected(DATA), datetime(2026, 1, 1))
