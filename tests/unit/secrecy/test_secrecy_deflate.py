"""Deflation: what is taken from W, what remains, and at what cost."""

import pytest
import torch
from test_secrecy_knobs import parameter, sizes, step
from test_secrecy_sent import House, key_of, randn

from tempo.ops import Op
from tempo.secrecy.deflate import take
from tempo.secrecy.hardening import PLAIN, Hardening


def stream(label=0):
    return key_of("deflate").stream((label,))


def taken(w, r, **options):
    found = take(w, r, options.pop("stream", stream()), **options)
    return found, found.rest(w, out=torch.empty_like(w))


def steep(groups=1, n=96, k=80):
    """Singular values 1/i."""
    return torch.stack([parameter(n, k, seed, spectrum=1.0).detach() for seed in range(groups)])


def strongest(w, r):
    return torch.linalg.svd(w)[2][:, :r].mT


@pytest.mark.parametrize("shape", [(1, 96, 80), (3, 80, 96), (2, 300, 64)])
def test_the_rest_and_what_was_taken_are_w(shape):
    w = randn(*shape)
    found, rest = taken(w, 8)
    assert found.p_GNr.shape == (shape[0], shape[1], 8)
    assert found.q_GKr.shape == (shape[0], shape[2], 8)
    torch.testing.assert_close(rest + found.p_GNr @ found.q_GKr.mT, w, rtol=0, atol=1e-13)


@pytest.mark.security
def test_the_strongest_directions_are_weak_but_not_gone():
    """Each is left with 1/4 to 1 of the next singular value: neither a direction that stands out nor an exact
    null space. Two draws leave different sizes."""
    w, r = steep(2), 8
    nexts = sizes(w)[:, r]
    left = []
    for label in range(2):
        _, rest = taken(w, r, stream=stream(label))
        assert (sizes(rest)[:, 0] < 1.1 * nexts).all()
        assert (sizes(rest)[:, -1] > 0.9 * sizes(w)[:, -1]).all()
        left.append((rest @ strongest(w, r)).norm(dim=1) / nexts.unsqueeze(1))
        assert (left[-1] > 0.2).all()
        assert (left[-1] < 1.1).all()
    assert float((left[0] - left[1]).abs().min()) > 1e-6


def test_a_start_saves_passes():
    """After a small step of W one pass from the old directions finds the new ones as well as three from none,
    where one pass from none does not."""
    w = steep()
    found, _ = taken(w, 8)
    moved = w + 1e-3 * randn(*w.shape, seed=9) / 10

    def caught(q):
        return float((strongest(moved, 4).mT @ q).square().sum()) / 4

    warm, _ = taken(moved, 8, start=found.subspace)
    assert caught(warm.q_GKr) > 0.999
    random = torch.linalg.qr(randn(1, 80, 16, seed=3)).Q
    cold, _ = taken(moved, 8, start=random)
    assert caught(cold.q_GKr) < caught(warm.q_GKr)


def test_a_start_of_another_shape_is_not_used():
    w = steep()
    found, _ = taken(w, 4)
    other, rest = taken(w, 8, start=found.subspace)
    assert other.subspace.shape == (1, 80, 16)
    assert float(sizes(rest)[0, 0]) < 1.1 * float(sizes(w)[0, 8])


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_sizes_near_the_ends_of_the_range(scale):
    w = steep() * scale
    _, rest = taken(w, 8)
    assert rest.isfinite().all()
    assert float(sizes(rest / scale)[0, 0]) < 1.1 * float(sizes(w / scale)[0, 8])


def test_what_has_no_directions():
    assert take(torch.zeros(1, 96, 80), 8, stream()) is None
    assert take(torch.full((1, 96, 80), torch.nan), 8, stream()) is None
    assert take(randn(1, 3, 80), 8, stream()) is None
    assert take(randn(0, 96, 80), 8, stream()) is None
    small = take(randn(1, 64, 64), 64, stream())
    assert small.q_GKr.shape[2] == 16, "a quarter of the shorter side"


@pytest.mark.security
def test_workers_get_the_rest():
    """The spectrum of W' is that of what was sent, but for the secret coefficients."""
    tops = {}
    for deflate in (0, 8):
        with House(hardening=Hardening(deflate=deflate)) as house:
            house.forward(randn(256, 80), parameter(spectrum=1.0))
            w = house.spy.sent(Op.PRODUCT, "right")[0][0]
            tops[deflate] = float(sizes(w)[0] / w.norm())
    assert tops[0] > 0.6
    assert tops[8] < 0.4


def test_an_epoch_begins_where_the_last_one_ended(monkeypatch):
    """One computation an epoch, with the subspace of the epoch before; what is no parameter starts anew."""
    starts = []

    def watched(w_GNK, r, stream, start=None):
        starts.append(start)
        return take(w_GNK, r, stream, start)

    monkeypatch.setattr("tempo.secrecy.weights.take", watched)
    with House(hardening=Hardening(deflate=4)) as house:
        w = parameter()
        for _ in range(2):
            for _ in range(2):  # two uses of one epoch
                house.forward(randn(128, 80), w)
            with torch.no_grad():
                w.add_(1e-3)
        house.forward(randn(128, 80), w.detach().clone())
        assert house.stats.count("deflated_w") == 3
        assert house.stats.seconds["deflate"] > 0
    assert [start is None for start in starts] == [True, False, True]
    starts.clear()
    with House(hardening=Hardening(deflate=4), key_shift=False) as house:
        step(house, randn(128, 80), parameter(), randn(128, 96))
    assert [start is None for start in starts] == [True, False], "the fresh W' of backward too"
    with House(hardening=PLAIN) as house:
        house.forward(randn(128, 80), parameter())
        assert "deflate" not in house.stats.seconds
