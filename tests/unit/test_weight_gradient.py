"""dW from its parts: which rows of dY the share of the centre is of."""

from types import SimpleNamespace

import pytest
import torch

from tempo.config import Config
from tempo.memory import Pool
from tempo.secrecy.cover import Cover
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection, row_norms_and_sums
from tempo.secrecy.seal import FeatureKey
from tempo.stats import Stats
from tempo.weight_gradient import WeightGradient

G, R, N, K = 2, 200, 70, 90
ALL = torch.arange(R)


def gradient(dy, centre, sums):
    cover = Cover(centre, 0, None, ())
    return WeightGradient(SimpleNamespace(stats=Stats(), pool=Pool()), dy, sums, cover, K)


def add(dw, key, where, sealed, dy):
    dw.add(SimpleNamespace(key=key, where=where), sealed, dy)


@pytest.fixture
def dy():
    return torch.randn(G, R, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1


@pytest.fixture
def centre():
    return torch.randn(G, 1, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def key():
    return FeatureKey(SessionKey(), Config().make_scheme(), (0,), groups=G, k=K, n=N)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        [[None, None]],
        [[ALL[:120], None], [ALL[120:], ALL[:0]]],
        [[ALL[:120], ALL[50:]], [ALL[130:], ALL[:0]]],  # rows that no piece has
        [[ALL[::3], ALL[:1]]],
    ],
)
def test_the_centre_has_the_rows_that_were_sent(dy, centre, key, parts, told):
    sums = row_norms_and_sums(dy)[1] if told else None
    dw = gradient(dy, centre, sums)
    for index in parts:
        add(dw, key, Selection(tuple(index), R), torch.zeros(G, N, K, dtype=torch.float64), dy)
    sent = sum(Selection(tuple(index), R).mask().double() for index in parts)
    assert sent.max() == 1
    exact = torch.einsum("gr,grn,gk->gnk", sent, dy, centre[:, 0])
    torch.testing.assert_close(dw.finish(), exact, rtol=1e-11, atol=1e-11)


def test_the_shares_of_workers_and_master_add_up(dy, centre, key):
    exact = torch.randn(G, N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sealed = torch.randn(G, N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    decoded = key.open_dw(sealed.clone())
    where = Selection.everything(G, R)
    dw = gradient(dy, None, None)
    dw.local[0] += exact[0]
    add(dw, key, where, sealed.clone(), dy)
    add(dw, key, where, sealed.clone(), dy)
    other = FeatureKey(SessionKey(), Config().make_scheme(), (1,), groups=G, k=K, n=N)
    add(dw, other, where, sealed.clone(), dy)
    expected = 2 * decoded + other.open_dw(sealed.clone())
    expected[0] += exact[0]
    torch.testing.assert_close(dw.finish(), expected)


def test_without_any_share_it_is_zero(dy, centre):
    assert torch.equal(gradient(dy, centre, None).finish(), torch.zeros(G, N, K, dtype=torch.float64))
