"""Residues modulo small primes: the numbers of the scheme `shares`, and how a seed becomes a tensor of them.

    integer v  ->  (v mod 251, v mod 241, v mod 239, v mod 233, v mod 229)      one byte each

The product of the primes is 2^39.489, so integers of magnitude below 2^38.48 are told apart by their
residues (Chinese remainder theorem). Axes: P primes, in the order of PRIMES, before those of the tensor.

    expand(seed, shape)[i] = the bytes below PRIMES[i], in order, of the keystream
                             ChaCha20(key = seed, nonce = PRIMES[i] as 12 bytes, little-endian), block 0 on

Bytes that are not below the prime are dropped: reducing them would make the smallest residues likelier.
What remains is uniform and independent (RFC 8439 for ChaCha20). Dropping shows how many bytes were dropped
and nothing of those that stay, and no table is indexed by a byte of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

from tempo.errors import UsageError

#: The largest primes below 2^8 whose halves fit the signed byte of a tensor core with room to spare.
PRIMES: Final = (251, 241, 239, 233, 229)
#: Bytes of a seed.
KEY_BYTES: Final = 32

#: Bytes of keystream at a time: they stay in the cache between cipher and comparison.
_PIECE: Final = 1 << 16


def expand(seed: bytes, shape: Sequence[int]) -> Tensor:
    """Uniform residues, uint8 (P, *shape), a function of seed and shape alone. A seed is for one tensor.
    Raises UsageError for a seed of another length."""
    out = torch.empty((len(PRIMES), *shape), dtype=torch.uint8)
    expand_into(seed, out)
    return out


def expand_into(seed: bytes, out: Tensor) -> None:
    """`expand` into a contiguous uint8 tensor (P, *shape) on the CPU."""
    if len(seed) != KEY_BYTES:
        raise UsageError(f"a seed has {KEY_BYTES} bytes, not {len(seed)}")
    if out.dtype != torch.uint8 or out.shape[:1] != (len(PRIMES),) or not out.is_contiguous():
        raise UsageError(
            f"residues are a contiguous uint8 tensor with {len(PRIMES)} primes as its first axis"
        )
    rows = out.view(len(PRIMES), prod(out.shape[1:])).numpy()
    for prime, row in zip(PRIMES, rows, strict=True):
        _fill(seed, prime, row)


def _fill(seed: bytes, prime: int, row: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    keystream = Cipher(ChaCha20(seed, bytes(4) + prime.to_bytes(12, "little")), mode=None).encryptor()
    done = 0
    while done < len(row):
        # A little more than is needed on average; whatever is missing comes from the next piece.
        size = min(_PIECE, (len(row) - done) * 256 // prime + 64)
        piece = np.frombuffer(keystream.update(bytes(size)), np.uint8)
        kept = piece[np.flatnonzero(piece < prime)[: len(row) - done]]
        row[done : done + len(kept)] = kept
        done += len(kept)
