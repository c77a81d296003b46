"""Intel SGX: a DCAP quote, under Gramine from its files, verified with Intel's collateral; steps: dcap.py.

Gramine (its documentation, "Attestation and Secret Provisioning"): what is written to
/dev/attestation/user_report_data is in the quote that /dev/attestation/quote then holds.
"""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tempo.errors import OutsideError, RefusedError, UsageError
from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.binding import REPORT_DATA_BYTES
from tempo.trust.evidence.claims import Claims, Kind
from tempo.trust.evidence.dcap import platform_details, tcb_date, trimmed, verify_quote
from tempo.trust.evidence.envelope import MAX_PART_BYTES, Evidence

ROOT: Final = Path("/dev/attestation")
_DEBUG: Final = 1
_TYPE: Final = "dcap"


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "sgx-dcap 1 format"
    COLLATERAL = "sgx-dcap 2 collateral"
    DEBUG = "sgx-dcap 3 debug"
    QUOTE = "sgx-dcap 4 quote"
    TCB = "sgx-dcap 5 tcb"


def produce(report_data: bytes, root: Path = ROOT) -> Evidence:
    """Evidence over 64 bytes, inside an enclave of Gramine. Raises OutsideError anywhere else."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise UsageError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
    try:
        with (root / "attestation_type").open("rb") as file:
            kind = file.read(64).decode("ascii", "replace").strip()
        if kind != _TYPE:
            raise OutsideError(
                f'Gramine offers {kind!r} and not {_TYPE!r}: sgx.remote_attestation = "dcap" in its manifest'
            )
        with (root / "user_report_data").open("r+b", buffering=0) as file:
            file.write(report_data)
        with (root / "quote").open("rb", buffering=0) as file:
            raw = file.read(MAX_PART_BYTES)
    except OSError as error:
        raise OutsideError(f"no quote can be had at {root} ({error.strerror}): is this Gramine?") from error
    return Evidence(Kind.SGX_DCAP, {"quote": trimmed(raw)})


def _check_debug(report: Any) -> None:
    attributes = bytes(report.attributes)
    if attributes[0] >> _DEBUG & 1:
        raise RefusedError(Step.DEBUG, f"the attributes {attributes.hex()} with debugging", "none (bit 1)")


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 5. Raises RefusedError. What the quote is bound to is the caller's to compare."""
    raw = evidence.parts["quote"]
    found, root = verify_quote(raw, Kind.SGX_DCAP, Step, _check_debug, anchors, collateral, now)
    report = found["report"]["SgxEnclave"]
    return Claims(
        kind=Kind.SGX_DCAP,
        bound=bytes.fromhex(report["report_data"]),
        measurements={
            "mr_enclave": report["mr_enclave"],
            "isv_prod_id": f"{int(report['isv_prod_id']):04x}",
        },
        root=root,
        debug=False,
        tcb={"isv_svn": int(report["isv_svn"]), **tcb_date(found)},
        status=str(found["tcb"]["status"]),
        advisories=tuple(found["tcb"]["advisory_ids"]),
        signers={"mr_signer": report["mr_signer"]},
        platform=bytes(found["platform"]["pck"]["ppid"]).hex(),
        revocation=True,  # the library takes no quote without both lists
        details={
            "attributes": report["attributes"],
            **platform_details(found),
        },
    )
