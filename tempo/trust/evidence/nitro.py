"""AWS Nitro Enclaves: an attestation document (AWS, "Verifying the root of trust"; COSE_Sign1, RFC 9052).

    1 format     COSE_Sign1 with ES384 and nothing that is not signed; the fields that AWS documents
    2 chain      the document's certificate up to AWS's root: signatures, dates, CAs
    3 signature  of the document, by its certificate
    4 debug      PCR 0 to 2 are not zero: those of a debugged enclave are

The document is verified here; it is produced inside an enclave through /dev/nsm, which has no file interface.
Its `user_data` must be the 64 bytes of report data. Its certificates live for three hours.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tempo.errors import RefusedError, UnsupportedError
from tempo.trust.evidence.anchors import Anchors, Collateral, parse_certificates
from tempo.trust.evidence.chain import MAX_CHAIN, verify_chain
from tempo.trust.evidence.claims import NOT_PROVIDED, Claimed, Claims, Kind
from tempo.trust.evidence.envelope import Evidence

MAX_DOCUMENT_BYTES: Final = 16384
_TAG: Final = b"\xd2"  # COSE_Sign1 may be tagged with 18
_ES384: Final = {1: -35}
_NUMBER_BYTES: Final = 48
_FIELDS: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
#: Largest of the fields that the enclave fills, from AWS's specification.
_MAX_FIELD_BYTES: Final = {"user_data": 512, "nonce": 512, "public_key": 1024}
_PCR_BYTES: Final = 48
_MAX_PCR: Final = 31
_DEBUGGED: Final = (0, 1, 2)


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "nitro 1 format"
    CHAIN = "nitro 2 chain"
    SIGNATURE = "nitro 3 signature"
    DEBUG = "nitro 4 debug"


def _cbor2() -> Any:
    try:
        import cbor2
    except ImportError as error:
        raise UnsupportedError(
            "Nitro's documents are read by cbor2, which is not installed",
            "pip install tempo-confidential[trust]",
        ) from error
    return cbor2


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 4. Raises RefusedError. What the document is bound to is the caller's to compare."""
    protected, payload, signature = _envelope(evidence.parts["document"])
    fields = _fields(payload)
    pcrs = _pcrs(fields["pcrs"])
    leaf, bundle = _certificates(fields)
    pool = [*bundle, *collateral.certificates]
    chain = verify_chain(leaf, pool, anchors.of(Kind.NITRO), collateral.crls, now, Step.CHAIN)
    _check_signature(leaf, protected, payload, signature)
    if zeros := [index for index in _DEBUGGED if not any(pcrs.get(index, b""))]:
        raise RefusedError(Step.DEBUG, f"PCR {zeros[0]} of zeros", "an enclave without --debug-mode")
    user_data = _optional(fields, "user_data")
    return Claims(
        kind=Kind.NITRO,
        bound=b"" if user_data is NOT_PROVIDED else user_data,
        measurements={f"pcr{index}": value.hex() for index, value in sorted(pcrs.items())},
        root=chain.root,
        debug=False,
        platform=fields["module_id"],
        revocation=chain.revocation,
        nonce=_optional(fields, "nonce"),
        public_key=_optional(fields, "public_key"),
        details={"module_id": fields["module_id"], "timestamp_ms": fields["timestamp"]},
    )


