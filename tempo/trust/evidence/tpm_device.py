"""Quotes from the TPM of this machine, through tpm2-pytss (TPM 2.0 Library, Part 3: 18.4).

The attestation key is a primary key of the endorsement hierarchy, restricted, ECC P-256: the TPM derives it
from its seed, so it is the same at every start, and nothing of it lies on a disk. Enrol it once: its name
goes into the policy (`tempo attest produce` prints it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from tempo.errors import OutsideError, UnsupportedError, UsageError
from tempo.trust.evidence.claims import Kind
from tempo.trust.evidence.envelope import Evidence
from tempo.trust.evidence.tpm import qualifying

#: Through the kernel's resource manager.
TCTI: Final = "device:/dev/tpmrm0"
#: Firmware, its settings, boot loader, secure boot, kernel and initial RAM disk.
PCRS: Final = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12)
_MAX_PCR: Final = 23
_BANK: Final = "sha256"
#: A TPM reads eight at a time.
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 3


def _pytss() -> Any:
    try:
        import tpm2_pytss as library
    except ImportError as error:
        raise UnsupportedError(
            "quotes of a TPM are taken by tpm2-pytss, which is not installed",
            "apt-get install libtss2-dev pkg-config, then pip install tempo-confidential[tpm]",
        ) from error
    return library


def produce(report_data: bytes, tcti: str = TCTI, pcrs: Sequence[int] = PCRS) -> Evidence:
    """A quote over 64 bytes and these PCRs (SHA-256 bank). tcti: how to reach it, as tpm2-tools write it.

    Raises OutsideError where there is no TPM or it does not answer, UnsupportedError without the library.
    """
    wanted = sorted(set(pcrs))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] <= _MAX_PCR:
        raise UsageError(f"PCRs are numbered 0 to {_MAX_PCR}, not {list(pcrs)}")
    library = _pytss()
    try:
        with library.ESAPI(tcti) as tpm:
            return _quote(library, tpm, qualifying(report_data), wanted)
    except library.TSS2_Exception as error:
        raise OutsideError(f"the TPM at {tcti} gives no quote ({error}): see tempo doctor") from error


def _quote(library: Any, tpm: Any, data: bytes, pcrs: list[int]) -> Evidence:
    handle, public = _attestation_key(library, tpm)
    selection = library.TPML_PCR_SELECTION.parse(f"{_BANK}:{','.join(map(str, pcrs))}")
    by_the_key = library.TPMT_SIG_SCHEME(scheme=library.TPM2_ALG.NULL)
    try:
        for _ in range(_ATTEMPTS):
            before = _values(library, tpm, pcrs)
            attest, signature = tpm.quote(
                handle, selection, qualifying_data=library.TPM2B_DATA(data), in_scheme=by_the_key
            )
            # Values are read beside the quote: one that is extended in between would not fit its digest.
            if before == _values(library, tpm, pcrs):
                break
        else:
            raise OutsideError("the TPM's PCRs change while they are quoted: take the quote after booting")
    finally:
        tpm.flush_context(handle)
    parts = {
        "attest": bytes(attest),
        "signature": bytes(signature.marshal()),
        "key": _der(public.to_pem()),
        "pcrs": before,
    }
    return Evidence(Kind.TPM, parts)


def _attestation_key(library: Any, tpm: Any) -> tuple[Any, Any]:
    bits = library.TPMA_OBJECT
    template = library.TPM2B_PUBLIC.parse(
        "ecc256:ecdsa-sha256:null",
        objectAttributes=bits.RESTRICTED
        | bits.SIGN_ENCRYPT
        | bits.FIXEDTPM
        | bits.FIXEDPARENT
        | bits.SENSITIVEDATAORIGIN
        | bits.USERWITHAUTH,
    )
    handle, public, *_ = tpm.create_primary(
        library.TPM2B_SENSITIVE_CREATE(), template, library.ESYS_TR.ENDORSEMENT
    )
    return handle, public


def _values(library: Any, tpm: Any, pcrs: list[int]) -> bytes:
    values = b""
    for start in range(0, len(pcrs), _AT_ONCE):
        some = pcrs[start : start + _AT_ONCE]
        selection = library.TPML_PCR_SELECTION.parse(f"{_BANK}:{','.join(map(str, some))}")
        _, _, digests = tpm.pcr_read(selection)
        found = [bytes(digest) for digest in digests]
        if len(found) != len(some):
            raise OutsideError(f"the TPM has no {_BANK} bank, or not all of the PCRs {some}")
        values += b"".join(found)
    return values


def _der(pem: bytes) -> bytes:
    key = serialization.load_pem_public_key(pem)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
