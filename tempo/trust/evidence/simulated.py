"""UNSAFE. A machine that only says what it is, under a key that everybody has: for tests and trials.

    1 format     a statement with just these fields: measurement, svn, debug, report_data
    2 signature  Ed25519 by the well-known key
    3 debug      it does not say that it is debugged

It proves nothing at all. No policy admits it unless it says `allow-unsafe = true`.
"""

from __future__ import annotations

import enum
import hashlib
import json
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tempo.errors import RefusedError, UsageError
from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.binding import REPORT_DATA_BYTES
from tempo.trust.evidence.claims import Claims, Kind
from tempo.trust.evidence.envelope import Evidence

_SEED: Final = hashlib.sha256(b"tempo unsafe simulated TEE 1: everybody has this key").digest()
MEASUREMENT_BYTES: Final = 48
_MAX_BYTES: Final = 1024
_FIELDS: Final = "measurement, svn, debug, report_data"


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "unsafe-simulated 1 format"
    SIGNATURE = "unsafe-simulated 2 signature"
    DEBUG = "unsafe-simulated 3 debug"


def _key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_SEED)


def produce(report_data: bytes, measurement: bytes, svn: int = 1, debug: bool = False) -> Evidence:
    """What a machine with this measurement (48 bytes) would say. Anybody can say it: see above."""
    if len(report_data) != REPORT_DATA_BYTES or len(measurement) != MEASUREMENT_BYTES:
        raise UsageError(f"report data has {REPORT_DATA_BYTES} bytes, a measurement {MEASUREMENT_BYTES}")
    fields = {"measurement": measurement.hex(), "svn": svn, "debug": debug, "report_data": report_data.hex()}
    statement = _written(fields)
    return Evidence(Kind.SIMULATED, {"statement": statement, "signature": _key().sign(statement)})


def _written(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 3. Raises RefusedError. Needs no anchors, no collateral and no date."""
    statement = evidence.parts["statement"]
    try:
        if len(statement) > _MAX_BYTES:
            raise ValueError("too long")
        fields = json.loads(statement)
        measurement = bytes.fromhex(fields["measurement"])
        bound = bytes.fromhex(fields["report_data"])
        svn, debug = fields["svn"], fields["debug"]
        plain = _written(fields) == statement and len(fields) == 4
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RefusedError(
            Step.FORMAT, "another statement", "measurement, svn, debug, report_data"
        ) from error
    sizes = len(measurement) == MEASUREMENT_BYTES and len(bound) == REPORT_DATA_BYTES
    if not plain or not sizes or type(svn) is not int or type(debug) is not bool:
        raise RefusedError(Step.FORMAT, "another statement", _FIELDS)
    public = _key().public_key()
    try:
        public.verify(evidence.parts["signature"], statement)
    except InvalidSignature as error:
        raise RefusedError(Step.SIGNATURE, "a signature that does not fit", "the well-known key's") from error
    if debug:
        raise RefusedError(Step.DEBUG, "a debugged machine", "none that is debugged")
    return Claims(
        kind=Kind.SIMULATED,
        bound=bound,
        measurements={"measurement": measurement.hex()},
        root=hashlib.sha256(public.public_bytes_raw()).hexdigest(),
        debug=debug,
        tcb={"svn": svn},
    )
