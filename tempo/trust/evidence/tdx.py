"""Intel TDX: a quote from configfs-tsm, verified with Intel's collateral. Steps: see dcap.py."""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tempo.errors import OutsideError, RefusedError
from tempo.trust.evidence import configfs
from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.claims import Claims, Kind
from tempo.trust.evidence.dcap import platform_details, tcb_date, trimmed, verify_quote
from tempo.trust.evidence.envelope import Evidence

PROVIDER: Final = "tdx_guest"
_MEASUREMENTS: Final = (
    *("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3", "mr_config_id", "mr_owner", "mr_owner_config"),
    *("mr_seam", "mr_signer_seam", "mr_service_td"),
)
_SEPT_VE_DISABLE: Final = 28
_MIGRATABLE: Final = 29


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "tdx 1 format"
    COLLATERAL = "tdx 2 collateral"
    DEBUG = "tdx 3 debug"
    QUOTE = "tdx 4 quote"
    TCB = "tdx 5 tcb"


def produce(report_data: bytes, root: Path = configfs.ROOT) -> Evidence:
    """Evidence over 64 bytes, inside a trust domain. Raises OutsideError anywhere else."""
    report = configfs.take(report_data, root)
    if report.provider != PROVIDER:
        raise OutsideError(f"{root} belongs to {report.provider}, not to {PROVIDER}: no TDX guest")
    return Evidence(Kind.TDX, {"quote": trimmed(report.outblob)})


def _check_debug(report: Any) -> None:
    attributes = bytes(report.td_attributes)
    if attributes[0]:
        raise RefusedError(
            Step.DEBUG, f"the TD attributes {attributes.hex()} with debugging", "none of the bits 0 to 7"
        )


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 5. Raises RefusedError. What the quote is bound to is the caller's to compare."""
    raw = evidence.parts["quote"]
    found, root = verify_quote(raw, Kind.TDX, Step, _check_debug, anchors, collateral, now)
    report = _td_report(found["report"])
    attributes = int.from_bytes(bytes.fromhex(report["td_attributes"]), "little")
    svn = bytes.fromhex(report["tee_tcb_svn"])
    return Claims(
        kind=Kind.TDX,
        bound=bytes.fromhex(report["report_data"]),
        measurements={name: report[name] for name in _MEASUREMENTS if name in report},
        root=root,
        debug=False,
        tcb={"module": svn[0], "module_major": svn[1], **tcb_date(found)},
        status=str(found["tcb"]["status"]),
        advisories=tuple(found["tcb"]["advisory_ids"]),
        platform=bytes(found["platform"]["pck"]["ppid"]).hex(),
        revocation=True,  # the library takes no quote without both lists
        details={
            "td_attributes": report["td_attributes"],
            "xfam": report["xfam"],
            "sept_ve_disable": bool(attributes >> _SEPT_VE_DISABLE & 1),
            "migratable": bool(attributes >> _MIGRATABLE & 1),
            **platform_details(found),
        },
    )


def _td_report(report: dict[str, Any]) -> dict[str, str]:
    """Fields of the TD report: 1.5 holds the one of 1.0 within itself."""
    (fields,) = report.values()
    flat = {name: value for name, value in fields.items() if isinstance(value, str)}
    for value in fields.values():
        if isinstance(value, dict):
            flat |= {name: inner for name, inner in value.items() if isinstance(inner, str)}
    return flat
