"""A TPM 2.0's quote over its PCRs (TPM 2.0 Library, Part 2: 10.12; Part 3: 18.4).

    1 format     TPMS_ATTEST of a quote, and nothing behind it; a signature with a hash that holds
    2 key        the attestation key is one that the policy names, or its certificate has a trusted root
    3 signature  over TPMS_ATTEST, by that key
    4 pcrs       the values that came along have the digest that was signed
    5 clock      the TPM's clock is known not to have gone back

A TPM signs at most 32 bytes of ours everywhere, 64 on few: it is asked to quote SHA-256(report data).

Only a *restricted* key makes a quote worth anything: with any other, its owner could sign a quote he wrote.
That is checked when the key is enrolled into the policy, not here. A vTPM is worth as much as
whoever runs it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tempo.errors import RefusedError
from tempo.trust.evidence.anchors import Anchors, Collateral, parse_certificates
from tempo.trust.evidence.chain import verify_chain
from tempo.trust.evidence.claims import Claims, Kind
from tempo.trust.evidence.envelope import Evidence
from tempo.trust.evidence.tpm_structures import Quote, Signature

#: TPM_ALG -> how the signature is checked. SHA-1 is not among them.
HASHES: Final[dict[int, hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    0x000B: hashes.SHA256(),
    0x000C: hashes.SHA384(),
    0x000D: hashes.SHA512(),
}
RSASSA, RSAPSS, ECDSA = 0x0014, 0x0016, 0x0018
_MIN_RSA_BITS: Final = 2048


class Step(enum.StrEnum):
    """Of the verification, in order."""

    FORMAT = "tpm 1 format"
    KEY = "tpm 2 key"
    SIGNATURE = "tpm 3 signature"
    PCRS = "tpm 4 pcrs"
    CLOCK = "tpm 5 clock"


def qualifying(report_data: bytes) -> bytes:
    """What the TPM quotes for this report data."""
    return hashlib.sha256(report_data).digest()


def verify(evidence: Evidence, anchors: Anchors, collateral: Collateral, now: datetime) -> Claims:
    """Steps 1 to 5. Raises RefusedError. What the quote is bound to is the caller's to compare."""
    parts = evidence.parts
    quote = Quote.parse(parts["attest"], Step.FORMAT)
    signature = Signature.parse(parts["signature"], Step.FORMAT)
    if signature.hash_algorithm not in HASHES:
        raise RefusedError(Step.FORMAT, f"the hash {signature.hash_algorithm:#06x}", "SHA-256, 384 or 512")
    key, name = _key(parts["key"])
    root, revocation = _check_key(key, name, parts, anchors, collateral, now)
    _check_signature(key, signature, parts["attest"])
    pcrs = _pcrs(quote, parts["pcrs"], signature)
    if not quote.safe:
        raise RefusedError(Step.CLOCK, "a clock that may have gone back", "one that is safe")
    return Claims(
        kind=Kind.TPM,
        bound=quote.extra_data,
        measurements={f"pcr{index}": value.hex() for index, value in pcrs.items()},
        root=root,
        platform=name,
        revocation=revocation,
        details={
            "pcr_bank": HASHES[quote.bank].name,
            "clock_ms": quote.clock_ms,
            "reset_count": quote.reset_count,
            "restart_count": quote.restart_count,
            "firmware_version": f"{quote.firmware_version:016x}",
        },
    )


def key_name(public: bytes) -> str:
    """How a policy names an attestation key: SHA-256 of SubjectPublicKeyInfo in DER, hex."""
    return hashlib.sha256(public).hexdigest()


def _key(der: bytes) -> tuple[ec.EllipticCurvePublicKey | rsa.RSAPublicKey, str]:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RefusedError(Step.KEY, "no public key", "SubjectPublicKeyInfo in DER") from error
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise RefusedError(Step.KEY, f"RSA of {key.key_size} bits", f"at least {_MIN_RSA_BITS}")
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise RefusedError(Step.KEY, "another kind of key", "RSA or ECDSA")
    return key, key_name(der)


def _check_key(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    name: str,
    parts: Mapping[str, bytes],
    anchors: Anchors,
    collateral: Collateral,
    now: datetime,
) -> tuple[str, bool]:
    """What the key rests on, and whether revocation was looked at: a list of keys is the owner's own."""
    if name in anchors.keys:
        return name, True
    raw = parts.get("certificates", b"")
    try:
        given = parse_certificates(raw) if raw else []
    except ValueError as error:
        raise RefusedError(Step.KEY, "what is no certificate", "X.509 in PEM") from error
    leaves = [c for c in [*given, *collateral.certificates] if c.public_key() == key]
    if not leaves:
        raise RefusedError(Step.KEY, f"the attestation key {name}", "one that the policy names (keys)")
    pool = [*given, *collateral.certificates]
    chain = verify_chain(leaves[0], pool, anchors.of(Kind.TPM), collateral.crls, now, Step.KEY)
    return chain.root, chain.revocation


def _check_signature(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, signature: Signature, attest: bytes
) -> None:
    algorithm = HASHES[signature.hash_algorithm]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if signature.scheme == RSASSA:
                key.verify(signature.first, attest, padding.PKCS1v15(), algorithm)
                return
            if signature.scheme == RSAPSS:
                pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
                key.verify(signature.first, attest, pss, algorithm)
                return
        elif signature.scheme == ECDSA:
            r, s = int.from_bytes(signature.first, "big"), int.from_bytes(signature.second, "big")
            key.verify(encode_dss_signature(r, s), attest, ec.ECDSA(algorithm))
            return
    except (InvalidSignature, ValueError) as error:
        raise RefusedError(
            Step.SIGNATURE, "a signature that does not fit the quote", "one by the attestation key"
        ) from error
    raise RefusedError(Step.SIGNATURE, f"the scheme {signature.scheme:#06x}", "one that fits the key")


def _pcrs(quote: Quote, raw: bytes, signature: Signature) -> dict[int, bytes]:
    """Index -> value. TPM2_Quote hashes the values, in order, with the hash of the signature."""
    if quote.bank not in HASHES:
        raise RefusedError(Step.PCRS, f"the bank {quote.bank:#06x}", "SHA-256, 384 or 512")
    size = HASHES[quote.bank].digest_size
    if len(raw) != size * len(quote.indices):
        raise RefusedError(
            Step.PCRS, f"{len(raw)} bytes of values", f"{size} for each of {len(quote.indices)} PCRs"
        )
    digest = hashlib.new(HASHES[signature.hash_algorithm].name, raw).digest()
    if digest != quote.pcr_digest:
        raise RefusedError(Step.PCRS, f"values with the digest {digest.hex()}", quote.pcr_digest.hex())
    values = [raw[start : start + size] for start in range(0, len(raw), size)]
    return dict(zip(quote.indices, values, strict=True))
