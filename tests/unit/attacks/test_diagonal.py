"""One joint diagonalisation for all attacks: it finds a common basis, among few matrices and many."""

import numpy as np
import pytest

from tempo.attacks.diagonal import MATRICES, jointly_diagonal, principal, tournament
from tempo.attacks.separation import batches, fastica


def common(count, k=14, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((k, k)))[0]
    m = np.einsum("ik,tk,jk->tij", q, rng.random((count, k)), q)
    wobble = rng.standard_normal(m.shape) * noise
    return m + wobble + wobble.transpose(0, 2, 1), q


@pytest.mark.parametrize("count", [2, 9, MATRICES, 3 * MATRICES])
def test_a_common_basis_is_found(count):
    m, q = common(count)
    v = jointly_diagonal(m)
    assert np.allclose(v.T @ v, np.eye(len(q)), atol=1e-12)
    assert np.allclose(np.abs(v.T @ q).max(1), 1, atol=1e-6)


def test_noise_bends_it_a_little():
    m, q = common(40, noise=0.01)
    assert np.abs(jointly_diagonal(m).T @ q).max(1).min() > 0.95


def test_it_is_no_worse_than_pairs_turned_one_by_one():
    """The plain twin: each pair by itself, in order."""
    m, _ = common(6, k=9, noise=0.2)
    plain, v = m.copy(), np.eye(9)
    for _ in range(20):
        for p in range(8):
            for q in range(p + 1, 9):
                on, off = plain[:, p, p] - plain[:, q, q], 2 * plain[:, p, q]
                across, apart = 2 * (on * off).sum(), (on * on - off * off).sum()
                angle = 0.5 * np.arctan2(across, apart + np.hypot(apart, across))
                turn = np.eye(9)
                turn[[p, q], [p, q]], turn[q, p], turn[p, q] = np.cos(angle), np.sin(angle), -np.sin(angle)
                plain, v = turn.T @ plain @ turn, v @ turn

    def left(u):
        turned = u.T @ m @ u
        return (turned**2).sum() - (np.einsum("tkk->tk", turned) ** 2).sum()

    assert left(jointly_diagonal(m, 20)) < 1.02 * left(v) < 0.8 * left(np.eye(9))


def test_the_strongest_combinations_keep_what_differs():
    m, q = common(200)
    few = principal(m)
    assert len(few) == MATRICES + 1
    inside = q.T @ few @ q
    assert np.allclose(inside, np.einsum("tkk,kl->tkl", inside, np.eye(len(q))), atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 7, 8])
def test_a_tournament_meets_every_pair_once(k):
    met = [tuple(sorted(pair)) for p, q in tournament(k) for pair in zip(p, q, strict=True)]
    assert sorted(met) == [(a, b) for a in range(k) for b in range(a + 1, k)]
    for p, q in tournament(k):
        assert len({*p, *q}) == len(p) + len(q)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_sources_come_apart_in_either_precision(dtype):
    rng = np.random.default_rng(3)
    sources, mixing = rng.laplace(size=(6000, 8)), rng.standard_normal((8, 8))
    g = (fastica((sources @ mixing.T).astype(dtype)).T @ mixing) ** 2
    assert (g.max(1) / g.sum(1)).min() > 0.98


def test_batches_of_other_strengths_come_apart_whatever_their_distribution():
    rng = np.random.default_rng(4)
    mixing = rng.standard_normal((6, 6))
    parts = [rng.standard_normal((500, 6)) * (0.2 + rng.random(6)) @ mixing.T for _ in range(12)]
    g = (batches(parts).T @ mixing) ** 2
    assert (g.max(1) / g.sum(1)).mean() > 0.9
