"""Keys: the stream against an independent ChaCha20, labels, moments, single use, and that nothing leaks."""

import copy
import hashlib
import hmac
import os
import pickle
import struct
import threading

import pytest
import torch

from tempo.errors import KeySpentError
from tempo.secrecy.keys import SessionKey, SingleUse, Stream

WORD = 0xFFFFFFFF


def key_of(seed):
    """A session key that is the same in every run."""
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


# ---- ChaCha20, written from RFC 8439, section 2.3 ----------------------------------------------


def rotate(word, bits):
    return ((word << bits) | (word >> (32 - bits))) & WORD


def quarter_round(s, a, b, c, d):
    for first, second, third, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[first] = (s[first] + s[second]) & WORD
        s[third] = rotate(s[third] ^ s[first], bits)


def chacha20_block(key, counter, nonce):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += [*struct.unpack("<8L", key), counter, *struct.unpack("<3L", nonce)]
    s = list(start)
    for _ in range(10):
        for column in range(4):
            quarter_round(s, column, 4 + column, 8 + column, 12 + column)
        for diagonal in range(4):
            quarter_round(
                s, diagonal, 4 + (diagonal + 1) % 4, 8 + (diagonal + 2) % 4, 12 + (diagonal + 3) % 4
            )
    return struct.pack("<16L", *((a + b) & WORD for a, b in zip(s, start, strict=True)))


def keystream(key, length):
    blocks = -(-length // 64)
    return b"".join(chacha20_block(key, i, bytes(12)) for i in range(blocks))[:length]


def as_words(raw):
    return list(struct.unpack(f"<{len(raw) // 8}q", raw))


def test_our_chacha20_meets_the_rfc():
    # RFC 8439, 2.3.2 and appendix A.1, vectors 1 and 2.
    block = chacha20_block(bytes(range(32)), 1, bytes.fromhex("000000090000004a00000000"))
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    assert chacha20_block(bytes(32), 0, bytes(12)).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert chacha20_block(bytes(32), 1, bytes(12)).hex().startswith("9f07e7be5551387a98ba977c732d080d")


@pytest.mark.parametrize("key", [bytes(32), bytes(range(32)), hashlib.sha256(b"tempo").digest()])
def test_the_stream_is_chacha20_from_block_0_with_nonce_0(key):
    assert Stream(key).words(100).tolist() == as_words(keystream(key, 800))


def test_the_stream_is_frozen():
    assert Stream(bytes(32)).words(2).tolist() == [-8053014886254331786, 2935650227004792128]
    u = Stream(bytes(32)).uniform(2).tolist()
    assert u == [((w >> 12) % 2**52 + 0.5) / 2**52 for w in as_words(keystream(bytes(32), 16))]
    assert Stream(bytes(32)).permutations([8])[0].tolist() == sorted(
        range(8), key=as_words(keystream(bytes(32), 64)).__getitem__
    )


def test_draws_follow_each_other_and_no_word_serves_twice():
    stream = Stream(bytes(32))
    pieces = [stream.words(3), stream.words(2, 5), stream.words(0), stream.words(1), stream.words(4, 0, 2)]
    assert torch.cat([p.flatten() for p in pieces]).tolist() == as_words(keystream(bytes(32), 8 * 14))
    assert pieces[1].shape == (2, 5)
    assert pieces[4].shape == (4, 0, 2)


def test_a_session_derives_streams_by_hmac():
    key = key_of(0)
    message = b"".join(len(p).to_bytes(4, "big") + p for p in (b"srows", b"i17"))
    derived = hmac.new(key._secret, message, "sha256").digest()
    assert key.stream(("rows", 17)).words(16).tolist() == as_words(keystream(derived, 128))


def test_session_keys_come_from_the_operating_system(monkeypatch):
    asked = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or real(n))
    a, b = SessionKey(), SessionKey()
    assert asked == [32, 32]
    assert not torch.equal(a.stream(("x",)).words(4), b.stream(("x",)).words(4))


def test_no_seed_of_the_framework_reaches_the_stream():
    state = torch.get_rng_state()
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        stream = key_of(0).stream(("x",))
        drawn.append([stream.gaussian(9), stream.permutations([9])[0], stream.coefficients(9, 2.0)])
        assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))


LABELS = [
    (),
    ("",),
    ("", ""),
    ("a", "bc"),
    ("ab", "c"),
    ("abc",),
    ("a", "b", "c"),
    ("1",),
    (1,),
    (-1,),
    ("-1",),
    (11,),
    (1, 1),
    ("i1",),
    ("s1",),
    ("1", 1),
    (1, "1"),
    ("\x00",),
    ("\x00\x00\x00\x02s",),
    ("a", "\x00\x00\x00\x02sb"),
    ("a\x00\x00\x00\x02sb",),
    ("é",),
    ("e\u0301",),
    (2**64,),
    (str(2**64),),
]


def test_labels_are_injective():
    key = key_of(1)
    streams = {tuple(key.stream(label).words(4).tolist()): label for label in LABELS}
    assert len(streams) == len(LABELS)


def test_equal_labels_give_equal_streams_and_keys_separate_them():
    a, b = key_of(1), key_of(2)
    for label in LABELS:
        assert torch.equal(a.stream(label).words(4), a.stream(label).words(4))
        assert not torch.equal(a.stream(label).words(4), b.stream(label).words(4))


# ---- what is drawn -----------------------------------------------------------------------------


def chi_square(counts):
    expected = counts.sum() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


def beyond(degrees):
    """A bound that chi-square of so many degrees exceeds about once in 10^6 (Wilson and Hilferty)."""
    return degrees * (1 - 2 / (9 * degrees) + 4.76 * (2 / (9 * degrees)) ** 0.5) ** 3


