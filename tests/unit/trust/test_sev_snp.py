"""SEV-SNP on a made platform: every defect is refused at its own step."""

from __future__ import annotations

import contextlib
import dataclasses
import random

import pytest
import snp_maker as snp
from authorities import DAY, NOW, certify, revoke
from cryptography.hazmat.primitives.asymmetric import ec

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral, Expected
from tempo.trust.evidence.sev_snp import Step, verify
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def made() -> snp.Platform:
    return snp.platform()


def refused(step: str, made: snp.Platform, raw: bytes, *, now=NOW, match: str | None = None, **given) -> None:
    collateral = given.pop("collateral", made.collateral)
    anchors = given.pop("anchors", made.anchors)
    with pytest.raises(RefusedError, match=match) as error:
        verify(snp.evidence(raw, **given), anchors, collateral, now)
    assert error.value.step == step
    assert error.value.found
    assert error.value.expected


def test_a_made_report(made) -> None:
    claims = verify(snp.evidence(snp.report(made.vcek.key)), made.anchors, made.collateral, NOW)
    assert claims.bound == snp.DATA
    assert claims.measurements["measurement"] == snp.MEASUREMENT.hex()
    assert dict(claims.tcb) == snp.MILAN_TCB
    assert claims.platform == snp.CHIP.hex()
    assert claims.debug is False
    assert claims.revocation is False
    assert claims.details["signing_key"] == "vcek"


@pytest.mark.parametrize("little_endian", [True, False])
def test_certificates_from_the_hosts_table(made, little_endian) -> None:
    evidence = snp.evidence(snp.report(made.vcek.key), snp.table(made, little_endian))
    assert verify(evidence, made.anchors, Collateral(), NOW).platform == snp.CHIP.hex()


def test_a_vlek_has_no_chip(made) -> None:
    raw = snp.report(made.vlek.key, flags=1 << 2, chip=bytes(64))
    claims = verify(snp.evidence(raw), made.anchors, made.collateral, NOW)
    assert claims.details["signing_key"] == "vlek"
    refused(Step.SIGNATURE, made, snp.report(made.vcek.key, flags=1 << 2))


def test_turin_has_a_short_chip_id_and_one_component_more() -> None:
    tcb = {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 200}
    made = snp.platform(tcb, chip=b"12345678", product="Turin-B0")
    layout = bytes([1, 2, 3, 4, 0, 0, 0, 200])
    raw = snp.report(made.vcek.key, tcb=layout, chip=b"12345678", version=3, family=0x1A)
    claims = verify(snp.evidence(raw), made.anchors, made.collateral, NOW)
    assert dict(claims.tcb) == tcb
    assert claims.details["committed_fmc"] == 1
    raw = snp.report(made.vcek.key, tcb=layout, chip=b"12345678" + b"x", version=3, family=0x1A)
    refused(Step.CHIP, made, raw)


@pytest.mark.parametrize(
    ("step", "match", "changes"),
    [
        (Step.FORMAT, "version 1", {"version": 1}),
        (Step.FORMAT, "signing key 7", {"flags": 7 << 2}),
        (Step.CHIP, "chip", {"chip": bytes(63) + b"x"}),
        (Step.CHIP, "masks", {"flags": 2}),
        (Step.CHIP, "masks", {"chip": bytes(64)}),
        (Step.TCB, "snp 7", {"tcb": bytes([3, 0, 0, 0, 0, 0, 7, 115])}),
        (Step.TCB, "microcode 116", {"tcb": bytes([3, 0, 0, 0, 0, 0, 8, 116])}),
        (Step.DEBUG, "debugging", {"policy": snp.SMT_AND_ONE | snp.DEBUG}),
        (Step.AGENT, "agent", {"policy": snp.SMT_AND_ONE | snp.AGENT}),
    ],
)
def test_a_signed_report_that_says_the_wrong_thing(made, step, match, changes) -> None:
    refused(step, made, snp.report(made.vcek.key, **changes), match=match)


def test_lengths(made) -> None:
    raw = snp.report(made.vcek.key)
    for each in (b"", raw[:-1], raw + b"\0", raw[:0x2A0], raw * 3):
        refused(Step.FORMAT, made, each, match="bytes")


def test_another_key_signed(made) -> None:
    refused(Step.SIGNATURE, made, snp.report(ec.generate_private_key(ec.SECP384R1())))


def test_no_certificate(made) -> None:
    raw = snp.report(made.vcek.key)
    refused(Step.CERTIFICATE, made, raw, collateral=Collateral(), match="no VCEK")
    without = Collateral(tuple(h.certificate for h in (made.vcek, made.ark)))
    refused(Step.CHAIN, made, raw, collateral=without, match="no certificate of CN=SEV-Made")


