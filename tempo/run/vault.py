"""[vault] of tempo.toml: which vault releases data keys to this machine, and which key.

[vault]
address = "vault.example.org:7444"
key = "photos"               what tempo.data_key() asks for, if nothing else
evidence = "tpm"             kind; left out: the best that this machine has
[vault.tls]                  a master's certificate from the vault's authority; left out: [tls]
cert = "..."
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tempo.errors import UsageError
from tempo.wire import TlsFiles

if TYPE_CHECKING:
    from tempo.trust.sealed import DataKey

#: Bytes of a measurement that the simulator claims.
_MEASUREMENT = 48


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """Raises UsageError where a value is not one of those allowed."""

    address: str
    tls: TlsFiles
    key: str | None = None
    #: Of tempo.trust.evidence.Kind; None: the best that this machine has.
    evidence: str | None = None
    #: UNSAFE, for trials: claim this measurement (hex, 48 bytes), as anybody can.
    unsafe_measurement: str | None = None

    def __post_init__(self) -> None:
        for name in ("address", "key", "evidence", "unsafe_measurement"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and (value is not None or name == "address"):
                raise UsageError(f"vault.{name} = {value!r}: expected text")
        if self.evidence is not None:
            from tempo.trust.evidence import Kind

            kinds = [kind.value for kind in Kind]
            if self.evidence not in kinds:
                raise UsageError(f"vault.evidence = {self.evidence!r}: expected one of {', '.join(kinds)}")
        if self.unsafe_measurement is not None and len(_bytes(self.unsafe_measurement)) != _MEASUREMENT:
            raise UsageError(f"vault.unsafe_measurement: expected {2 * _MEASUREMENT} hex digits")

    def fetch(self, name: str | None = None, version: int | None = None) -> DataKey:
        """Raises UsageError where no key is named, and as `tempo.trust.vault.fetch`."""
        wanted = name or self.key
        if wanted is None:
            raise UsageError("which key? Name it: tempo.data_key(NAME), or key = NAME in [vault]")
        from tempo.trust.evidence import Kind
        from tempo.trust.vault import ThisMachine, UnsafeSimulated, fetch

        evidence = (
            ThisMachine(None if self.evidence is None else Kind(self.evidence))
            if self.unsafe_measurement is None
            else UnsafeSimulated(_bytes(self.unsafe_measurement))
        )
        return fetch(self.address, self.tls, evidence, wanted, version)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
