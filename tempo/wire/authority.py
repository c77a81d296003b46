"""A development authority: a folder with one CA, and the certificates that it issued to workers, masters and
vaults.

For trials, tests and small installations. Its key lies in a file; whoever reads that file can be any of them.
A real installation has a PKI: docs/wire.md says what its certificates must carry.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tempo.errors import OutsideError, UsageError
from tempo.wire.tls import Role, TlsFiles

CA = "ca"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CLOCK_SKEW = timedelta(minutes=5)
_USAGE = {
    "worker": ExtendedKeyUsageOID.SERVER_AUTH,
    "vault": ExtendedKeyUsageOID.SERVER_AUTH,
    "peer": ExtendedKeyUsageOID.SERVER_AUTH,
    "master": ExtendedKeyUsageOID.CLIENT_AUTH,
}


def make_authority(folder: Path, *, days: int = 3650, force: bool = False) -> Path:
    """Write ca.pem and ca.key; the path of ca.pem. Raises UsageError if there is one and not `force`."""
    key = Ed25519PrivateKey.generate()
    # A name of its own, so that a certificate of another authority is told from a forged one.
    name = _subject(f"Tempo development authority {os.urandom(4).hex()}")
    certificate = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    _write(folder, CA, key, certificate, force)
    return folder / f"{CA}.pem"


def issue(
    folder: Path, name: str, role: Role, hosts: Sequence[str] = (), *, days: int = 90, force: bool = False
) -> TlsFiles:
    """Write NAME.pem and NAME.key, signed by the authority in `folder`, and a line in ca.issued.

    hosts: names and addresses under which masters dial a worker or vault; its own name by default.
    """
    if not _NAME.fullmatch(name) or name == CA:
        raise UsageError(f"{name!r}: a name has letters, digits, dots, dashes; {CA!r} is the authority's own")
    if role == "master" and hosts:
        raise UsageError("nobody dials a master: leave its hosts out")
    signer, authority = load_authority(folder)
    key = Ed25519PrivateKey.generate()
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"tempo:{role}/{name}")]
    if role != "master":
        names += [_host(host) for host in hosts or (name,)]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(_subject(name), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGE[role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, None)
    )
    _record(folder, name, role, certificate)  # first: what is not on record cannot be revoked by its name
    _write(folder, name, key, certificate, force)
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{CA}.pem")


def _record(folder: Path, name: str, role: Role, certificate: x509.Certificate) -> None:
    expires = certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"serial": f"{certificate.serial_number:x}", "name": name, "role": role, "expires": expires}
    try:
        append(folder / f"{CA}.issued", json.dumps(fields).encode() + b"\n")
    except OSError as error:
        raise OutsideError(f"{folder} cannot be written ({error.strerror}): name another folder") from error


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", host):
        raise UsageError(f"{host!r} is no host name and no address (without a port)")
    return x509.DNSName(host)


def load_authority(folder: Path) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    """Key and certificate. Raises UsageError where there is none, or they do not belong together."""
    path = folder / f"{CA}.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError
        key.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)
    except OSError as error:
        raise UsageError(
            f"there is no authority in {folder} ({error.strerror}): tempo worker ca {folder}"
        ) from None
    except (ValueError, TypeError, InvalidSignature):
        raise UsageError(f"{path} and {CA}.pem beside it are no authority of `tempo worker ca`") from None
    return key, certificate


def _write(
    folder: Path, name: str, key: Ed25519PrivateKey, certificate: x509.Certificate, force: bool
) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = {folder / f"{name}.key": private}
    files[folder / f"{name}.pem"] = certificate.public_bytes(serialization.Encoding.PEM)
    taken = [str(path) for path in files if path.exists() or path.is_symlink()]
    if taken and not force:
        raise UsageError(f"{', '.join(taken)} exist: choose another name, or --force to replace")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in files.items():
            write_file(path, data, force)
    except FileExistsError:
        raise UsageError(f"{folder / name}.* appeared meanwhile: nothing was replaced") from None
    except OSError as error:
        raise OutsideError(f"{folder} cannot be written ({error.strerror}): name another folder") from error


def append(path: Path, lines: bytes) -> None:
    """To a file that the owner alone may read; on the disk once this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(fd, "ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Whole or not at all, readable by the owner only (mkstemp's mode)."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, it fails if the name is taken
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