def test_a_foreign_chain(made) -> None:
    other = snp.platform(keys=1)
    raw = snp.report(other.vcek.key)
    refused(Step.CHAIN, made, raw, collateral=other.collateral, match="root that the policy trusts")
    mixed = Collateral((other.vcek.certificate, *made.collateral.certificates[2:]))
    refused(Step.CHAIN, made, raw, collateral=mixed, match="did not sign")
    refused(Step.CHAIN, made, snp.report(made.vcek.key), anchors=Anchors(), match="policy trusts")


def test_expired_and_not_yet_valid(made) -> None:
    raw = snp.report(made.vcek.key)
    for now in (NOW + 51 * DAY, NOW - 101 * DAY, NOW + 400 * DAY):
        refused(Step.CHAIN, made, raw, now=now, match="valid from")


def test_an_issuer_that_is_no_ca() -> None:
    made = snp.platform(ask_ca=False)
    refused(Step.CHAIN, made, snp.report(made.vcek.key), match="no CA")


def test_a_ca_below_one_that_allows_none(made) -> None:
    below = certify("SEV-Below", snp.rsa_key(1), made.ask, ca=True)
    leaf = certify(
        "SEV-VCEK",
        ec.generate_private_key(ec.SECP384R1()),
        below,
        extensions=snp._amd(snp.MILAN_TCB, snp.CHIP, "M-1"),
    )
    pool = Collateral(tuple(h.certificate for h in (leaf, below, made.ask, made.ark)))
    refused(Step.CHAIN, made, snp.report(leaf.key), collateral=pool, match="1 CAs below")


def test_revocation(made) -> None:
    raw = snp.report(made.vcek.key)

    def with_lists(*crls):
        return dataclasses.replace(made.collateral, crls=crls)

    good = with_lists(revoke(made.ark), revoke(made.ask))
    assert verify(snp.evidence(raw), made.anchors, good, NOW).revocation is True
    half = with_lists(revoke(made.ark))
    assert verify(snp.evidence(raw), made.anchors, half, NOW).revocation is False
    for crl in (revoke(made.ark, made.ask.certificate), revoke(made.ask, made.vcek.certificate)):
        refused(Step.CHAIN, made, raw, collateral=with_lists(crl), match="revoked")
    old = with_lists(revoke(made.ark, start=NOW - 30 * DAY, end=NOW - DAY))
    refused(Step.CHAIN, made, raw, collateral=old, match="current")
    forged = with_lists(revoke(snp.platform(keys=1).ark, made.ask.certificate))  # same name, another key
    assert verify(snp.evidence(raw), made.anchors, forged, NOW).revocation is False


def test_every_flipped_bit_of_a_report(made) -> None:
    raw = snp.report(made.vcek.key)
    rng = random.Random(1)
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RefusedError):
            verify(snp.evidence(bytes(changed)), made.anchors, made.collateral, NOW)


def test_flipped_bits_of_the_hosts_table_never_change_a_claim(made) -> None:
    raw, table = snp.report(made.vcek.key), snp.table(made)
    want = verify(snp.evidence(raw, table), made.anchors, Collateral(), NOW)
    rng = random.Random(2)
    for _ in range(150):
        changed = bytearray(table)
        changed[rng.randrange(4096)] ^= 1 << rng.randrange(8)
        with contextlib.suppress(RefusedError):
            assert verify(snp.evidence(raw, bytes(changed)), made.anchors, Collateral(), NOW) == want


def test_a_table_that_points_outside(made) -> None:
    raw, table = snp.report(made.vcek.key), snp.table(made)
    far = table[:16] + (2**32 - 1).to_bytes(4, "little") + table[20:]
    for each in (far, table[:30], bytes([1]) * 24 * 20):
        refused(Step.CERTIFICATE, made, raw, certificates=each, match="table")


def test_the_verifier_compares_what_it_is_bound_to(made) -> None:
    key, nonce = b"k" * 32, b"n" * 32
    expected = Expected.answer(nonce, key, b"vault")
    evidence = snp.evidence(snp.report(made.vcek.key, data=expected.report_data))
    verifier = Verifier(made.anchors, made.collateral)
    assert verifier.verify(evidence, expected, NOW).bound == expected.report_data
    for other in (
        Expected.answer(b"m" * 32, key, b"vault"),
        Expected.answer(nonce, b"l" * 32, b"vault"),
        Expected.answer(nonce, key, b"other"),
        Expected.answer(nonce, key + b"v", b"ault"),
    ):
        with pytest.raises(RefusedError) as error:
            verifier.verify(evidence, other, NOW)
        assert error.value.step == VerifierStep.BINDING
