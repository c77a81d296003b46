"""SEV-SNP: reports that others published (shared/vectors), as they are and with defects."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
import snp_maker as snp
from authorities import vectors

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral
from tempo.trust.evidence.anchors import parse_certificates
from tempo.trust.evidence.sev_snp import Step, verify

REAL = {"report_milan.hex": "vcek_milan.der", "attestation.bin": "vcek.testcer"}
THEN = datetime(2025, 6, 25, tzinfo=UTC)


def real(report: str, chain: str = "cert_chain_milan") -> tuple[bytes, Collateral]:
    folder = vectors("snp")
    raw = (folder / report).read_bytes()
    raw = bytes.fromhex(raw.decode().strip()) if report.endswith(".hex") else raw
    papers = parse_certificates((folder / REAL[report]).read_bytes())
    return raw, Collateral(tuple(papers + parse_certificates((folder / chain).read_bytes())))


def test_a_published_report_of_milan() -> None:
    raw, collateral = real("report_milan.hex")
    claims = verify(snp.evidence(raw), Anchors(), collateral, THEN)
    assert claims.bound.hex().startswith("d447b55d197491bfe15cf298f9de9986")
    assert claims.measurements["measurement"].startswith("7a1e5c266c0108dbc9bb94fa92695132")
    assert dict(claims.tcb) == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}


def test_a_published_report_of_a_debugged_guest() -> None:
    raw, collateral = real("attestation.bin")
    with pytest.raises(RefusedError, match="0xb0000 with debugging") as error:
        verify(snp.evidence(raw), Anchors(), collateral, THEN)
    assert error.value.step == Step.DEBUG


def test_published_reports_under_others_certificates() -> None:
    raw, _ = real("report_milan.hex")
    _, other = real("attestation.bin")
    with pytest.raises(RefusedError) as error:
        verify(snp.evidence(raw), Anchors(), other, THEN)
    assert error.value.step == Step.SIGNATURE
    for chain, match in (
        ("milanvlek.testcer", "no certificate of"),
        ("ask_ark_genoa_vlek.pem", "no certificate"),
    ):
        raw, collateral = real("report_milan.hex", chain)
        with pytest.raises(RefusedError, match=match) as error:
            verify(snp.evidence(raw), Anchors(), collateral, THEN)
        assert error.value.step == Step.CHAIN


def test_a_published_report_after_its_certificate_expired() -> None:
    raw, collateral = real("report_milan.hex")
    with pytest.raises(RefusedError, match="valid from 2023-04-03") as error:
        verify(snp.evidence(raw), Anchors(), collateral, datetime(2030, 5, 1, tzinfo=UTC))
    assert error.value.step == Step.CHAIN


def test_flipped_bits_of_a_published_report() -> None:
    raw, collateral = real("report_milan.hex")
    rng = random.Random(3)
    for place in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RefusedError):
            verify(snp.evidence(bytes(changed)), Anchors(), collateral, THEN)
