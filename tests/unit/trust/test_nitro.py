"""Nitro: documents of an enclave that the tests made, under a root of its own; each defect at its step."""

from __future__ import annotations

import random
from functools import cache

import pytest
from authorities import DAY, NOW, Holder, certify
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral, Evidence, Expected, Kind
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.nitro import Step, verify
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

cbor2 = pytest.importorskip("cbor2", reason="cbor2 is not installed (pip extra trust)")
pytestmark = pytest.mark.security
DATA = bytes(range(64))
PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}
ES384 = cbor2.dumps({1: -35})


@cache
def chain(number: int = 0) -> tuple[Holder, Holder, Holder]:
    """Root, zone, enclave. number: another one, other keys under the same names."""
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    root = certify("aws.made", keys[0], ca=True)
    zone = certify("zone.made", keys[1], root, ca=True, path_length=0)
    return root, zone, certify("enclave.made", keys[2], zone, end=NOW + DAY / 8)


def der(holder: Holder) -> bytes:
    return holder.certificate.public_bytes(Encoding.DER)


def payload(**changes) -> bytes:
    root, zone, enclave = chain()
    fields = {"module_id": "i-made", "digest": "SHA384", "timestamp": 1768478400000, "pcrs": PCRS}
    fields |= {"certificate": der(enclave), "cabundle": [der(root), der(zone)]}
    fields |= {"public_key": None, "user_data": DATA, "nonce": None} | changes
    return cbor2.dumps({name: value for name, value in fields.items() if value != "left out"})


def document(raw: bytes, *, key=None, protected=ES384, unprotected=None, tag: bool = False) -> bytes:
    signed = cbor2.dumps(["Signature1", protected, b"", raw])
    r, s = decode_dss_signature((key or chain()[2].key).sign(signed, ec.ECDSA(hashes.SHA384())))
    signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    return b"\xd2" * tag + cbor2.dumps([protected, unprotected or {}, raw, signature])


def anchors() -> Anchors:
    return Anchors({Kind.NITRO: frozenset({fingerprint(chain()[0].certificate)})})


def check(raw: bytes, now=NOW, trusted: Anchors | None = None):
    return verify(Evidence(Kind.NITRO, {"document": raw}), trusted or anchors(), Collateral(), now)


def refused(step: str, match: str, raw: bytes, **given) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        check(raw, **given)
    assert error.value.step == step


@pytest.mark.parametrize("tag", [False, True])
def test_a_made_document(tag) -> None:
    claims = check(document(payload(nonce=b"n" * 32, public_key=b"k"), tag=tag))
    assert claims.bound == DATA
    assert claims.measurements["pcr3"] == "04" * 48
    assert (claims.nonce, claims.public_key) == (b"n" * 32, b"k")
    assert claims.platform == "i-made"


def test_lengths() -> None:
    raw = document(payload())
    for each in (raw + b"\0", raw + raw):
        refused(Step.FORMAT, "too many", each)
    for each in (b"", raw[:-1], raw[:100], b"\xd2"):
        refused(Step.FORMAT, "no CBOR", each)
    refused(Step.FORMAT, "at most 16384", document(payload(user_data=b"x" * 20000)))


@pytest.mark.parametrize(
    ("match", "made"),
    [
        ("another header", lambda: document(payload(), protected=cbor2.dumps({1: -7}))),
        ("another header", lambda: document(payload(), protected=cbor2.dumps({1: -35, 2: [9]}))),
        ("another header", lambda: document(payload(), unprotected={4: b"key"})),
        ("odd form", lambda: document(payload(), protected=b"\xbf\x01\x38\x22\xff")),
        ("another structure", lambda: cbor2.dumps([ES384, {}, payload()])),
        ("another structure", lambda: cbor2.dumps({1: 2})),
        ("a signature of 3", lambda: cbor2.dumps([ES384, {}, payload(), b"sig"])),
        ("no CBOR", lambda: document(b"\xff\xff")),
        ("fields missing", lambda: document(cbor2.dumps([1]))),
        ("fields missing", lambda: document(payload(pcrs="left out"))),
        ("no PCRs", lambda: document(payload(pcrs={}))),
        ("PCR 99", lambda: document(payload(pcrs={99: bytes(48)}))),
        ("another size", lambda: document(payload(pcrs={0: bytes(47)}))),
        ("digest", lambda: document(payload(digest="SHA256"))),
        ("timestamp", lambda: document(payload(timestamp="now"))),
        ("bundle", lambda: document(payload(cabundle=[]))),
        ("bundle", lambda: document(payload(cabundle=[b""] * 50))),
        ("another user_data", lambda: document(payload(user_data=b"x" * 513))),
        ("another nonce", lambda: document(payload(nonce="text"))),
    ],
)
def test_another_form(match, made) -> None:
    refused(Step.FORMAT, match, made())


def test_the_chain() -> None:
    other = chain(1)
    foreign = payload(certificate=der(other[2]), cabundle=[der(other[0]), der(other[1])])
    refused(Step.CHAIN, "policy trusts", document(foreign, key=other[2].key))
    mixed = payload(cabundle=[der(other[0]), der(other[1])])
    refused(Step.CHAIN, "did not sign", document(mixed))
    refused(Step.CHAIN, "policy trusts", document(payload()), trusted=Anchors())
    refused(Step.CHAIN, "valid from", document(payload()), now=NOW + DAY)
    refused(Step.CHAIN, "no certificate", document(payload(certificate=b"x")))
    refused(Step.CHAIN, "no certificate", document(payload(cabundle=["x"])))


def test_another_key_signed() -> None:
    refused(Step.SIGNATURE, "does not fit", document(payload(), key=ec.generate_private_key(ec.SECP384R1())))


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_debug(zero) -> None:
    refused(Step.DEBUG, f"PCR {zero}", document(payload(pcrs=PCRS | {zero: bytes(48)})))
    without = {index: value for index, value in PCRS.items() if index != zero}
    refused(Step.DEBUG, f"PCR {zero}", document(payload(pcrs=without)))


def test_flipped_bits() -> None:
    raw = document(payload())
    rng = random.Random(6)
    for place in range(0, len(raw), 3):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RefusedError):
            check(bytes(changed))


def test_the_verifier_compares_what_it_is_bound_to_and_what_it_shows() -> None:
    nonce, key = b"n" * 32, b"k"
    expected = Expected.answer(nonce, key, b"vault")
    verifier = Verifier(anchors())

    def ask(**fields):
        raw = document(payload(**fields))
        return verifier.verify(Evidence(Kind.NITRO, {"document": raw}), expected, NOW)

    data = expected.report_data
    assert ask(user_data=data).bound == data
    assert ask(user_data=data, nonce=nonce, public_key=key).bound == data
    for step, fields in (
        (VerifierStep.BINDING, {"user_data": None}),
        (VerifierStep.BINDING, {"user_data": data[:-1]}),
        (VerifierStep.BINDING, {"user_data": DATA, "nonce": nonce, "public_key": key}),
        (VerifierStep.DOCUMENT, {"user_data": data, "nonce": b"m" * 32}),
        (VerifierStep.DOCUMENT, {"user_data": data, "public_key": b"l"}),
    ):
        with pytest.raises(RefusedError) as error:
            ask(**fields)
        assert error.value.step == step
