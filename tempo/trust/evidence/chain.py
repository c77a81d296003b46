"""Certificates from a leaf up to a root that is trusted (RFC 5280 6.1, for the short chains of TEEs).

1. from the leaf, the issuer is the certificate at hand that bears its name and whose key signed it
2. `now` lies within every certificate's validity
3. whoever issues is a CA, may sign certificates, and has no more CAs below it than it allows
4. nothing critical is unknown
5. the root's SHA-256 is one of those trusted; it signed itself
6. no list of revoked certificates that is at hand, signed by the issuer and current, names one of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from tempo.errors import RefusedError

#: Leaf, root and what lies between. Nitro's has five.
MAX_CHAIN: Final = 6
_KNOWN: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that holds. root: SHA-256, hex. revocation: every issuer's list was at hand and current."""

    certificates: tuple[x509.Certificate, ...]
    root: str
    revocation: bool


def fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:120]


def verify_chain(
    leaf: x509.Certificate,
    pool: Sequence[x509.Certificate],
    roots: frozenset[str],
    crls: Sequence[x509.CertificateRevocationList],
    now: datetime,
    step: str,
) -> Chain:
    """The chain of `leaf` through `pool`. Raises RefusedError, naming `step`."""
    chain = _build(leaf, pool, step)
    for depth, certificate in enumerate(chain):
        _check_validity(certificate, now, step)
        _check_extensions(certificate, depth, step)
    if (root := fingerprint(chain[-1])) not in roots:
        raise RefusedError(step, f"the root {_name(chain[-1])} ({root})", "a root that the policy trusts")
    listed = [_check_revoked(certificate, issuer, crls, now, step) for certificate, issuer in pairwise(chain)]
    return Chain(tuple(chain), root, all(listed))


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _build(leaf: x509.Certificate, pool: Sequence[x509.Certificate], step: str) -> list[x509.Certificate]:
    chain = [leaf]
    while chain[-1].issuer != chain[-1].subject:
        if len(chain) == MAX_CHAIN:
            raise RefusedError(step, f"more than {MAX_CHAIN} certificates", "a chain up to a root")
        named = [other for other in pool if other.subject == chain[-1].issuer]
        signed = [other for other in named if _signed(chain[-1], other)]
        if not signed:
            wanted = chain[-1].issuer.rfc4514_string()[:120]
            found = f"no certificate of {wanted}" if not named else f"one of {wanted} that did not sign"
            raise RefusedError(step, f"{found} {_name(chain[-1])}", "the certificate of every issuer")
        chain.append(signed[0])
    if len(chain) == 1 or not _signed(chain[-1], chain[-1]):
        raise RefusedError(step, f"{_name(chain[-1])} alone", "a chain up to a root that signed itself")
    return chain


def _check_validity(certificate: x509.Certificate, now: datetime, step: str) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise RefusedError(
            step,
            f"{_name(certificate)} valid from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}",
            f"one that is valid at {now:%Y-%m-%d %H:%M:%S} UTC",
        )


def _check_extensions(certificate: x509.Certificate, depth: int, step: str) -> None:
    extensions = certificate.extensions
    for extension in extensions:
        if extension.critical and extension.oid not in _KNOWN:
            oid = extension.oid.dotted_string
            raise RefusedError(step, f"the critical extension {oid}", "only extensions that are understood")
    if depth == 0:
        return
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise RefusedError(step, f"{_name(certificate)}, which is no CA", "issuers that are CAs") from error
    below = depth - 1
    if not basic.ca or not usage.key_cert_sign:
        raise RefusedError(step, f"{_name(certificate)}, which may not issue", "issuers that are CAs")
    if basic.path_length is not None and basic.path_length < below:
        raise RefusedError(
            step, f"{below} CAs below {_name(certificate)}", f"at most {basic.path_length}, as it says"
        )


def _check_revoked(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    now: datetime,
    step: str,
) -> bool:
    """Whether a list of this issuer was at hand."""
    found = False
    for crl in crls:
        if crl.issuer != issuer.subject or not _crl_signed(crl, issuer):
            continue  # another CA's, or another CA of that name: says nothing about this certificate
        until = crl.next_update_utc
        if crl.last_update_utc > now or until is None or until < now:
            raise RefusedError(
                step,
                f"a revocation list from {crl.last_update_utc:%Y-%m-%d} to {until and until.date()}",
                f"one that is current at {now:%Y-%m-%d %H:%M:%S} UTC",
            )
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise RefusedError(step, f"{_name(certificate)}, which was revoked", "certificates in force")
        found = True
    return found


def _crl_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        key = issuer.public_key()
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            return False
        return crl.is_signature_valid(key)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
