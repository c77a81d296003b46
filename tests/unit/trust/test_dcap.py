"""TDX and SGX on a platform that the tests made, under a root of its own: every defect at its own step."""

from __future__ import annotations

import contextlib
import json
import random

import dcap_maker as dcap
import pytest
from authorities import DAY, NOW, certify
from cryptography.hazmat.primitives.asymmetric import ec

from tempo.errors import RefusedError
from tempo.trust.evidence import Anchors, Collateral, Evidence, Expected, sgx_dcap, tdx
from tempo.trust.evidence.dcap import trimmed
from tempo.trust.verifier import Step as VerifierStep
from tempo.trust.verifier import Verifier

pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed (pip extra trust)")
pytestmark = pytest.mark.security
TEES = pytest.mark.parametrize("tee", ["SGX", "TDX"])
MODULES = {"SGX": sgx_dcap, "TDX": tdx}


def verify(
    raw: bytes, tee: str, collateral: Collateral | None = None, now=NOW, anchors: Anchors | None = None
):
    made = dcap.platform()
    collateral = dcap.collateral(made, tee) if collateral is None else collateral
    anchors = anchors or made.anchors()
    return MODULES[tee].verify(dcap.evidence(raw, tee), anchors, collateral, now)


def refused(step: str, match: str, raw: bytes, tee: str, **given) -> None:
    with pytest.raises(RefusedError, match=match) as error:
        verify(raw, tee, **given)
    assert error.value.step == MODULES[tee].Step[step]


def test_a_made_quote_of_sgx() -> None:
    claims = verify(dcap.quote(dcap.platform(), "SGX"), "SGX")
    assert claims.bound == dcap.DATA
    assert claims.measurements == {"mr_enclave": dcap.MR["mr_enclave"].hex(), "isv_prod_id": "0007"}
    assert claims.signers == {"mr_signer": dcap.MR["mr_signer"].hex()}
    assert claims.tcb == {"isv_svn": 3, "tcb_date": 20250312, "evaluation": 17}
    assert claims.status == "UpToDate"


def test_a_made_quote_of_tdx() -> None:
    claims = verify(dcap.quote(dcap.platform(), "TDX"), "TDX")
    assert claims.bound == dcap.DATA
    assert claims.measurements["mr_td"] == dcap.MR["mr_td"].hex()
    assert claims.measurements["rt_mr1"] == dcap.MR["rt_mr1"].hex()
    assert claims.tcb["module"] == 5
    assert claims.details["sept_ve_disable"] is True
    assert claims.debug is False


@pytest.mark.parametrize(("tee", "attributes"), [("SGX", 0x07), ("TDX", 0x01), ("TDX", 0x80)])
def test_debug(tee, attributes) -> None:
    refused("DEBUG", "debugging", dcap.quote(dcap.platform(), tee, attributes=attributes), tee)


@TEES
def test_lengths(tee) -> None:
    raw = dcap.quote(dcap.platform(), tee)
    for each in (raw + b"\0", raw + b"x" * 100, raw[:-1], raw[:500]):
        refused("FORMAT", "bytes", each, tee)
    for each in (b"", raw[:47], b"\x09" + raw[1:], raw[:4] + b"\x55" + raw[5:]):
        refused("FORMAT", "no quote", each, tee)
    assert trimmed(raw + bytes(70)) == raw
    assert trimmed(raw + b"x") == raw + b"x"


@TEES
def test_the_other_tee(tee) -> None:
    other = "TDX" if tee == "SGX" else "SGX"
    raw = dcap.quote(dcap.platform(), other)
    refused("FORMAT", "no quote", raw, tee)


@TEES
@pytest.mark.parametrize("which", ["key", "pck_key"])
def test_another_key_signed(tee, which) -> None:
    raw = dcap.quote(dcap.platform(), tee, **{which: ec.generate_private_key(ec.SECP256R1())})
    refused("QUOTE", "[Ss]ignature", raw, tee)


@TEES
def test_collateral(tee) -> None:
    made = dcap.platform()
    raw = dcap.quote(made, tee)
    refused("COLLATERAL", "0 sets", raw, tee, collateral=Collateral())
    refused("COLLATERAL", "1 sets", raw, tee, collateral=dcap.collateral(made, tee, fmspc=b"other!"))
    other = "TDX" if tee == "SGX" else "SGX"
    refused("COLLATERAL", "1 sets", raw, tee, collateral=dcap.collateral(made, other))
    for text in ("{", "{}", "[]", '"x"', "[" * 5000):
        refused("COLLATERAL", "no collateral", raw, tee, collateral=Collateral(dcap=(text,)))


@TEES
def test_a_foreign_root(tee) -> None:
    made = dcap.platform()
    foreign = dcap.platform(svn=6)
    raw = dcap.quote(made, tee)
    refused("COLLATERAL", "under the root", raw, tee, anchors=foreign.anchors())
    refused("COLLATERAL", "under the root", raw, tee, anchors=Anchors())
    papers = dcap.collateral(foreign, tee)
    refused("QUOTE", "Verification failed", raw, tee, collateral=papers, anchors=foreign.anchors())


