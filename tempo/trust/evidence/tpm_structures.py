"""Two structures of the TPM, byte by byte, big-endian (TPM 2.0 Library, Part 2).

    TPMS_ATTEST      magic 4, type 2, signer TPM2B, extraData TPM2B, clock 8, resetCount 4, restartCount 4,
                     safe 1, firmwareVersion 8, TPML_PCR_SELECTION, pcrDigest TPM2B
    TPMT_SIGNATURE   scheme 2, hash 2, then RSA: TPM2B; ECDSA: TPM2B, TPM2B

They come from outside, and no native library needs to touch them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from tempo.errors import RefusedError

_MAGIC: Final = 0xFF544347
_QUOTE: Final = 0x8018
_ECDSA: Final = 0x0018
_RSA: Final = (0x0014, 0x0016)
_MAX_SELECT_BYTES: Final = 4


@final
class _Reader:
    """Takes numbers and buffers from the front of bytes."""

    def __init__(self, raw: bytes, step: str) -> None:
        self._raw = raw
        self._at = 0
        self._step = step

    def take(self, count: int) -> bytes:
        taken = self._raw[self._at : self._at + count]
        if len(taken) != count:
            raise RefusedError(self._step, f"{len(self._raw)} bytes, cut short", "the whole structure")
        self._at += count
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        if self._at != len(self._raw):
            more = len(self._raw) - self._at
            raise RefusedError(self._step, f"{more} bytes too many", "the structure and nothing behind it")


@final
@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of a quote over one bank of PCRs."""

    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    bank: int
    indices: tuple[int, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, raw: bytes, step: str) -> Quote:
        """Raises RefusedError, naming `step`."""
        reader = _Reader(raw, step)
        magic, kind = reader.number(4), reader.number(2)
        if magic != _MAGIC or kind != _QUOTE:
            raise RefusedError(step, f"magic {magic:#010x}, type {kind:#06x}", "a quote made by a TPM")
        reader.sized()  # the signer's qualified name: the key is trusted by itself
        extra_data = reader.sized()
        clock, resets, restarts = reader.number(8), reader.number(4), reader.number(4)
        safe, firmware = reader.number(1), reader.number(8)
        count = reader.number(4)
        if safe > 1 or count != 1:
            raise RefusedError(step, f"{count} banks of PCRs", "one bank")
        bank, size = reader.number(2), reader.number(1)
        if not 0 < size <= _MAX_SELECT_BYTES:
            raise RefusedError(step, f"a selection of {size} bytes", f"1 to {_MAX_SELECT_BYTES}")
        bits = int.from_bytes(reader.take(size), "little")
        digest = reader.sized()
        reader.end()
        indices = tuple(index for index in range(8 * size) if bits >> index & 1)
        return cls(extra_data, clock, resets, restarts, bool(safe), firmware, bank, indices, digest)


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE. first: the RSA signature, or r; second: s."""

    scheme: int
    hash_algorithm: int
    first: bytes
    second: bytes = b""

    @classmethod
    def parse(cls, raw: bytes, step: str) -> Signature:
        """Raises RefusedError, naming `step`."""
        reader = _Reader(raw, step)
        scheme, algorithm = reader.number(2), reader.number(2)
        if scheme != _ECDSA and scheme not in _RSA:
            raise RefusedError(step, f"the scheme {scheme:#06x}", "RSASSA, RSAPSS or ECDSA")
        first = reader.sized()
        second = reader.sized() if scheme == _ECDSA else b""
        reader.end()
        return cls(scheme, algorithm, first, second)
