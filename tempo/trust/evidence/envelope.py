"""Evidence as it travels: its kind and its parts.

    {"tempo_evidence": 1, "kind": "sev-snp", "parts": {"report": "<base64>", "certificates": "<base64>"}}

    sev-snp            report, certificates (the host's table, optional)
    tdx, sgx-dcap      quote
    nitro              document (COSE_Sign1)
    tpm                attest, signature, key, pcrs, certificates (optional)
    unsafe-simulated   statement, signature

It comes from a machine that nobody trusts yet: kind, names and sizes are limited before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from tempo.errors import RefusedError
from tempo.trust.evidence.claims import Kind

#: Of one part: the largest are a host's certificate table (20 KB) and Nitro documents (16 KB).
MAX_PART_BYTES: Final = 65536
#: Of the whole file, in base64.
MAX_BYTES: Final = 262144
_STEP: Final = "envelope 1 form"

#: kind -> (parts it has, parts it may have besides)
PARTS: Final[Mapping[Kind, tuple[frozenset[str], frozenset[str]]]] = {
    Kind.SEV_SNP: (frozenset({"report"}), frozenset({"certificates"})),
    Kind.TDX: (frozenset({"quote"}), frozenset()),
    Kind.SGX_DCAP: (frozenset({"quote"}), frozenset()),
    Kind.NITRO: (frozenset({"document"}), frozenset()),
    Kind.TPM: (frozenset({"attest", "signature", "key", "pcrs"}), frozenset({"certificates"})),
    Kind.SIMULATED: (frozenset({"statement", "signature"}), frozenset()),
}


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """What one machine says, not verified. Raises RefusedError for parts that its kind has not."""

    kind: Kind
    parts: Mapping[str, bytes]

    def __post_init__(self) -> None:
        needed, optional = PARTS[self.kind]
        names = set(self.parts)
        if not needed <= names or not names <= needed | optional:
            raise RefusedError(_STEP, f"the parts {sorted(names)}", f"{sorted(needed)} for {self.kind}")
        for name, part in self.parts.items():
            if len(part) > MAX_PART_BYTES:
                raise RefusedError(_STEP, f"{name} of {len(part)} bytes", f"at most {MAX_PART_BYTES}")

    def to_json(self) -> bytes:
        """One line."""
        parts = {name: base64.b64encode(part).decode() for name, part in sorted(self.parts.items())}
        fields = {"tempo_evidence": 1, "kind": self.kind.value, "parts": parts}
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> Evidence:
        """Raises RefusedError for what is no evidence."""
        if len(raw) > MAX_BYTES:
            raise RefusedError(_STEP, f"{len(raw)} bytes or more", f"at most {MAX_BYTES}")
        try:
            fields = json.loads(raw, object_pairs_hook=_no_doubles)
        except (ValueError, RecursionError) as error:
            raise RefusedError(_STEP, "no JSON object with every name once", "evidence in JSON") from error
        if not isinstance(fields, dict) or set(fields) != {"tempo_evidence", "kind", "parts"}:
            raise RefusedError(_STEP, "other fields", "tempo_evidence, kind and parts")
        if fields["tempo_evidence"] != 1 or isinstance(fields["tempo_evidence"], bool):
            raise RefusedError(_STEP, f"version {fields['tempo_evidence']!r:.40}", "version 1")
        kinds = [kind.value for kind in Kind]
        if fields["kind"] not in kinds:
            raise RefusedError(_STEP, f"the kind {fields['kind']!r:.40}", f"one of {', '.join(kinds)}")
        return cls(Kind(fields["kind"]), _parts(fields["parts"]))


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _parts(fields: object) -> dict[str, bytes]:
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise RefusedError(_STEP, "parts that are no texts", "every part in base64")
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in fields.items()}
    except (ValueError, binascii.Error) as error:
        raise RefusedError(_STEP, "a part that is no base64", "every part in base64") from error
