"""AMD SEV-SNP (SEV-SNP Firmware ABI Specification, AMD 56860, revision 1.58; VCEK specification, AMD 57230).

    1 format       1,184 bytes; version 2 to 5; ECDSA P-384; what must be zero is zero
    2 certificate  a VCEK or VLEK for it, from the host's table or the collateral
    3 chain        VCEK or VLEK <- ASK or ASVK <- ARK, the ARK trusted; dates; revocation lists at hand
    4 signature    the report's, by that VCEK or VLEK
    5 chip         a VCEK's hardware id is the report's chip id
    6 tcb          the versions in the certificate are the report's
    7 debug        the guest's policy does not let the host look in
    8 agent        nothing else may take the guest away: no migration agent

What a policy asks for besides: measurement, TCB, VMPL, id keys.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tempo.errors import OutsideError, RefusedError
from tempo.trust.evidence import configfs
from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.chain import verify_chain
from tempo.trust.evidence.claims import NOT_PROVIDED, Claims, Kind
from tempo.trust.evidence.envelope import Evidence
from tempo.trust.evidence.snp_certificates import HARDWARE_ID, from_table, hardware_id, is_vlek, tcb_of
from tempo.trust.evidence.snp_report import SIGNED_BYTES, SnpReport, tcb_components

PROVIDER: Final = "sev_guest"


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "sev-snp 1 format"
    CERTIFICATE = "sev-snp 2 certificate"
    CHAIN = "sev-snp 3 chain"
    SIGNATURE = "sev-snp 4 signature"
    CHIP = "sev-snp 5 chip"
    TCB = "sev-snp 6 tcb"
    DEBUG = "sev-snp 7 debug"
    AGENT = "sev-snp 8 agent"


def produce(report_data: bytes, root: Path = configfs.ROOT) -> Evidence:
    """Evidence over 64 bytes, inside an SEV-SNP guest. Raises OutsideError anywhere else."""
    report = configfs.take(report_data, root)
    if report.provider != PROVIDER:
        raise OutsideError(f"{root} belongs to {report.provider}, not to {PROVIDER}: no SEV-SNP guest")
    parts = {"report": report.outblob}
    if report.auxblob.strip(b"\0"):
        parts["certificates"] = report.auxblob
    return Evidence(Kind.SEV_SNP, parts)


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 8. Raises RefusedError. What the report is bound to is the caller's to compare."""
    raw = evidence.parts["report"]
    report = SnpReport.parse(raw, Step.FORMAT)
    hosts = from_table(evidence.parts.get("certificates", b""), Step.CERTIFICATE)
    pool = [*hosts, *collateral.certificates]
    leaf = _leaf(pool, report)
    chain = verify_chain(leaf, pool, anchors.of(Kind.SEV_SNP), collateral.crls, now, Step.CHAIN)
    _check_signature(leaf, report, raw)
    _check_chip(leaf, report)
    tcb = _check_tcb(leaf, report)
    if report.debug:
        raise RefusedError(Step.DEBUG, f"the guest policy {report.policy:#x} with debugging", "none (bit 19)")
    if report.migration_agent:
        raise RefusedError(Step.AGENT, f"the guest policy {report.policy:#x} with an agent", "none (bit 18)")
    return Claims(
        kind=Kind.SEV_SNP,
        bound=report.report_data,
        measurements={name: value.hex() for name, value in report.measurements.items()},
        root=chain.root,
        debug=report.debug,
        tcb=tcb,
        signers={name: value.hex() for name, value in report.signers.items() if any(value)},
        platform=report.chip_id.hex() if any(report.chip_id) else NOT_PROVIDED,
        revocation=chain.revocation,
        details={
            "version": report.version,
            "vmpl": report.vmpl,
            "policy": f"{report.policy:#x}",
            "smt": report.smt,
            "platform_info": f"{report.platform:#x}",
            "signing_key": "vlek" if is_vlek(leaf) else "vcek",
            "report_id": report.report_id.hex(),
            **{f"committed_{name}": number for name, number in report.committed.items()},
        },
    )


def _leaf(pool: Sequence[x509.Certificate], report: SnpReport) -> x509.Certificate:
    """The VLEK, or the VCEK of the report's chip; of another chip where that is all there is."""
    wanted = [c for c in pool if is_vlek(c)] if report.by_vlek else [c for c in pool if _is_vcek(c)]
    if not wanted:
        name = "VLEK" if report.by_vlek else "VCEK"
        raise RefusedError(
            Step.CERTIFICATE,
            f"no {name} among {len(pool)} certificates",
            f"the {name} of this machine, from the host's table or the collateral",
        )
    fitting = [c for c in wanted if _fits(c, report)]
    return (fitting or wanted)[0]


def _is_vcek(certificate: x509.Certificate) -> bool:
    return hardware_id(certificate) is not None


def _fits(certificate: x509.Certificate, report: SnpReport) -> bool:
    """Same chip, same TCB: there may be several of one chip at hand, one for each of its updates."""
    chip = hardware_id(certificate)
    if chip is not None and chip != report.chip_id[: len(chip)]:
        return False
    try:
        layout, versions = tcb_of(certificate, Step.TCB)
    except RefusedError:
        return False
    return tcb_components(report.reported_tcb, layout) == versions


def _check_signature(leaf: x509.Certificate, report: SnpReport, raw: bytes) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise RefusedError(Step.SIGNATURE, "a certificate for another kind of key", "ECDSA on P-384")
    try:
        signature = encode_dss_signature(report.signature_r, report.signature_s)
        key.verify(signature, raw[:SIGNED_BYTES], ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError) as error:
        raise RefusedError(
            Step.SIGNATURE, "a signature that does not fit the report", "one by the certificate's key"
        ) from error


def _check_chip(leaf: x509.Certificate, report: SnpReport) -> None:
    chip = hardware_id(leaf)
    if chip is None:  # a VLEK belongs to a provider of machines, not to a chip
        return
    if report.chip_masked:
        raise RefusedError(Step.CHIP, "a chip id that the host masks", f"the VCEK's ({HARDWARE_ID})")
    if chip != report.chip_id[: len(chip)] or any(report.chip_id[len(chip) :]):
        raise RefusedError(
            Step.CHIP, f"the chip {report.chip_id.hex()[:16]}...", f"the VCEK's, {chip.hex()[:16]}..."
        )


def _check_tcb(leaf: x509.Certificate, report: SnpReport) -> Mapping[str, int]:
    layout, versions = tcb_of(leaf, Step.TCB)
    reported = tcb_components(report.reported_tcb, layout)
    if reported != versions:
        raise RefusedError(Step.TCB, f"{_versions(reported)} in the report", _versions(versions))
    return reported


def _versions(tcb: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in tcb.items())
