"""What verified evidence says. Whether that is good enough is for a policy, which sees nothing but this."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar, final

T = TypeVar("T")


class Kind(enum.StrEnum):
    """Kinds of evidence."""

    SEV_SNP = "sev-snp"
    TDX = "tdx"
    SGX_DCAP = "sgx-dcap"
    NITRO = "nitro"
    TPM = "tpm"
    SIMULATED = "unsafe-simulated"


@final
class NotProvided(enum.Enum):
    """This kind of evidence does not say. No value equals it: a policy that asks for one refuses."""

    NOT_PROVIDED = "not provided"

    def __str__(self) -> str:
        return "nothing (this kind of evidence does not say)"


NOT_PROVIDED: Final = NotProvided.NOT_PROVIDED

#: A value, or that there is none.
Claimed: TypeAlias = T | NotProvided


@final
@dataclass(frozen=True, slots=True)
class Claims:
    """Everything hexadecimal is in lower case.

    bound         what the evidence is bound to, bytes; the verifier compares it
    measurements  name -> hex of what was loaded: the names are those of the kind's own documents
    debug         whether the host may look into this machine
    tcb           component -> security version: at least these are wanted
    status        the vendor's verdict on that TCB, from signed collateral
    advisories    the vendor's advisories that apply to it
    signers       name -> hex of the keys that signed what was loaded
    platform      which chip or key it was, hex
    root          SHA-256 of the certificate or key that it all rests on, hex
    revocation    whether revocation lists were looked at, for the whole chain
    nonce, public_key   where a document shows them besides what it is bound to
    details       whatever else an auditor may want to read
    """

    kind: Kind
    bound: bytes
    measurements: Mapping[str, str]
    root: str
    debug: Claimed[bool] = NOT_PROVIDED
    tcb: Mapping[str, int] = field(default_factory=dict)
    status: Claimed[str] = NOT_PROVIDED
    advisories: tuple[str, ...] = ()
    signers: Mapping[str, str] = field(default_factory=dict)
    platform: Claimed[str] = NOT_PROVIDED
    revocation: bool = False
    nonce: Claimed[bytes] = NOT_PROVIDED
    public_key: Claimed[bytes] = NOT_PROVIDED
    details: Mapping[str, str | int | bool] = field(default_factory=dict)

    def measurement(self, name: str) -> Claimed[str]:
        return self.measurements.get(name, NOT_PROVIDED)

    def signer(self, name: str) -> Claimed[str]:
        return self.signers.get(name, NOT_PROVIDED)

    def version(self, component: str) -> Claimed[int]:
        return self.tcb.get(component, NOT_PROVIDED)
