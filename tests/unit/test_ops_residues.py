"""Residues from seeds: the definition by an independent ChaCha20, frozen vectors, uniformity."""

import struct
from math import sqrt

import pytest
import torch

from tempo.errors import UsageError
from tempo.ops import KEY_BYTES, PRIMES, expand, expand_into
from tempo.ops import residues as module

SEED = bytes(range(KEY_BYTES))
# `expand(SEED, (2, 3))`, frozen: masters and workers of different releases expand alike or not at all.
VECTOR = [
    [[176, 245, 180], [57, 166, 221]],
    [[22, 195, 29], [163, 155, 57]],
    [[42, 108, 149], [35, 105, 50]],
    [[41, 199, 192], [133, 104, 60]],
    [[67, 139, 204], [143, 72, 146]],
]


def chacha20(key, nonce, length):
    """RFC 8439, section 2.4, word by word."""

    def rotated(value, bits):
        return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF

    out = b""
    for counter in range(-(-length // 64)):
        state = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key)]
        state += [counter, *struct.unpack("<3I", nonce)]
        work = list(state)
        for number in range(80):
            a, b, c, d = ROUNDS[number % 8]
            for one, two, three, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                work[one] = (work[one] + work[two]) & 0xFFFFFFFF
                work[three] = rotated(work[three] ^ work[one], bits)
        out += struct.pack("<16I", *((w + s) & 0xFFFFFFFF for w, s in zip(work, state, strict=True)))
    return out[:length]


ROUNDS = [(i, i + 4, i + 8, i + 12) for i in range(4)]
ROUNDS += [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]


def test_the_reference_is_the_rfcs():
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a00000000")
    # Section 2.3.2 has block 1.
    assert chacha20(key, nonce, 128)[64:80].hex() == "10f1e7e4d13b5915500fdd1fa32071c4"


def test_the_primes_are_the_largest_below_a_byte_and_give_the_range_that_is_claimed():
    product = 1
    for prime in PRIMES:
        assert all(prime % divisor for divisor in range(2, 16))
        product *= prime
    assert 2**39.48 < product < 2**39.49


def test_frozen_vector():
    assert expand(SEED, (2, 3)).tolist() == VECTOR


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_the_bytes_below_the_prime_in_the_order_of_the_keystream(count):
    expanded = expand(SEED, (count,))
    for prime, row in zip(PRIMES, expanded, strict=True):
        stream = chacha20(SEED, prime.to_bytes(12, "little"), 2 * count + 200)
        assert row.tolist() == [byte for byte in stream if byte < prime][:count]


def test_neither_the_shape_nor_the_pieces_change_the_numbers(monkeypatch):
    flat = expand(SEED, (6000,))
    assert torch.equal(expand(SEED, (20, 3, 100)).flatten(1), flat)
    assert torch.equal(expand(SEED, (700,)), flat[:, :700])
    monkeypatch.setattr(module, "_PIECE", 333)
    assert torch.equal(expand(SEED, (6000,)), flat)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0, 2)])
def test_empty_shapes(shape):
    assert expand(SEED, shape).shape == (len(PRIMES), *shape)


def test_into_a_tensor():
    out = torch.full((2, len(PRIMES), 7), 255, dtype=torch.uint8)
    expand_into(SEED, out[1])
    assert torch.equal(out[1], expand(SEED, (7,)))
    assert bool((out[0] == 255).all())


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(UsageError, match="32 bytes"):
        expand(seed, (2,))


@pytest.mark.parametrize(
    "out",
    [
        torch.empty(4, 3, dtype=torch.uint8),
        torch.empty(5, 3, dtype=torch.int8),
        torch.empty(3, 5, dtype=torch.uint8).mT,
        torch.empty((), dtype=torch.uint8),
    ],
)
def test_what_cannot_hold_residues_is_refused(out):
    with pytest.raises(UsageError, match="contiguous uint8"):
        expand_into(SEED, out)


# ---- uniformity ----------------------------------------------------------------------------------


def deviation(residues, prime):
    """Pearson's chi-square of the counts, in standard deviations from its mean (p - 1 degrees)."""
    counts = torch.bincount(residues.flatten().long(), minlength=prime).double()
    expected = residues.numel() / prime
    chi = float(((counts - expected) ** 2 / expected).sum())
    return (chi - (prime - 1)) / sqrt(2 * (prime - 1))


@pytest.mark.security
@pytest.mark.parametrize("number", [1, 2, 3])
def test_residues_are_uniform(number):
    for prime, row in zip(PRIMES, expand(bytes([number]) * KEY_BYTES, (400_000,)), strict=True):
        assert int(row.max()) == prime - 1
        assert abs(deviation(row, prime)) < 4.5


@pytest.mark.security
def test_the_statistic_finds_plain_reduction():
    """What `expand` must not do: bytes modulo p."""
    for prime in PRIMES:
        stream = torch.tensor(list(chacha20(SEED, bytes(12), 40_000)))
        assert deviation(stream % prime, prime) > 4.5


@pytest.mark.security
def test_streams_of_primes_and_seeds_have_nothing_to_do_with_each_other():
    """Chi-square of joint halves, 3 degrees of freedom: 25 is exceeded once in 60,000 times."""
    streams = [*expand(SEED, (100_000,)), *expand(SEED[::-1], (100_000,))]
    halves = [row > 113 for row in streams]
    for i, one in enumerate(halves):
        for other in halves[:i]:
            joint = torch.bincount(2 * one.long() + other.long(), minlength=4).double().view(2, 2)
            expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / joint.sum()
            assert float(((joint - expected) ** 2 / expected).sum()) < 25


@pytest.mark.security
def test_following_residues_are_independent():
    for prime, row in zip(PRIMES, expand(SEED, (200_000,)), strict=True):
        centred = row.double() - (prime - 1) / 2
        correlation = float((centred[1:] * centred[:-1]).mean() / centred.square().mean())
        assert abs(correlation) < 4.5 / sqrt(len(centred))
