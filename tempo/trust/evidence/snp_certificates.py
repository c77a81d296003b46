"""What AMD writes into VCEKs and VLEKs (AMD 57230 revision 1.00, 3.1), and the host's table of certificates.

1.3.6.1.4.1.3704.1.2      product name, IA5String: Milan-B0, Genoa-B1, Turin-...
1.3.6.1.4.1.3704.1.3.1    bootloader     .2 TEE     .3 SNP     .8 microcode     .9 FMC (Turin), INTEGER
1.3.6.1.4.1.3704.1.4      hardware id: 64 bytes, on Turin 8; a VLEK has none
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.x509.oid import NameOID

from tempo.errors import RefusedError
from tempo.trust.evidence.anchors import parse_certificates
from tempo.trust.evidence.snp_report import MILAN, TURIN

_AMD: Final = "1.3.6.1.4.1.3704.1"
_PRODUCT: Final = f"{_AMD}.2"
HARDWARE_ID: Final = f"{_AMD}.4"
_COMPONENTS: Final[Mapping[str, str]] = {
    "fmc": f"{_AMD}.3.9",
    "bootloader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "microcode": f"{_AMD}.3.8",
}
_INTEGER: Final = 0x02
_IA5_STRING: Final = 0x16
_OCTET_STRING: Final = 0x04
_HARDWARE_ID_BYTES: Final = (8, 64)

#: Guest-Hypervisor Communication Block (AMD 56421 revision 2.03, 4.1.8.1): entries of GUID, offset, length.
_ENTRY_BYTES: Final = 24
_MAX_ENTRIES: Final = 16
GUIDS: Final = {
    "vcek": UUID("63da758d-e664-4564-adc5-f4b93be8accd"),
    "vlek": UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"),
    "ask": UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"),
    "ark": UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"),
}


def from_table(raw: bytes, step: str) -> list[x509.Certificate]:
    """Certificates of the host's table, none for an empty one. Raises RefusedError, naming `step`.

    What the table calls them is of no account: the host wrote it. The chain decides.
    """
    known = {form for guid in GUIDS.values() for form in (guid.bytes, guid.bytes_le)}
    found: list[x509.Certificate] = []
    for number in range(_MAX_ENTRIES):
        entry = raw[number * _ENTRY_BYTES :][:_ENTRY_BYTES]
        if not any(entry):
            return found
        start, length = int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")
        if len(entry) < _ENTRY_BYTES or start + length > len(raw):
            raise RefusedError(step, "a table that points outside itself", "the host's certificate table")
        if entry[:16] in known:
            try:
                found += parse_certificates(raw[start : start + length])
            except ValueError as error:
                raise RefusedError(step, "an entry that is no certificate", "X.509") from error
    raise RefusedError(step, f"{_MAX_ENTRIES} entries or more", "the host's certificate table")


def _extension(certificate: x509.Certificate, oid: str) -> bytes | None:
    try:
        value = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def is_vlek(certificate: x509.Certificate) -> bool:
    """A versioned loaded endorsement key: of a provider of machines, made for one TCB."""
    names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names == ["SEV-VLEK"] and _extension(certificate, _COMPONENTS["bootloader"]) is not None


def hardware_id(certificate: x509.Certificate) -> bytes | None:
    """Of a VCEK, 64 or 8 bytes; None for any other certificate. AMD writes it bare, others as a string."""
    raw = _extension(certificate, HARDWARE_ID)
    if raw is not None and raw[:1] == bytes([_OCTET_STRING]) and len(raw) - 2 in _HARDWARE_ID_BYTES:
        raw = raw[2:]
    return raw if raw is not None and len(raw) in _HARDWARE_ID_BYTES else None


def tcb_of(certificate: x509.Certificate, step: str) -> tuple[Mapping[str, int], dict[str, int]]:
    """The layout of the product's TCB, and component -> version. Raises RefusedError, naming `step`."""
    product = _extension(certificate, _PRODUCT) or b""
    if product[:1] != bytes([_IA5_STRING]) or len(product) < 3 or product[1] != len(product) - 2:
        raise RefusedError(step, "a certificate without a product name", f"a VCEK or VLEK ({_PRODUCT})")
    layout = TURIN if product[2:].startswith(b"Turin") else MILAN
    return layout, {name: _version(certificate, name, step) for name in layout}


def _version(certificate: x509.Certificate, name: str, step: str) -> int:
    raw = _extension(certificate, _COMPONENTS[name])
    if raw is None or len(raw) not in (3, 4) or raw[:2] != bytes([_INTEGER, len(raw) - 2]):
        raise RefusedError(step, f"a certificate without the version of {name}", _COMPONENTS[name])
    number = int.from_bytes(raw[2:], "big", signed=True)
    if not 0 <= number <= 255:
        raise RefusedError(step, f"the version {number} of {name}", "0 to 255")
    return number