@TEES
def test_dates(tee) -> None:
    raw = dcap.quote(dcap.platform(), tee)
    refused("QUOTE", "Expired", raw, tee, now=NOW + 21 * DAY)
    refused("QUOTE", "future", raw, tee, now=NOW - 2 * DAY)


@TEES
def test_revoked(tee) -> None:
    made = dcap.platform()
    raw = dcap.quote(made, tee)
    for lists in ({"revoked": (made.pck.certificate,)}, {"root_revoked": (made.ca.certificate,)}):
        refused("QUOTE", "certificate chain", raw, tee, collateral=dcap.collateral(made, tee, **lists))


@TEES
def test_old_tcb(tee) -> None:
    made = dcap.platform()
    raw = dcap.quote(made, tee)
    refused("TCB", "No matching TCB level", raw, tee, collateral=dcap.collateral(made, tee, least=6))
    old = dcap.collateral(made, tee, status="OutOfDate", advisories=("INTEL-SA-00001",))
    claims = verify(raw, tee, old)
    assert (claims.status, claims.advisories) == ("OutOfDate", ("INTEL-SA-00001",))  # for a policy to refuse


@TEES
def test_a_platform_that_was_revoked(tee) -> None:
    made = dcap.platform()
    papers = dcap.collateral(made, tee, status="Revoked")
    refused("QUOTE", "Revoked", dcap.quote(made, tee), tee, collateral=papers)


@pytest.mark.parametrize("seam", [b"\x01", bytes(48) + b"\x01"])
def test_a_module_that_is_not_intels(seam) -> None:
    refused("QUOTE", "module identity", dcap.quote(dcap.platform(), "TDX", seam=seam), "TDX")


@TEES
def test_collateral_that_another_signed(tee) -> None:
    made = dcap.platform()
    forger = certify("Intel SGX TCB Signing", ec.generate_private_key(ec.SECP256R1()), algorithm=dcap.SHA256)
    papers = dcap.collateral(made, tee, signer=forger)
    refused("QUOTE", "Verification failed", dcap.quote(made, tee), tee, collateral=papers)


@TEES
def test_collateral_that_was_changed(tee) -> None:
    made = dcap.platform()
    fields = json.loads(dcap.collateral(made, tee, status="OutOfDate").dcap[0])
    for name in ("tcb_info", "qe_identity"):
        changed = fields | {
            name: fields[name].replace('"tcbEvaluationDataNumber":17', '"tcbEvaluationDataNumber":18')
        }
        papers = Collateral(dcap=(json.dumps(changed),))
        refused("QUOTE", "[Ss]ignature", dcap.quote(made, tee), tee, collateral=papers)


@TEES
def test_flipped_bits_never_change_a_claim(tee) -> None:
    """Some bits say nothing and are not signed: line ends in PEM, what sort of certificates these are."""
    made = dcap.platform()
    raw, papers, anchors = dcap.quote(made, tee), dcap.collateral(made, tee), made.anchors()
    want = verify(raw, tee, papers)
    pem = raw.index(b"-----BEGIN")
    sorts = {pem - 6, pem - 5} | ({764, 765} if tee == "TDX" else set())
    rng = random.Random(4)
    for place in [*range(0, pem, 3), *rng.sample(range(pem, len(raw)), 100)]:
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        if place < pem and place not in sorts:
            with pytest.raises(RefusedError):
                MODULES[tee].verify(dcap.evidence(bytes(changed), tee), anchors, papers, NOW)
            continue
        with contextlib.suppress(RefusedError):
            assert MODULES[tee].verify(dcap.evidence(bytes(changed), tee), anchors, papers, NOW) == want


@TEES
def test_cut_quotes_are_refused_everywhere(tee) -> None:
    made = dcap.platform()
    raw, papers, anchors = dcap.quote(made, tee), dcap.collateral(made, tee), made.anchors()
    start = 48 + (384 if tee == "SGX" else 584)
    for length in range(start + 4, len(raw), 97):
        cut = raw[:start] + (length - start - 4).to_bytes(4, "little") + raw[start + 4 : length]
        with pytest.raises(RefusedError):
            MODULES[tee].verify(dcap.evidence(cut, tee), anchors, papers, NOW)


@TEES
def test_the_verifier_compares_what_it_is_bound_to(tee) -> None:
    made = dcap.platform()
    expected = Expected.answer(b"n" * 32, b"key", b"vault")
    raw = dcap.quote(made, tee, data=expected.report_data)
    verifier = Verifier(made.anchors(), dcap.collateral(made, tee))
    assert verifier.verify(dcap.evidence(raw, tee), expected, NOW).bound == expected.report_data
    for other in (Expected.answer(b"m" * 32, b"key", b"vault"), Expected.answer(b"n" * 32, b"yek", b"vault")):
        with pytest.raises(RefusedError) as error:
            verifier.verify(dcap.evidence(raw, tee), other, NOW)
        assert error.value.step == VerifierStep.BINDING


def test_a_huge_quote_is_refused_before_it_is_read() -> None:
    with pytest.raises(RefusedError, match="at most 65536"):
        Evidence(dcap.Kind.TDX, {"quote": bytes(1 << 20)})