def _decoded(raw: bytes, what: str) -> Any:
    """The one item that these bytes are, written in the one way we would write it."""
    cbor = _cbor2()
    try:
        item = cbor.loads(raw)
        canonical = cbor.dumps(item) == raw
    except (cbor.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise RefusedError(Step.FORMAT, f"{what} that is no CBOR", "CBOR") from error
    if not canonical:  # bytes behind it, a name twice, lengths in an odd form
        raise RefusedError(Step.FORMAT, f"{what} with bytes too many, or in an odd form", "plain CBOR")
    return item


def _envelope(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload, signature."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise RefusedError(Step.FORMAT, f"{len(raw)} bytes", f"at most {MAX_DOCUMENT_BYTES}")
    item = _decoded(raw.removeprefix(_TAG), "a document")
    if not isinstance(item, list) or len(item) != 4 or [type(x) for x in item] != [bytes, dict, bytes, bytes]:
        raise RefusedError(Step.FORMAT, "another structure", "COSE_Sign1: header, {}, payload, signature")
    protected, unprotected, payload, signature = item
    if unprotected or _decoded(protected, "a header") != _ES384:
        raise RefusedError(Step.FORMAT, "another header", "ES384, and nothing unprotected")
    if len(signature) != 2 * _NUMBER_BYTES:
        raise RefusedError(Step.FORMAT, f"a signature of {len(signature)} bytes", f"{2 * _NUMBER_BYTES}")
    return protected, payload, signature


def _fields(payload: bytes) -> dict[str, Any]:
    # The order of names is AWS's; a document that is signed need not be written as we would.
    try:
        fields = _cbor2().loads(payload)
    except (_cbor2().CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise RefusedError(Step.FORMAT, "a payload that is no CBOR", "CBOR") from error
    if not isinstance(fields, dict) or not set(fields) >= set(_FIELDS):
        raise RefusedError(Step.FORMAT, "fields missing", ", ".join(_FIELDS))
    texts = isinstance(fields["module_id"], str) and fields["digest"] == "SHA384"
    if not texts or type(fields["timestamp"]) is not int or not fields["module_id"]:
        raise RefusedError(Step.FORMAT, "other module_id, digest or timestamp", "text, SHA384, milliseconds")
    if not isinstance(fields["cabundle"], list) or not 0 < len(fields["cabundle"]) < MAX_CHAIN:
        raise RefusedError(Step.FORMAT, "no bundle of CAs", f"1 to {MAX_CHAIN - 1} certificates")
    return fields


def _pcrs(pcrs: object) -> Mapping[int, bytes]:
    if not isinstance(pcrs, dict) or not 0 < len(pcrs) <= _MAX_PCR + 1:
        raise RefusedError(Step.FORMAT, "no PCRs", f"1 to {_MAX_PCR + 1} of them")
    for index, value in pcrs.items():
        if type(index) is not int or not 0 <= index <= _MAX_PCR:
            raise RefusedError(Step.FORMAT, f"the PCR {index!r:.20}", f"0 to {_MAX_PCR}")
        if not isinstance(value, bytes) or len(value) != _PCR_BYTES:
            raise RefusedError(Step.FORMAT, f"a PCR {index} of another size", f"{_PCR_BYTES} bytes")
    return pcrs


def _optional(fields: Mapping[str, Any], name: str) -> Claimed[bytes]:
    value = fields.get(name)
    if value is None:
        return NOT_PROVIDED
    if not isinstance(value, bytes) or len(value) > _MAX_FIELD_BYTES[name]:
        raise RefusedError(Step.FORMAT, f"another {name}", f"at most {_MAX_FIELD_BYTES[name]} bytes")
    return value


def _certificates(fields: Mapping[str, Any]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    try:
        (leaf,) = parse_certificates(fields["certificate"])
        return leaf, [each for raw in fields["cabundle"] for each in parse_certificates(raw)]
    except (ValueError, TypeError) as error:
        raise RefusedError(Step.CHAIN, "what is no certificate", "certificates in DER") from error


def _check_signature(leaf: x509.Certificate, protected: bytes, payload: bytes, signature: bytes) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise RefusedError(Step.SIGNATURE, "a certificate for another kind of key", "ECDSA on P-384")
    # Sig_structure, RFC 9052 4.4: context, protected header, no external data, payload.
    signed: bytes = _cbor2().dumps(["Signature1", protected, b"", payload])
    r, s = signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:]
    pair = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    try:
        key.verify(pair, signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise RefusedError(
            Step.SIGNATURE, "a signature that does not fit the document", "one by its certificate"
        ) from error