def test_uniform_is_uniform_and_open():
    u = key_of(3).stream(("u",)).uniform(200_000)
    assert u.min() > 0
    assert u.max() < 1
    assert chi_square(torch.histc(u, 100, 0, 1)) < beyond(99)
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / len(u)) ** 0.5
    pairs = u.view(-1, 2)
    assert abs(torch.corrcoef(pairs.mT)[0, 1]) < 5 / len(pairs) ** 0.5


@pytest.mark.parametrize("word", [0, -1, 1, -(2**63), 2**63 - 1, 0xFFF, ~0xFFF])
def test_uniform_never_reaches_0_or_1(monkeypatch, word):
    # Regression: with 53 bits and a half, the word -1 rounded up to 1.
    monkeypatch.setattr(Stream, "words", lambda self, *shape: torch.full(shape, word))
    u = Stream(bytes(32)).uniform(3)
    assert bool(((u > 0) & (u < 1)).all())
    assert Stream(bytes(32)).gaussian(3).isfinite().all()


def test_gaussian_moments():
    n = 200_000
    z = key_of(4).stream(("g",)).gaussian(n)
    # Deviations of the estimates: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n).
    assert abs(z.mean()) < 5 * n**-0.5
    assert abs(z.square().mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs(z.pow(3).mean()) < 5 * (15 / n) ** 0.5
    assert abs(z.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    quantiles = torch.special.ndtri(torch.linspace(0.01, 0.99, 99, dtype=torch.float64))
    counts = torch.bincount(torch.bucketize(z, quantiles), minlength=100).double()
    assert chi_square(counts) < beyond(99)
    assert abs(torch.corrcoef(z.view(-1, 2).mT)[0, 1]) < 5 / (n / 2) ** 0.5
    assert abs(torch.corrcoef(z.square().view(-1, 2).mT)[0, 1]) < 5 / (n / 2) ** 0.5


def test_permutations_are_permutations_and_all_are_as_likely():
    stream = key_of(5).stream(("p",))
    seen = {}
    for _ in range(6000):
        p = tuple(stream.permutations([4])[0].tolist())
        seen[p] = seen.get(p, 0) + 1
    assert len(seen) == 24
    assert chi_square(torch.tensor(list(seen.values()), dtype=torch.float64)) < beyond(23)
    for length in (0, 1, 2, 1000):
        assert torch.equal(stream.permutations([length])[0].sort().values, torch.arange(length))


def test_a_long_permutation_sends_each_place_anywhere():
    stream = key_of(6).stream(("p",))
    landed = torch.zeros(16, 16, dtype=torch.float64)
    for _ in range(3200):
        landed[torch.arange(16), stream.permutations([16])[0]] += 1
    assert all(chi_square(row) < beyond(15) for row in landed)
    assert all(chi_square(column) < beyond(15) for column in landed.mT)


@pytest.mark.parametrize("spread", [1.01, 2**0.5, 4.0, 16.0])
def test_coefficients_are_log_uniform_with_both_signs(spread):
    n = 50_000
    c = key_of(7).stream((str(spread),)).coefficients(n, spread)
    assert c.dtype == torch.float64
    assert bool((c.abs() >= (1 - 1e-15) / spread).all())
    assert bool((c.abs() <= spread * (1 + 1e-15)).all())
    where = c.abs().log() / torch.tensor(spread, dtype=torch.float64).log()
    assert chi_square(torch.histc(where, 50, -1, 1)) < beyond(49)
    assert abs((c > 0).double().mean() - 0.5) < 5 * 0.5 / n**0.5
    # Signs say nothing of magnitudes, nor of their neighbours.
    assert abs(torch.corrcoef(torch.stack([c.sign(), where]))[0, 1]) < 5 / n**0.5
    assert abs((c[1:].sign() * c[:-1].sign()).mean()) < 5 / n**0.5
    # No coefficient is a power of two that would keep mantissas.
    assert len(set(torch.frexp(c).mantissa.abs().tolist())) > 0.99 * n


# ---- single use --------------------------------------------------------------------------------


def test_a_role_is_spent_once_and_roles_are_separate():
    once = SingleUse()
    once.spend("X")
    once.spend("dY")
    for role in ("X", "dY", "X"):
        with pytest.raises(KeySpentError, match="fresh key"):
            once.spend(role)
    once.spend("W")


# ---- nothing leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: key_of(8), lambda: key_of(8).stream(("x",))], ids=["key", "stream"])
def test_secrets_are_neither_pickled_nor_copied(make):
    secret = make()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
    for dup in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            dup(secret)
    with pytest.raises(TypeError):
        copy.deepcopy({"kept": [secret]})
    with pytest.raises(TypeError):
        vars(secret)


def test_secrets_are_not_printed():
    key = key_of(9)
    stream = key.stream(("x",))
    for secret in (key, stream):
        for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
            assert key._secret.hex() not in text
            assert repr(key._secret) not in text
            assert "hidden" in text
            assert "0x" not in text


def test_no_error_message_holds_a_key():
    key = key_of(10)
    with pytest.raises(TypeError) as caught:
        pickle.dumps(key)
    assert key._secret.hex() not in str(caught.value)
    assert repr(key._secret) not in str(caught.value)


def test_single_use_is_not_copied_out_of_its_rule():
    for dup in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            dup(SingleUse())


def test_threads_may_share_a_session_key():
    key, errors = key_of(11), []

    def draw():
        try:
            for i in range(50):
                key.stream(("x", i)).gaussian(500)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
