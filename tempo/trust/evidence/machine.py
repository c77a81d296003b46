"""Which evidence this machine can produce, and producing it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tempo.errors import OutsideError, UnsupportedError
from tempo.trust.evidence import configfs, sev_snp, sgx_dcap, tdx, tpm_device
from tempo.trust.evidence.claims import Kind
from tempo.trust.evidence.envelope import Evidence

_CONFIGFS: Final = configfs.ROOT.relative_to("/")
_GRAMINE: Final = sgx_dcap.ROOT.relative_to("/")
_PROVIDERS: Final = {sev_snp.PROVIDER: Kind.SEV_SNP, tdx.PROVIDER: Kind.TDX}
_TPMS: Final = ("dev/tpmrm0", "dev/tpm0")


def available(root: Path = Path("/")) -> list[Kind]:
    """Kinds that can be tried here, best first: a TPM says less than a TEE. root: of the system's files."""
    found: list[Kind] = []
    kind = _PROVIDERS.get(configfs.provider(root / _CONFIGFS) or "")
    if kind is not None:
        found.append(kind)
    if (root / _GRAMINE / "quote").exists():
        found.append(Kind.SGX_DCAP)
    if any((root / path).exists() for path in _TPMS):
        found.append(Kind.TPM)
    return found


def produce(kind: Kind, report_data: bytes, root: Path = Path("/"), tcti: str = tpm_device.TCTI) -> Evidence:
    """Evidence of this kind over 64 bytes. Raises OutsideError where this machine has none, UnsupportedError
    for a kind that has no file interface."""
    if kind is Kind.SEV_SNP:
        return sev_snp.produce(report_data, root / _CONFIGFS)
    if kind is Kind.TDX:
        return tdx.produce(report_data, root / _CONFIGFS)
    if kind is Kind.SGX_DCAP:
        return sgx_dcap.produce(report_data, root / _GRAMINE)
    if kind is Kind.TPM:
        return tpm_device.produce(report_data, tcti)
    if kind is Kind.NITRO:
        raise UnsupportedError(
            "Nitro documents come from /dev/nsm, which is no file to write to and read from",
            "ask the Nitro Security Module with AWS's own library, the 64 bytes of report data as user_data, "
            "and put its answer into an evidence file (docs/attestation.md)",
        )
    raise UnsupportedError(
        "the simulator is no machine",
        "tempo.trust.evidence.simulated.produce, with a measurement of your own",
    )


def best(root: Path = Path("/")) -> Kind:
    """The best kind that this machine has. Raises OutsideError where it has none."""
    found = available(root)
    if not found:
        raise OutsideError(
            "this machine can produce no evidence: no confidential VM with configfs-tsm, no Gramine enclave, "
            "no TPM (tempo doctor)"
        )
    return found[0]
