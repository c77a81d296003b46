"""Segments under one key: the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizar (CRYPTO 2015),
with AES-256-GCM.

    key of the file   = HKDF-SHA256(data key, salt, "tempo sealed file 1" || SHA-256(header))
    nonce of segment  = 7 zero bytes || number (4 bytes) || 1 for the last one, else 0
    segment           = AES-256-GCM(plaintext of SEGMENT bytes, the last one shorter or as long)

What that blocks: reordering and dropping (the number), cutting (the last one says so), splicing from another
file (every file has a salt, hence a key of its own), another header (it is in the key). A nonce is never used
twice, since a file's key seals each number once.
"""

from __future__ import annotations

import hashlib
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tempo.errors import TamperedError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.sealed.keys import DataKey

#: Plain bytes of a segment: large enough for the speed of AES-NI, small enough to be opened for one record.
SEGMENT: Final = 65_536
TAG: Final = 16
SALT: Final = 32
MAX_SEGMENTS: Final = 2**32


@final
class Segments(Hidden):
    """Seals and opens the segments of one file."""

    def __init__(self, key: DataKey, salt: bytes, header: bytes) -> None:
        info = b"tempo sealed file 1" + hashlib.sha256(header).digest()
        raw = HKDF(SHA256(), 32, salt, info).derive(key.unsafe_bytes())
        self._cipher = AESGCM(raw)

    def seal_into(self, number: int, plain: memoryview, out: memoryview, *, last: bool) -> int:
        """Bytes written to the beginning of `out`. Each number once."""
        self._cipher.encrypt_into(_nonce(number, last=last), plain, None, out[: len(plain) + TAG])
        return len(plain) + TAG

    def open_into(self, number: int, sealed: memoryview, out: memoryview, *, last: bool) -> None:
        """Raises TamperedError, and `out` then holds nothing of use."""
        try:
            self._cipher.decrypt_into(_nonce(number, last=last), sealed, None, out)
        except InvalidTag:
            raise TamperedError(
                f"segment {number} was altered, moved or cut, or the key is that of another file"
            ) from None


def _nonce(number: int, *, last: bool) -> bytes:
    if not 0 <= number < MAX_SEGMENTS:
        raise UsageError(
            f"a sealed file has {MAX_SEGMENTS} segments at most ({MAX_SEGMENTS * SEGMENT} bytes)"
        )
    return bytes(7) + number.to_bytes(4, "big") + bytes([last])
