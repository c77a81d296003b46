"""Nitro: documents that others published, under AWS's own root, as they are and with defects."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime

import pytest
from authorities import vectors
from cryptography import x509

from tempo.errors import RefusedError
from tempo.trust.evidence import VENDORS, Anchors, Claims, Collateral, Evidence, Expected, Kind
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.nitro import Step, verify
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

pytest.importorskip("cbor2", reason="cbor2 is not installed (pip extra trust)")
THEN = datetime(2022, 10, 13, 9, 30, tzinfo=UTC)


def published(name: str = "valid-attestation-doc-bytes") -> Evidence:
    raw = (vectors("nitro") / name).read_bytes()
    return Evidence(Kind.NITRO, {"document": base64.b64decode(raw) if name.endswith("base64") else raw})


def check(evidence: Evidence, now: datetime = THEN) -> Claims:
    return verify(evidence, Anchors(), Collateral(), now)


def test_the_root_is_aws() -> None:
    root = x509.load_pem_x509_certificate((vectors("nitro") / "nitro.pem").read_bytes())
    assert VENDORS[Kind.NITRO] == {fingerprint(root)}


def test_a_published_document() -> None:
    claims = check(published())
    assert claims.measurements["pcr0"].startswith("f4d48b81a460c9916d1e685119074bf2")
    assert claims.platform == "i-020b6af9246d90e92-enc0183d09086c24190"
    with pytest.raises(RefusedError, match="bound to nothing") as error:  # it answers a question of another's
        Verifier(Anchors()).verify(published(), Expected(bytes(64)), THEN)
    assert error.value.step == VerifierStep.BINDING


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("debug-mode-attestation-doc-bytes", datetime(2022, 10, 12, 14, 0, tzinfo=UTC)),
        ("valid-attestation-doc-base64", datetime(2023, 9, 18, 15, 0, tzinfo=UTC)),
    ],
)
def test_published_documents_of_debugged_enclaves(name, now) -> None:
    with pytest.raises(RefusedError, match="PCR 0 of zeros") as error:
        check(published(name), now)
    assert error.value.step == Step.DEBUG


def test_three_hours_later() -> None:
    with pytest.raises(RefusedError, match="valid from 2022-10-13") as error:
        check(published(), datetime(2022, 10, 13, 12, 30, tzinfo=UTC))
    assert error.value.step == Step.CHAIN


def test_flipped_bits() -> None:
    raw = published().parts["document"]
    rng = random.Random(7)
    for place in range(0, len(raw), 13):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RefusedError):
            check(Evidence(Kind.NITRO, {"document": bytes(changed)}))
