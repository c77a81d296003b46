"""Certificates that are valid no longer, before they expire: a list that the authority signs (RFC 5280, 5).

    DIR/ca.crl       the list; every side that reads it (`TlsFiles.crl`) refuses who is on it
    DIR/ca.issued    one line of JSON for each certificate that `issue` made, for who revokes by name
    DIR/ca.revoked   one line of JSON for each certificate that was ever put on the list, written before it is
    DIR/ca.lock      held from reading the list until it is replaced: two that revoke at once do both

Only certificates of workers, masters and vaults are on it, never the authority's own. A list has an end: a
side whose list is out of date refuses everybody, so nobody gets in for long by holding a newer one back. What
is in ca.revoked and not on the list (a crash, an older copy put back) goes on the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from tempo.errors import OutsideError, UsageError
from tempo.wire.authority import CA, append, load_authority, write_file

CRL: Final = "ca.crl"
ISSUED: Final = "ca.issued"
REVOKED: Final = "ca.revoked"
LOCK: Final = "ca.lock"
_MAX_DAYS: Final = 365
_CLOCK_SKEW: Final = timedelta(minutes=5)


@final
class Issued(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate that the authority made. serial: hex. expires: RFC 3339, UTC."""

    serial: str
    name: str
    role: str
    expires: str


@final
class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of ca.revoked. serial: hex. revoked: UTC."""

    serial: str
    revoked: datetime


@final
@dataclass(frozen=True, slots=True)
class Revoked:
    """What a list says. added: serials that were not on it before, hex; serials: all that are."""

    path: Path
    added: tuple[str, ...]
    serials: tuple[str, ...]
    until: datetime


def revoke(
    folder: Path, names: Iterable[str] = (), *, serials: Iterable[str] = (), days: int = 30
) -> Revoked:
    """Put every certificate of these names, and these serials (hex), on the list; sign it anew for `days`.

    Without names and serials the list is renewed. What was issued later under the same name is valid.
    Raises UsageError where the authority issued none of that name, there is no authority, or its list is
    gone; OutsideError where the folder cannot be written.
    """
    if not 1 <= days <= _MAX_DAYS:
        raise UsageError(f"a list of revoked certificates lasts 1 to {_MAX_DAYS} days, not {days}")
    signer, authority = load_authority(folder)
    with _alone(folder):
        return _revoke(folder, signer, authority, names, serials, days)


def _revoke(
    folder: Path,
    signer: Ed25519PrivateKey,
    authority: x509.Certificate,
    names: Iterable[str],
    serials: Iterable[str],
    days: int,
) -> Revoked:
    known = {r.serial_number: r for r in _listed(folder / CRL, signer.public_key())}
    recorded = {_number(each.serial): each.revoked for each in _recorded(folder)}
    if recorded and not (folder / CRL).exists():
        raise UsageError(
            f"{folder / CRL} is gone, and {folder / REVOKED} knows of {len(recorded)} revoked certificates: "
            f"put back any copy of the list; where the authority is a new one, move {REVOKED} away"
        )
    wanted = [s for name in names for s in _serials_of(folder, name)] + [_number(s) for s in serials]
    if authority.serial_number in wanted:
        raise UsageError("the authority's own certificate cannot be revoked: make a new authority")
    now = datetime.now(UTC)
    added = [s for s in dict.fromkeys([*recorded, *wanted]) if s not in known]
    for serial in added:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        known[serial] = entry.revocation_date(recorded.get(serial, now)).build()
    until = now + timedelta(days=days)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _CLOCK_SKEW)
        .next_update(until)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1e6)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for serial in sorted(known):
        builder = builder.add_revoked_certificate(known[serial])
    data = builder.sign(signer, None).public_bytes(serialization.Encoding.PEM)
    new = [_Entry(_hex(s), r.revocation_date_utc) for s, r in known.items() if s not in recorded]
    try:
        append(folder / REVOKED, b"".join(msgspec.json.encode(each) + b"\n" for each in new))
        write_file(folder / CRL, data, force=True)
    except OSError as error:
        raise OutsideError(f"{folder} cannot be written ({error.strerror})") from error
    return Revoked(folder / CRL, tuple(map(_hex, added)), tuple(map(_hex, sorted(known))), until)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other process revokes in this folder; waits until it has done."""
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutsideError(f"{folder / LOCK} cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _serials_of(folder: Path, name: str) -> list[int]:
    """Of every certificate under this name, the one that lies in the folder included."""
    found = [_number(each.serial) for each in _issued(folder) if each.name == name]
    path = folder / f"{name}.pem"
    if name != CA and path.is_file():
        try:
            found.append(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)
        except (OSError, ValueError):
            raise UsageError(f"{path} is no certificate in PEM") from None
    if not found:
        raise UsageError(f"the authority in {folder} issued no certificate to {name!r}")
    return found


def _issued(folder: Path) -> list[Issued]:
    path = folder / ISSUED
    if not path.exists():
        return []  # an authority from before this file
    try:
        return [msgspec.json.decode(line, type=Issued) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise OutsideError(f"{path} cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, ValueError):
        raise UsageError(f"{path} is damaged: revoke by --serial (openssl x509 -serial)") from None


def _recorded(folder: Path) -> list[_Entry]:
    path = folder / REVOKED
    if not path.exists():
        return []  # none yet, or an authority from before this file
    try:
        return [msgspec.json.decode(line, type=_Entry) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise OutsideError(f"{path} cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, ValueError):
        raise UsageError(f"{path} is damaged: put a backup in its place, or mend the line") from None


def _listed(path: Path, authority: Ed25519PublicKey) -> list[x509.RevokedCertificate]:
    if not path.exists():
        return []
    try:
        found = x509.load_pem_x509_crl(path.read_bytes())
    except OSError as error:
        raise OutsideError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        raise UsageError(f"{path} is no list of revoked certificates: restore it from a backup") from None
    if not found.is_signature_valid(authority):
        raise UsageError(
            f"{path} is not signed by the authority beside it: restore the right one, or move it away where "
            "the authority is a new one"
        )
    return list(found)


def _number(text: str) -> int:
    plain = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{1,40}", plain):
        raise UsageError(f"{text!r} is no serial number: expected hex digits, as openssl x509 -serial prints")
    return int(plain, 16)


def _hex(serial: int) -> str:
    return f"{serial:x}"
