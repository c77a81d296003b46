"""Certificate authorities that the tests make: real structures, keys of our own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
_VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"


def vectors(folder: str) -> Path:
    """Published evidence beside the project: who has only the clone skips what needs it, CI may not."""
    path = _VECTORS / folder
    if not path.is_dir():
        text = f"published evidence is not at {path}: the made hierarchies alone are tested"
        (pytest.fail if os.environ.get("TEMPO_NEEDS_VECTORS") else pytest.skip)(text)
    return path


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True)
class Holder:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    certificate: x509.Certificate


def _pss(key: object, algorithm: hashes.HashAlgorithm) -> dict:
    if isinstance(key, rsa.RSAPrivateKey):
        return {"rsa_padding": padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)}
    return {}


def certify(
    common: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer: Holder | None = None,
    *,
    algorithm: hashes.HashAlgorithm | None = None,
    ca: bool = False,
    path_length: int | None = None,
    start: datetime = NOW - 100 * DAY,
    end: datetime = NOW + 100 * DAY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    serial: int | None = None,
) -> Holder:
    """A certificate of `key` by `issuer`, or by itself."""
    algorithm = algorithm or hashes.SHA384()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(issuer.certificate.subject if issuer else name(common))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
        usage = [False] * 9
        usage[5] = usage[6] = True
        builder = builder.add_extension(x509.KeyUsage(*usage), True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signing = issuer.key if issuer else key
    return Holder(key, builder.sign(signing, algorithm, **_pss(signing, algorithm)))


def revoke(
    issuer: Holder,
    *certificates: x509.Certificate,
    start: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
    algorithm: hashes.HashAlgorithm | None = None,
) -> x509.CertificateRevocationList:
    """The issuer's list."""
    algorithm = algorithm or hashes.SHA384()
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(start).next_update(end).add_extension(x509.CRLNumber(1), False)
    for certificate in certificates:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(start).build())
    return builder.sign(issuer.key, algorithm, **_pss(issuer.key, algorithm))
