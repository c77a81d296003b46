"""An SEV-SNP platform that the tests make: ARK, ASK, ASVK, VCEK, VLEK with AMD's extensions, and reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from authorities import DAY, NOW, Holder, certify
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.claims import Kind
from tempo.trust.evidence.envelope import Evidence
from tempo.trust.evidence.snp_certificates import GUIDS

CHIP = bytes(range(1, 65))
DATA = bytes(range(64))
MEASUREMENT = b"\x11" * 48
MILAN_TCB = {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
_OIDS = {"fmc": 9, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 8}
SMT_AND_ONE = 0x30000
DEBUG = 1 << 19
AGENT = 1 << 18


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _integer(number: int) -> bytes:
    body = number.to_bytes(2, "big") if number > 127 else bytes([number])
    return bytes([2, len(body)]) + body


def _amd(
    tcb: dict[str, int], chip: bytes | None, product: str
) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    oid = "1.3.6.1.4.1.3704.1"
    values = {f"{oid}.2": bytes([0x16, len(product)]) + product.encode()}
    values |= {f"{oid}.3.{_OIDS[name]}": _integer(number) for name, number in tcb.items()}
    if chip is not None:
        values[f"{oid}.4"] = chip
    return tuple(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), value), False)
        for dotted, value in values.items()
    )


@dataclass(frozen=True)
class Platform:
    """Certificates of one machine. `ark` and `ask` may be another's."""

    ark: Holder
    ask: Holder
    asvk: Holder
    vcek: Holder
    vlek: Holder
    extra: tuple[x509.CertificateRevocationList, ...] = field(default=())

    @property
    def anchors(self) -> Anchors:
        return Anchors({Kind.SEV_SNP: frozenset({fingerprint(self.ark.certificate)})})

    @property
    def collateral(self) -> Collateral:
        holders = (self.vcek, self.vlek, self.ask, self.asvk, self.ark)
        return Collateral(tuple(holder.certificate for holder in holders), self.extra)


def platform(
    tcb: dict[str, int] | None = None,
    chip: bytes = CHIP,
    product: str = "Milan-B0",
    keys: int = 0,
    leaf_end=NOW + 50 * DAY,
    ask_ca: bool = True,
) -> Platform:
    """keys: another number, other keys under the same names."""
    tcb = tcb or MILAN_TCB
    ark = certify("ARK-Made", rsa_key(3 * keys), ca=True)
    ask = certify("SEV-Made", rsa_key(3 * keys + 1), ark, ca=ask_ca, path_length=0 if ask_ca else None)
    asvk = certify("SEV-VLEK-Made", rsa_key(3 * keys + 2), ark, ca=True, path_length=0)
    leaf = ec.generate_private_key(ec.SECP384R1())
    vcek = certify("SEV-VCEK", leaf, ask, extensions=_amd(tcb, chip, product), end=leaf_end)
    shared = ec.generate_private_key(ec.SECP384R1())
    vlek = certify("SEV-VLEK", shared, asvk, extensions=_amd(tcb, None, product), end=leaf_end)
    return Platform(ark, ask, asvk, vcek, vlek)


def report(
    key: ec.EllipticCurvePrivateKey,
    *,
    policy: int = SMT_AND_ONE,
    tcb: bytes = bytes([3, 0, 0, 0, 0, 0, 8, 115]),
    chip: bytes = CHIP,
    flags: int = 0,
    version: int = 2,
    vmpl: int = 0,
    measurement: bytes = MEASUREMENT,
    data: bytes = DATA,
    family: int = 0,
) -> bytes:
    """1,184 bytes, signed."""
    raw = bytearray(0x4A0)
    raw[0:4] = version.to_bytes(4, "little")
    raw[0x08:0x10] = policy.to_bytes(8, "little")
    raw[0x30:0x34] = vmpl.to_bytes(4, "little")
    raw[0x34:0x38] = (1).to_bytes(4, "little")
    raw[0x38:0x40] = raw[0x180:0x188] = raw[0x1E0:0x1E8] = raw[0x1F0:0x1F8] = tcb
    raw[0x48:0x4C] = flags.to_bytes(4, "little")
    raw[0x50:0x90] = data
    raw[0x90:0xC0] = measurement
    raw[0x188] = family
    raw[0x1A0:0x1E0] = chip.ljust(64, b"\0")
    r, s = decode_dss_signature(key.sign(bytes(raw[:0x2A0]), ec.ECDSA(hashes.SHA384())))
    raw[0x2A0:0x2E8] = r.to_bytes(72, "little")
    raw[0x2E8:0x330] = s.to_bytes(72, "little")
    return bytes(raw)


def evidence(raw: bytes, certificates: bytes | None = None) -> Evidence:
    parts = {"report": raw} | ({} if certificates is None else {"certificates": certificates})
    return Evidence(Kind.SEV_SNP, parts)


def table(made: Platform, little_endian: bool = True) -> bytes:
    """The host's table, as an extended guest request returns it."""
    holders = {"vcek": made.vcek, "ask": made.ask, "ark": made.ark}
    start = 24 * (len(holders) + 1)
    head, body = b"", b""
    for name, holder in holders.items():
        der = holder.certificate.public_bytes(Encoding.DER)
        guid = GUIDS[name].bytes_le if little_endian else GUIDS[name].bytes
        head += guid + (start + len(body)).to_bytes(4, "little") + len(der).to_bytes(4, "little")
        body += der
    return (head + bytes(24) + body).ljust(4096 * 2, b"\0")
