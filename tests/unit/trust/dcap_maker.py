"""An Intel platform that the tests make: root, PCK, revocation lists, TCB info, quoting enclave, quotes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from authorities import DAY, NOW, Holder, certify, revoke
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tempo.trust.evidence.anchors import Anchors, Collateral
from tempo.trust.evidence.chain import fingerprint
from tempo.trust.evidence.claims import Kind
from tempo.trust.evidence.envelope import Evidence

FMSPC = bytes.fromhex("a0b0c0d0e0f0")
DATA = bytes(range(64))
MR = {"mr_enclave": b"\x21" * 32, "mr_signer": b"\x22" * 32, "mr_td": b"\x31" * 48, "rt_mr1": b"\x32" * 48}
_QE_SIGNER = b"\x44" * 32
_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SGX_OID = "1.2.840.113741.1.13.1"
SHA256 = hashes.SHA256()
NEVER_DEBUGGED = {"SGX": 0x05, "TDX": 0x00}


def _der(tag: int, body: bytes) -> bytes:
    size = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + size + body


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = bytes([40 * first + second])
    for number in rest:
        groups = [number & 127]
        while number := number >> 7:
            groups.insert(0, number & 127 | 128)
        body += bytes(groups)
    return _der(6, body)


def _pair(suffix: str, value: bytes) -> bytes:
    return _der(0x30, _oid(f"{_SGX_OID}.{suffix}") + value)


def _pck_extension(svn: int) -> x509.UnrecognizedExtension:
    number = _der(2, bytes([svn]))
    tcb = b"".join(_pair(f"2.{i}", number) for i in range(1, 18))
    tcb += _pair("2.18", _der(4, bytes([svn] * 16)))
    body = _pair("1", _der(4, b"\x07" * 16)) + _pair("2", _der(0x30, tcb))
    body += _pair("3", _der(4, bytes(2))) + _pair("4", _der(4, FMSPC)) + _pair("5", _der(10, b"\0"))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_OID), _der(0x30, body))


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _pem(*holders: Holder) -> str:
    return "".join(h.certificate.public_bytes(Encoding.PEM).decode() for h in holders)


@dataclass(frozen=True)
class Platform:
    root: Holder
    ca: Holder
    pck: Holder
    signing: Holder
    attestation: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def anchors(self) -> Anchors:
        mine = frozenset({fingerprint(self.root.certificate)})
        return Anchors({Kind.SGX_DCAP: mine, Kind.TDX: mine})


@cache
def platform(svn: int = 5) -> Platform:
    """svn: of every component, and of the PCE."""

    def ids(key, issuer_key):
        mine = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        return (mine, False), (above, False)

    root_key, ca_key, pck_key, signing_key = (_key() for _ in range(4))
    made = {"algorithm": SHA256}
    root = certify(
        "Intel SGX Root CA", root_key, ca=True, path_length=1, extensions=ids(root_key, root_key), **made
    )
    ca = certify(
        *("Intel SGX PCK Platform CA", ca_key, root),
        **{"ca": True, "path_length": 0, "extensions": ids(ca_key, root_key)} | made,
    )
    usage = (x509.KeyUsage(True, True, *[False] * 7), True)
    leaf = (x509.BasicConstraints(False, None), True)
    extensions = (*ids(pck_key, ca_key), usage, leaf, (_pck_extension(svn), False))
    pck = certify("Intel SGX PCK Certificate", pck_key, ca, extensions=extensions, **made)
    signing = certify(
        *("Intel SGX TCB Signing", signing_key, root),
        extensions=(*ids(signing_key, root_key), usage, leaf),
        **made,
    )
    return Platform(root, ca, pck, signing)


def _date(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def collateral(
    made: Platform,
    tee: str,
    *,
    status: str = "UpToDate",
    least: int = 4,
    start: datetime = NOW - DAY,
    end: datetime = NOW + 20 * DAY,
    revoked: tuple[x509.Certificate, ...] = (),
    root_revoked: tuple[x509.Certificate, ...] = (),
    signer: Holder | None = None,
    advisories: tuple[str, ...] = (),
    fmspc: bytes = FMSPC,
) -> Collateral:
    """One level of TCB: `least` of every component gives `status`."""
    signer = signer or made.signing
    dates = {"issueDate": _date(start), "nextUpdate": _date(end)}
    tcb = {"sgxtcbcomponents": [{"svn": least}] * 16, "pcesvn": least}
    info = {"id": tee, "version": 3, **dates, "fmspc": fmspc.hex().upper(), "pceId": "0000", "tcbType": 0}
    info["tcbEvaluationDataNumber"] = 17
    if tee == "TDX":
        tcb["tdxtcbcomponents"] = [{"svn": least}, {"svn": 0}, *[{"svn": 0}] * 14]
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        info["tdxModule"] = module
    level = {"tcb": tcb, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": status}
    info["tcbLevels"] = [level | ({"advisoryIDs": list(advisories)} if advisories else {})]
    identity = {"id": "QE" if tee == "SGX" else "TD_QE", "version": 2, **dates, "tcbEvaluationDataNumber": 17}
    identity |= {"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "mrsigner": _QE_SIGNER.hex()}
    identity |= {"attributes": "11" + "00" * 15, "attributesMask": "FB" + "FF" * 7 + "00" * 8, "isvprodid": 1}
    level = {"tcb": {"isvsvn": 4}, "tcbDate": "2025-03-12T00:00:00Z", "tcbStatus": "UpToDate"}
    identity["tcbLevels"] = [level]
    lists = {"start": start, "end": end, "algorithm": SHA256}
    texts = [json.dumps(each, separators=(",", ":")) for each in (info, identity)]
    chain = _pem(signer, made.root)
    fields = {
        "pck_crl_issuer_chain": _pem(made.ca, made.root),
        "root_ca_crl": revoke(made.root, *root_revoked, **lists).public_bytes(Encoding.DER).hex(),
        "pck_crl": revoke(made.ca, *revoked, **lists).public_bytes(Encoding.DER).hex(),
        "tcb_info_issuer_chain": chain,
        "tcb_info": texts[0],
        "tcb_info_signature": _raw_signature(signer.key, texts[0].encode()).hex(),
        "qe_identity_issuer_chain": chain,
        "qe_identity": texts[1],
        "qe_identity_signature": _raw_signature(signer.key, texts[1].encode()).hex(),
    }
    return Collateral(dcap=(json.dumps(fields),))


def _enclave(attributes: int, enclave: bytes, signer: bytes, product: int, svn: int, data: bytes) -> bytes:
    head = bytes([5] * 16) + bytes(4 + 28) + bytes([attributes]) + bytes(15) + enclave + bytes(32) + signer
    numbers = product.to_bytes(2, "little") + svn.to_bytes(2, "little")
    return head + bytes(96) + numbers + bytes(60) + data.ljust(64, b"\0")


def _domain(attributes: int, data: bytes, svn: int, seam: bytes) -> bytes:
    flags = bytes([attributes, 0, 0, 0x10, 0, 0, 0, 0])
    head = (
        bytes([svn])
        + bytes(15)
        + b"\x51" * 48
        + seam.ljust(48 + 8, b"\0")
        + flags
        + bytes.fromhex("e702060000000000")
    )
    return head + MR["mr_td"] + bytes(3 * 48) + bytes(48) + MR["rt_mr1"] + bytes(2 * 48) + data


def quote(
    made: Platform,
    tee: str,
    *,
    attributes: int | None = None,
    data: bytes = DATA,
    key: ec.EllipticCurvePrivateKey | None = None,
    pck_key: ec.EllipticCurvePrivateKey | None = None,
    svn: int = 5,
    seam: bytes = b"",
) -> bytes:
    """Version 3 for SGX, 4 for TDX. key: signs the quote; pck_key: signs the quoting enclave's report; seam:
    signer and attributes of the TDX module, zeros for Intel's."""
    sgx = tee == "SGX"
    if attributes is None:
        attributes = NEVER_DEBUGGED[tee]
    header = (3 if sgx else 4).to_bytes(2, "little") + (2).to_bytes(2, "little")
    header += (0 if sgx else 0x81).to_bytes(4, "little") + bytes(4) + _VENDOR + bytes(20)
    if sgx:
        body = _enclave(attributes, MR["mr_enclave"], MR["mr_signer"], 7, 3, data)
    else:
        body = _domain(attributes, data, svn, seam)
    public = made.attestation.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    extra = b"\x0e" * 32
    bound = hashlib.sha256(public + extra).digest()
    enclave = _enclave(0x11, b"\x43" * 32, _QE_SIGNER, 1, 6, bound)
    pem = _pem(made.pck, made.ca, made.root).encode()
    certified = enclave + _raw_signature(pck_key or made.pck.key, enclave)
    certified += len(extra).to_bytes(2, "little") + extra
    certified += (5).to_bytes(2, "little") + len(pem).to_bytes(4, "little") + pem
    signature = _raw_signature(key or made.attestation, header + body) + public
    if not sgx:
        certified = (6).to_bytes(2, "little") + len(certified).to_bytes(4, "little") + certified
    auth = signature + certified
    return header + body + len(auth).to_bytes(4, "little") + auth


def evidence(raw: bytes, tee: str) -> Evidence:
    return Evidence(Kind.SGX_DCAP if tee == "SGX" else Kind.TDX, {"quote": raw})
