"""The retracted scheme: a secret all-pass filter on a padded torus falls to its zero frame."""

import numpy as np
import pytest
from bench_lab import digits

from tempo.attacks.attack import NothingToAttack
from tempo.attacks.zero_frame import unfilter

TORUS, SIZE = 12, 8


def all_pass(rng):
    """A real filter whose spectrum has modulus 1 everywhere."""
    spectrum = np.fft.fft2(rng.standard_normal((TORUS, TORUS)))
    return spectrum / np.abs(spectrum)


def sealed(rng, *, frame=True):
    """Sixty real digits on a torus, mixed with each other by a secret matrix, then filtered."""
    images = digits()[0][:60].double().numpy().reshape(60, SIZE, SIZE)
    padded = np.zeros((60, TORUS, TORUS)) if frame else rng.standard_normal((60, TORUS, TORUS))
    padded[:, :SIZE, :SIZE] = images + 0.1
    mixed = np.einsum("ab,bij->aij", rng.standard_normal((60, 60)), padded)
    g = all_pass(rng)
    where = np.ones((TORUS, TORUS), bool)
    where[:SIZE, :SIZE] = False
    return np.fft.ifft2(np.fft.fft2(mixed) * g).real, g, where, mixed


def correlation(a, b):
    return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_the_filter_falls():
    rng = np.random.default_rng(0)
    x, g, frame, mixed = sealed(rng)
    before = correlation(x, mixed)
    found = unfilter(x, frame)
    true = np.fft.ifft2(1 / g).real
    assert before < 0.5
    assert correlation(found.inverse, true) > 1 - 1e-6
    assert correlation(found.maps_CPP, mixed) > 1 - 1e-6
    assert found.gap < 1e-6


def test_without_a_zero_frame_nothing_is_found():
    rng = np.random.default_rng(1)
    x, g, frame, _ = sealed(rng, frame=False)
    found = unfilter(x, frame)
    assert correlation(found.inverse, np.fft.ifft2(1 / g).real) < 0.5
    assert found.gap > 1e-3


def test_too_few_equations_are_refused():
    with pytest.raises(NothingToAttack, match="equations"):
        unfilter(np.zeros((1, 12, 12)), np.zeros((12, 12), bool))
