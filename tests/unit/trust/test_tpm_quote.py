"""A TPM's quotes, made by the tests byte by byte; every defect at its own step. See test_tpm_device.py."""

from __future__ import annotations

import hashlib
import random

import pytest
from authorities import DAY, NOW, certify
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral, Evidence, Expected, Kind
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.tpm import Step, key_name, qualifying, verify
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

pytestmark = pytest.mark.security
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
DATA = bytes(range(64))
VALUES = b"\x01" * 32 + b"\x02" * 32
SHA256, ECDSA, RSASSA, RSAPSS = 0x000B, 0x0018, 0x0014, 0x0016


def sized(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def attest(
    *,
    magic=0xFF544347,
    kind=0x8018,
    data=DATA,
    safe=1,
    values=VALUES,
    select=b"\x81\0\0",
    bank=SHA256,
    banks=1,
):
    """A quote of PCR 0 and 7."""
    head = number(magic, 4) + number(kind, 2) + sized(b"\0\x0b" + bytes(32)) + sized(qualifying(data))
    clock = number(1000, 8) + number(2, 4) + number(3, 4) + number(safe, 1) + number(0x2019, 8)
    pcrs = number(banks, 4) + number(bank, 2) + number(len(select), 1) + select
    return head + clock + pcrs + sized(hashlib.sha256(values).digest())


def spki(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed(raw: bytes, key=KEY, algorithm=SHA256) -> bytes:
    r, s = decode_dss_signature(key.sign(raw, ec.ECDSA(hashes.SHA256())))
    return number(ECDSA, 2) + number(algorithm, 2) + sized(number(r, 32)) + sized(number(s, 32))


def evidence(raw: bytes | None = None, **parts) -> Evidence:
    raw = attest() if raw is None else raw
    given = {"attest": raw, "signature": signed(raw), "key": spki(KEY), "pcrs": VALUES}
    return Evidence(Kind.TPM, given | parts)


TRUSTED = Anchors(keys=frozenset({key_name(spki(KEY)), key_name(spki(RSA_KEY))}))


def check(what: Evidence, anchors: Anchors = TRUSTED, now=NOW):
    return verify(what, anchors, Collateral(), now)


def refused(step: str, match: str, what: Evidence, **given) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        check(what, **given)
    assert error.value.step == step


def test_a_made_quote() -> None:
    claims = check(evidence())
    assert claims.bound == hashlib.sha256(DATA).digest()
    assert claims.measurements == {"pcr0": "01" * 32, "pcr7": "02" * 32}
    assert claims.root == claims.platform == key_name(spki(KEY))
    assert claims.details["reset_count"] == 2


@pytest.mark.parametrize("scheme", [RSASSA, RSAPSS])
def test_rsa(scheme) -> None:
    raw = attest()
    way = padding.PKCS1v15() if scheme == RSASSA else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    made = number(scheme, 2) + number(SHA256, 2) + sized(RSA_KEY.sign(raw, way, hashes.SHA256()))
    assert check(evidence(signature=made, key=spki(RSA_KEY))).details["pcr_bank"] == "sha256"
    refused(Step.SIGNATURE, "scheme", evidence(signature=made))
    refused(Step.SIGNATURE, "does not fit", evidence(attest(safe=0), signature=made, key=spki(RSA_KEY)))


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("magic", {"magic": 0x41424344}),
        ("type 0x8017", {"kind": 0x8017}),
        ("2 banks", {"banks": 2}),
        ("selection of 5", {"select": bytes(5)}),
        ("banks", {"safe": 2}),
    ],
)
def test_another_structure(match, changes) -> None:
    refused(Step.FORMAT, match, evidence(attest(**changes)))


def test_lengths() -> None:
    raw = attest()
    refused(Step.FORMAT, "too many", evidence(raw + b"\0"))
    for length in range(len(raw)):
        refused(Step.FORMAT, "cut short|magic|banks|selection", evidence(raw[:length]))
    made = signed(raw)
    refused(Step.FORMAT, "too many", evidence(signature=made + b"\0"))
    refused(Step.FORMAT, "cut short", evidence(signature=made[:-1]))
    refused(Step.FORMAT, "scheme", evidence(signature=b"\0\x10" + made[2:]))
    refused(Step.FORMAT, "hash 0x0004", evidence(signature=signed(raw, algorithm=0x0004)))


def test_the_key() -> None:
    refused(Step.KEY, "attestation key", evidence(), anchors=Anchors())
    refused(Step.KEY, "no public key", evidence(key=b"x"))
    small = spki(rsa.generate_private_key(65537, 1024))
    refused(Step.KEY, "1024 bits", evidence(key=small))
    refused(Step.KEY, "another kind", evidence(key=spki(ed25519.Ed25519PrivateKey.generate())))
    other = ec.generate_private_key(ec.SECP256R1())
    refused(Step.KEY, "attestation key", evidence(key=spki(other), signature=signed(attest(), other)))


def test_a_certified_key() -> None:
    root = certify("Root", ec.generate_private_key(ec.SECP384R1()), ca=True)
    leaf = certify("AK", KEY, root)
    pem = b"".join(h.certificate.public_bytes(Encoding.PEM) for h in (leaf, root))
    trusted = Anchors({Kind.TPM: frozenset({fingerprint(root.certificate)})})
    assert check(evidence(certificates=pem), trusted).root == fingerprint(root.certificate)
    refused(Step.KEY, "policy trusts", evidence(certificates=pem), anchors=Anchors())
    refused(Step.KEY, "valid from", evidence(certificates=pem), anchors=trusted, now=NOW + 101 * DAY)
    refused(Step.KEY, "no certificate", evidence(certificates=b"x"), anchors=trusted)


def test_another_key_signed() -> None:
    made = signed(attest(), ec.generate_private_key(ec.SECP256R1()))
    refused(Step.SIGNATURE, "does not fit", evidence(signature=made))


def test_pcrs() -> None:
    refused(Step.PCRS, "values with the digest", evidence(pcrs=VALUES[::-1]))
    refused(Step.PCRS, "63 bytes", evidence(pcrs=VALUES[1:]))
    refused(Step.PCRS, "bank 0x0004", evidence(attest(bank=0x0004)))
    refused(Step.PCRS, "64 bytes", evidence(attest(select=b"\xff\0\0")))


def test_a_clock_that_went_back() -> None:
    refused(Step.CLOCK, "clock", evidence(attest(safe=0)))


@pytest.mark.parametrize("part", ["attest", "signature", "key", "pcrs"])
def test_every_flipped_bit(part) -> None:
    raw = dict(evidence().parts)
    rng = random.Random(8)
    for place in range(len(raw[part])):
        changed = bytearray(raw[part])
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RefusedError):
            check(Evidence(Kind.TPM, raw | {part: bytes(changed)}))


def test_the_verifier_compares_what_it_is_bound_to() -> None:
    expected = Expected.answer(b"n" * 32, b"key", b"vault")
    what = evidence(attest(data=expected.report_data))
    assert Verifier(TRUSTED).verify(what, expected, NOW).bound == qualifying(expected.report_data)
    with pytest.raises(RefusedError) as error:
        Verifier(TRUSTED).verify(what, Expected.answer(b"m" * 32, b"key", b"vault"), NOW)
    assert error.value.step == VerifierStep.BINDING
    with pytest.raises(RefusedError) as error:
        Verifier(Anchors()).verify(what, expected, NOW)
    assert error.value.step == VerifierStep.KIND
