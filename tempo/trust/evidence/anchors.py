"""What a verifier has at hand: whom it trusts, and papers that it need not trust.

`Anchors` are trusted and come from the policy. `Collateral` is signed by somebody whom an anchor names, so it
may come from anywhere: certificates, revocation lists and DCAP collateral, all of them files. A verifier
never asks the network.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from tempo.errors import UsageError
from tempo.trust.evidence.claims import Kind

_MAX_FILE_BYTES: Final = 4 << 20
_MAX_FILES: Final = 256
_PEM_LINE: Final = b"-----BEGIN "

#: SHA-256 of the vendors' own root certificates, DER. Intel's root is built into the DCAP library, and named
#: here so that a claim can say what it rests on.
INTEL_ROOT: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
VENDORS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.SEV_SNP: frozenset(
        {
            "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",  # ARK-Milan
            "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",  # ARK-Genoa
            "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",  # ARK-Turin
        }
    ),
    Kind.TDX: frozenset({INTEL_ROOT}),
    Kind.SGX_DCAP: frozenset({INTEL_ROOT}),
    Kind.NITRO: frozenset({"641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"}),
}

_PARSING: Final = threading.Lock()


@final
@dataclass(frozen=True, slots=True)
class Anchors:
    """Whom to trust. roots: kind -> SHA-256 of root certificates (DER), hex. keys: SHA-256 of attestation
    keys of TPMs (SubjectPublicKeyInfo, DER), hex."""

    roots: Mapping[Kind, frozenset[str]] = field(default_factory=lambda: VENDORS)
    keys: frozenset[str] = frozenset()

    def of(self, kind: Kind) -> frozenset[str]:
        return self.roots.get(kind, frozenset())


@final
@dataclass(frozen=True, slots=True)
class Collateral:
    """certificates and crls: parsed. dcap: QuoteCollateralV3 as JSON texts, one for each platform."""

    certificates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    dcap: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Collateral:
        """All files of a folder: .pem .crt .der .cer certificates (PEM ones may hold lists too), .crl lists,
        .json DCAP collateral; others are left alone. Raises UsageError for one that is not what it says."""
        if not folder.is_dir():
            raise UsageError(f"the collateral {folder} is no folder")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if len(files) > _MAX_FILES:
            raise UsageError(f"{folder} holds {len(files)} files, more than {_MAX_FILES}")
        certificates: list[x509.Certificate] = []
        crls: list[x509.CertificateRevocationList] = []
        dcap: list[str] = []
        for path in files:
            try:
                if path.suffix in (".pem", ".crt", ".der", ".cer"):
                    certificates += parse_certificates(_read(path))
                elif path.suffix == ".crl":
                    crls.append(parse_crl(_read(path)))
                elif path.suffix == ".json":
                    dcap.append(_read(path).decode())
            except (ValueError, OSError) as error:
                raise UsageError(f"{path} cannot be read as what its name says: {error}") from error
        return cls(tuple(certificates), tuple(crls), tuple(dcap))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(_MAX_FILE_BYTES + 1)
    if len(raw) > _MAX_FILE_BYTES:
        raise ValueError(f"more than {_MAX_FILE_BYTES} bytes")
    return raw


def parse_certificates(raw: bytes) -> list[x509.Certificate]:
    """PEM (several) or DER (one). Raises ValueError, and nothing else later: the library reads fields when
    they are asked for, so they are all asked for here.

    AMD's VCEKs have the serial number 0, of which the library warns; it is AMD's choice and harms nobody. The
    lock is there because Python's filters of warnings belong to the whole process.
    """
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Parsed a serial number", CryptographyDeprecationWarning)
            pem = _PEM_LINE in raw
            found = x509.load_pem_x509_certificates(raw) if pem else [x509.load_der_x509_certificate(raw)]
            for each in found:
                _ = (each.subject, each.issuer, each.extensions, each.signature_hash_algorithm)
                _ = (each.not_valid_before_utc, each.not_valid_after_utc, each.public_key())
    except (x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    except x509.UnsupportedGeneralNameType as error:
        raise ValueError("a name of an unknown type") from error
    return found


def parse_crl(raw: bytes) -> x509.CertificateRevocationList:
    """PEM or DER. Raises ValueError."""
    try:
        found = x509.load_pem_x509_crl(raw) if _PEM_LINE in raw else x509.load_der_x509_crl(raw)
        _ = (found.issuer, found.extensions, found.last_update_utc, found.next_update_utc)
    except (x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    return found
