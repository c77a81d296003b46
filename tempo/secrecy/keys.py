"""Where secrets come from: one session key, derived streams, and keys that work once.

    stream(label) = ChaCha20(key = HMAC-SHA-256(session key, label), nonce = 0)

A label is a tuple of strings and integers (tensor, axis, epoch); different labels give independent
streams, the same label the same stream, so a basis is derived when it is needed and never stored
or serialised. (RFC 8439 for ChaCha20, RFC 2104 for HMAC.)
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from math import log
from typing import final

import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

from tempo.errors import KeySpentError
from tempo.kernels import Hidden, ranking

Label = tuple[str | int, ...]


@final
class SessionKey(Hidden):
    """Root of all secrets of a session: 32 bytes from the operating system's generator."""

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def stream(self, label: Label) -> Stream:
        # Length-prefixed parts: no two labels share an encoding.
        parts = [(b"i" if isinstance(p, int) else b"s") + str(p).encode() for p in label]
        message = b"".join(len(p).to_bytes(4, "big") + p for p in parts)
        return Stream(hmac.digest(self._secret, message, "sha256"))


@final
class Stream(Hidden):
    """A ChaCha20 keystream and the random numbers drawn from it, in order."""

    __slots__ = ("_keystream",)

    def __init__(self, key: bytes) -> None:
        self._keystream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, *shape: int) -> Tensor:
        """Uniform 64-bit words as int64."""
        count = 1
        for size in shape:
            count *= size
        if count == 0:
            return torch.empty(shape, dtype=torch.int64)
        raw = bytearray(8 * count)
        self._keystream.update_into(bytes(8 * count), raw)
        return torch.frombuffer(raw, dtype=torch.int64).view(shape)

    def uniform(self, *shape: int) -> Tensor:
        """float64 in the open interval (0, 1): 52 bits (with 53, adding a half could round up to 1)."""
        return ((self.words(*shape) >> 12) & ((1 << 52) - 1)).double().add_(0.5).mul_(2.0**-52)

    def permutations(self, lengths: Sequence[int]) -> list[Tensor]:
        """For each length a permutation, int32: the order of random words. Two words are equal, which
        would favour one order, with probability below length^2 / 2^65."""
        words = self.words(sum(lengths))
        return [ranking(part) for part in words.split(list(lengths))]

    def coefficients(self, length: int, spread: float) -> Tensor:
        """float64, random sign, magnitude log-uniform in [1/spread, spread]."""
        word = self.words(length)
        magnitude = ((word >> 11) & ((1 << 53) - 1)).double().mul_(2.0**-53)
        sign = (word & 1).double().mul_(2).sub_(1)
        return magnitude.mul_(2).sub_(1).mul_(log(spread)).exp_().mul_(sign)

    def gaussian(self, *shape: int) -> Tensor:
        """float64 standard normal (Box and Muller, 1958)."""
        radius = self.uniform(*shape).log_().mul_(-2).sqrt_()
        return radius.mul_(self.uniform(*shape).mul_(2 * torch.pi).cos_())


@final
class SingleUse(Hidden):
    """Lets each role of a key hide one operand, and raises on the second."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent: set[str] = set()

    def spend(self, role: str) -> None:
        """Raises KeySpentError if `role` has been spent."""
        if role in self._spent:
            raise KeySpentError(
                f"this key has hidden its {role} already; a second operand under one key can be "
                f"compared with the first. Draw a fresh key"
            )
        self._spent.add(role)
