"""What evidence says about its moment: whose key it speaks for, and whose question it answers.

    report data = SHA-512( nonce || length of the public key, 4 bytes, big-endian || public key || context )

    nonce        32 bytes of the verifier, fresh for every question: evidence of yesterday does not answer it
    public key   the key that the machine made for this answer: what is sent to it reaches nobody else
    context      what both talk about, so that an answer given for one purpose serves no other

The length stands there because "ab" + "c" and "a" + "bc" are the same bytes: without it, bytes could move
from the key to the context. All TEEs but TPMs carry these 64 bytes as they are (see tpm.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, final

from tempo.errors import UsageError
from tempo.trust.evidence.claims import NOT_PROVIDED, Claimed

NONCE_BYTES: Final = 32
REPORT_DATA_BYTES: Final = 64
#: A key of more bytes is none: the largest hybrid public keys have 3 KB.
MAX_KEY_BYTES: Final = 16384
MAX_CONTEXT_BYTES: Final = 1024


def report_data(nonce: bytes, public_key: bytes, context: bytes) -> bytes:
    """64 bytes. Raises UsageError for a nonce that has not 32 bytes, or a key or context that is too long."""
    if len(nonce) != NONCE_BYTES:
        raise UsageError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    if len(public_key) > MAX_KEY_BYTES or len(context) > MAX_CONTEXT_BYTES:
        raise UsageError(f"a public key has at most {MAX_KEY_BYTES} bytes, a context {MAX_CONTEXT_BYTES}")
    return hashlib.sha512(nonce + len(public_key).to_bytes(4, "big") + public_key + context).digest()


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """What the evidence must be bound to. Nonce and key apart, for documents that show them too (Nitro)."""

    report_data: bytes
    nonce: Claimed[bytes] = NOT_PROVIDED
    public_key: Claimed[bytes] = NOT_PROVIDED

    def __post_init__(self) -> None:
        if len(self.report_data) != REPORT_DATA_BYTES:
            raise UsageError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(self.report_data)}")

    @classmethod
    def answer(cls, nonce: bytes, public_key: bytes, context: bytes) -> Expected:
        """An answer to `nonce` that speaks for `public_key` in `context`."""
        return cls(report_data(nonce, public_key, context), nonce, public_key)
