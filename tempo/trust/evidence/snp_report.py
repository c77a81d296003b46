"""The attestation report of SEV-SNP, byte by byte (AMD 56860 revision 1.58, table 23).

Little-endian throughout. The signature covers bytes 0 to 0x29F; whatever follows the signature must be zero,
because nothing protects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from tempo.errors import RefusedError

REPORT_BYTES: Final = 0x4A0
SIGNED_BYTES: Final = 0x2A0
_VERSIONS: Final = (2, 3, 4, 5)
_ECDSA_P384_SHA384: Final = 1
_NUMBER_BYTES: Final = 72  # of r and s, which need 48
_VLEK: Final = 1
_TURIN_FAMILY: Final = 0x1A

#: How the eight bytes of a TCB version are laid out: component -> byte.
MILAN: Final[Mapping[str, int]] = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
TURIN: Final[Mapping[str, int]] = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


def tcb_components(raw: bytes, layout: Mapping[str, int]) -> dict[str, int]:
    """Component -> version."""
    return {name: raw[place] for name, place in layout.items()}


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


@final
@dataclass(frozen=True, slots=True)
class SnpReport:
    """Fields as they stand, not verified. TCBs are the 8 raw bytes; hashes and ids are bytes."""

    version: int
    policy: int
    vmpl: int
    flags: int
    platform: int
    report_data: bytes
    measurements: Mapping[str, bytes]
    signers: Mapping[str, bytes]
    report_id: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    chip_id: bytes
    family: int
    signature_r: int
    signature_s: int

    @property
    def debug(self) -> bool:
        return bool(self.policy >> 19 & 1)

    @property
    def migration_agent(self) -> bool:
        return bool(self.policy >> 18 & 1)

    @property
    def smt(self) -> bool:
        """Whether the guest admits to run beside others on one core."""
        return bool(self.policy >> 16 & 1)

    @property
    def chip_masked(self) -> bool:
        return bool(self.flags >> 1 & 1) or not any(self.chip_id)

    @property
    def by_vlek(self) -> bool:
        return self.flags >> 2 & 7 == _VLEK

    @property
    def committed(self) -> dict[str, int]:
        """TCB that the platform will not go below."""
        layout = TURIN if self.family >= _TURIN_FAMILY else MILAN
        return tcb_components(self.committed_tcb, layout)

    @classmethod
    def parse(cls, raw: bytes, step: str) -> SnpReport:
        """Raises RefusedError, naming `step`."""
        if len(raw) != REPORT_BYTES:
            raise RefusedError(step, f"{len(raw)} bytes", f"a report of {REPORT_BYTES} bytes")
        version, algorithm = _number(raw[:4]), _number(raw[0x34:0x38])
        if version not in _VERSIONS:
            raise RefusedError(step, f"version {version}", f"a report of version {_VERSIONS}")
        if algorithm != _ECDSA_P384_SHA384:
            raise RefusedError(step, f"the algorithm {algorithm}", "1, ECDSA P-384 with SHA-384")
        flags = _number(raw[0x48:0x4C])
        if flags >> 2 & 7 not in (0, _VLEK):
            raise RefusedError(step, f"the signing key {flags >> 2 & 7}", "0 (VCEK) or 1 (VLEK)")
        r, s = raw[SIGNED_BYTES : SIGNED_BYTES + 72], raw[SIGNED_BYTES + 72 : SIGNED_BYTES + 144]
        if any(raw[SIGNED_BYTES + 2 * _NUMBER_BYTES :]) or any(r[48:]) or any(s[48:]):
            raise RefusedError(step, "bytes that nothing signs", "zeros after the signature")
        return cls(
            version=version,
            policy=_number(raw[0x08:0x10]),
            vmpl=_number(raw[0x30:0x34]),
            flags=flags,
            platform=_number(raw[0x40:0x48]),
            report_data=raw[0x50:0x90],
            measurements={
                "measurement": raw[0x90:0xC0],
                "host_data": raw[0xC0:0xE0],
                "family_id": raw[0x10:0x20],
                "image_id": raw[0x20:0x30],
            },
            signers={"id_key": raw[0xE0:0x110], "author_key": raw[0x110:0x140]},
            report_id=raw[0x140:0x160],
            reported_tcb=raw[0x180:0x188],
            committed_tcb=raw[0x1E0:0x1E8],
            chip_id=raw[0x1A0:0x1E0],
            family=raw[0x188] if version >= 3 else 0,
            signature_r=_number(r),
            signature_s=_number(s),
        )
