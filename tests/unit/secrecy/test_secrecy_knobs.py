"""The knobs of mixing: every product stays exact, and each does to what is sent what it says.

What workers see is what a spy kept. Norms and singular values of X' differ from those of X by the secret
coefficients, which is why thresholds on them are wide.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_secrecy_sent import House, key_of, randn, zeroed

from tempo.ops import Op
from tempo.secrecy.cover import constant_columns
from tempo.secrecy.hardening import PLAIN, Hardening
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import FeatureKey, RowKey

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
ALL = Hardening(deflate=8, decoys=4, fill=6, gain=16.0, repeats=0.5)


def near(ours, exact, tolerance=1e-12):
    if ours is not None:
        size = float(exact.abs().max())
        torch.testing.assert_close(ours, exact, rtol=0, atol=tolerance * (1 + size) * exact.shape[-1] ** 0.5)


def step(house, x, w, dy):
    y, ticket = house.forward(x, w)
    near(y, x @ w.detach().mT)
    return ticket, back(house, ticket, x, w, dy)


def back(house, ticket, x, w, dy):
    dx, dw = house.backward(ticket, x, w.detach(), dy)
    near(dx, dy @ w.detach())
    near(dw, dy.mT @ x)
    return dx, dw


def parameter(n=96, k=80, seed=2, spectrum=0.0):
    w = randn(n, k, seed=seed)
    if spectrum:
        u, s, v = torch.linalg.svd(w, full_matrices=False)
        w = (u * s[0] * torch.arange(1, len(s) + 1) ** -spectrum) @ v
    return torch.nn.Parameter(w)


def sizes(t):
    return torch.linalg.svdvals(t)


# ---- exactness -------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    knobs = Hardening(
        deflate=draw(st.sampled_from([0, 1, 8, 64])),
        decoys=draw(st.sampled_from([0, 1, 5])),
        decoy_size=draw(st.sampled_from([0.1, 1.0, 8.0])),
        fill=draw(st.sampled_from([0, 3, 100])),
        gain=draw(st.sampled_from([1.0, 1024.0])),
        repeats=draw(st.sampled_from([0.3, 1.0])),
    )
    rows, k, n = draw(st.sampled_from([64, 200, 333])), draw(st.sampled_from([64, 80, 130])), 96
    seed = draw(st.integers(0, 10**6))
    x, w, dy = randn(rows, k, seed=seed) + 2, parameter(n, k, seed + 1), randn(rows, n, seed=seed + 2)
    if draw(st.booleans()):
        x[:, : draw(st.sampled_from([1, 5, 30]))] = draw(st.sampled_from([0.0, 3.0]))
    lost = draw(st.sampled_from([0, 3, 60]))
    x = zeroed(x, slice(0, draw(st.sampled_from([0, 20]))))
    return knobs, draw(st.booleans()), draw(st.sampled_from([1, 2])), x, w, zeroed(dy, slice(5, 5 + lost))


@few
@given(cases())
def test_every_product_is_exact(case):
    """Twice: the second step warms up from the first; and a second backward seals under fresh keys."""
    knobs, key_shift, spies, x, w, dy = case
    with House(hardening=knobs, key_shift=key_shift, spies=spies) as house:
        for _ in range(2):
            ticket, _ = step(house, x, w, dy)
            with torch.no_grad():
                w.add_(1e-3 * torch.ones(()))
        ticket, _ = step(house, x, w, dy)
        back(house, ticket, x, w, dy + 1)


@pytest.mark.parametrize("key_shift", [True, False])
def test_exact_where_a_worker_lies(key_shift):
    """What it had is sealed again for the other, or computed here: under the same corrections."""
    lies = {0: lambda t: t + 1}
    with House(hardening=ALL, key_shift=key_shift, spies=2, lies=lies) as house:
        step(house, randn(400, 80, seed=1), parameter(), randn(400, 96, seed=3))
        assert house.stats.count("checks_failed") >= 1
    with House(hardening=ALL, key_shift=key_shift, lies=lies) as house:
        step(house, randn(400, 80, seed=1), parameter(), randn(400, 96, seed=3))


def test_other_schemes_take_no_knob():
    sizes_ = {"chunk": 128, "smallest": 64, "rounds": 2, "row_rounds": 2, "block": 64}
    for name in ("monomial", "unsafe_none"):
        assert scheme_from(name, spread=2.0, **sizes_, hardening=ALL).hardening == PLAIN


# ---- decoys and fill -------------------------------------------------------------------------------


def x_sent(house, x, w=None):
    house.forward(x, parameter() if w is None else w)
    return house.spy.sent(Op.PRODUCT, "left")[-1]


@pytest.mark.security
def test_decoys_raise_the_rank():
    """X of rank 10: centred 11 at most, with 7 decoys 18; the least of them is no rounding error."""
    x = randn(300, 10, seed=1) @ randn(10, 80, seed=2)
    for decoys in (0, 7):
        with House(hardening=Hardening(decoys=decoys)) as house:
            s = sizes(x_sent(house, x))
            assert int((s > 1e-9 * s[0]).sum()) == 11 + decoys
            assert float(s[10 + decoys]) > 1e-4 * float(s[0])


@pytest.mark.security
def test_decoys_hide_the_strongest_directions():
    """Energy of X' within the image of the true top direction: about all without decoys, and less than
    half of it beside decoys three times as large."""
    direction = torch.nn.functional.normalize(randn(1, 80, seed=4))
    x = 10 * randn(500, 1, seed=3) @ direction + 0.1 * randn(500, 80, seed=5)
    shares = {}
    for size in (0.0, 3.0):
        knobs = Hardening(decoys=8, decoy_size=size) if size else PLAIN
        with House(hardening=knobs) as house:
            s = sizes(x_sent(house, x)).square()
            shares[size] = float(s[0] / s.sum())
    assert shares[0.0] > 0.95
    assert shares[3.0] < 0.6


@pytest.mark.security
@pytest.mark.parametrize("size", [0.5, 2.0])
def test_the_size_of_decoys(size):
    """Energy grows 1 + size^2 times, whatever the mean of X, which the centre takes off but for noise."""
    x = randn(2000, 80, seed=1) + 30
    with House(hardening=Hardening(decoys=4, decoy_size=size)) as house:
        energy = float(x_sent(house, x).square().sum())
    with House() as house:
        alone = float(x_sent(house, x).square().sum())
    assert 0.6 < (energy / alone) / (1 + size**2) < 1.6


@pytest.mark.security
def test_decoys_stay_for_one_epoch_of_w():
    """Under one B the directions are the same, or they would average out; under the next they are others.
    Rows are fresh every time."""
    key, sizes_ = key_of(1), {"chunk": 128, "smallest": 64, "rounds": 2, "row_rounds": 2, "block": 64}
    scheme = scheme_from("mixing", spread=2.0, **sizes_, hardening=Hardening(decoys=4))
    one, other = (FeatureKey(key, scheme, ("W", i), groups=2, k=80, n=64) for i in (1, 2))
    z = one.decoys(2, 80, 4)
    assert z.shape == (2, 80, 4)
    assert torch.equal(z, one.decoys(2, 80, 4))
    assert not torch.isclose(z, other.decoys(2, 80, 4)).any()
    rows = RowKey(key, scheme, (1,), (100, 70))
    u = rows.draws(4, torch.float64)
    assert [t.shape for t in u] == [(100, 4), (70, 4)]
    assert all(torch.equal(a, b) for a, b in zip(u, rows.draws(4, torch.float64)))
    assert not torch.isclose(u[0], RowKey(key, scheme, (2,), (100, 70)).draws(4, torch.float64)[0]).any()
    assert abs(float(torch.cat(u).square().mean()) - 1) < 0.15


@pytest.mark.security
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_dead_columns_are_filled(value):
    """12 features alike in all rows. The centre leaves one direction of them: rank K - 11; filled, K, and the
    least singular value is of the usual size. A smaller fill lifts as many as it says."""
    x = randn(400, 80, seed=1) + 1
    x[:, 20:32] = value
    ranks = {}
    for fill in (0, 5, 12, 40):
        with House(hardening=Hardening(fill=fill)) as house:
            s = sizes(x_sent(house, x))
            ranks[fill] = int((s > 1e-9 * s[0]).sum())
            if fill >= 12:
                assert float(s[-1]) > 0.1 * float(s.median())
    assert ranks == {0: 69, 5: 74, 12: 80, 40: 80}


def test_constant_columns_are_found_in_all_rows():
    """Also where a few rows alone differ, which a first look may miss."""
    x = randn(1000, 80, seed=1).float()
    x[:, 3], x[:, 7], x[:, 9], x[:, 11] = 0.0, 2.5, 1.0, 1.0
    x[:, 9] += 1e-7 * randn(1000, seed=2).sign()  # a round-off
    x[777, 11] = 1.5
    assert constant_columns(x).tolist() == [3, 7, 9]
    assert constant_columns(x[:1]).tolist() == list(range(80))
    assert constant_columns(x[:0]).tolist() == []


@pytest.mark.security
def test_the_plane_of_layer_norm():
    """Rows of LayerNorm lie in a plane. Exact centring would leave an exact null vector of X'; the noise of
    the centre leaves a near one, and decoys none that stands out."""
    x = torch.nn.functional.layer_norm(randn(2000, 80, seed=1) @ randn(80, 80, seed=2) + 1, (80,))
    assert float(sizes(x - x.mean(0))[-1]) < 1e-12 * float(sizes(x)[0])
    gaps = {}
    for decoys in (0, 8):
        found = []
        for _ in range(5):
            with House(hardening=Hardening(decoys=decoys)) as house:
                s = sizes(x_sent(house, x, torch.nn.Parameter(randn(64, 80))))
                found.append(float(s[-1] / s[-2]))
        gaps[decoys] = min(found)
    assert gaps[0] > 1e-4
    assert gaps[8] > max(0.2, gaps[0])


# ---- gain ------------------------------------------------------------------------------------------


def norm_ratios(gain, key_shift=True):
    """|T'| / |T| of X, W and dY for several steps."""
    x, dy, found = randn(256, 80, seed=1), randn(256, 96, seed=3), []
    for seed in range(6):
        with House(hardening=Hardening(gain=gain), key_shift=key_shift) as house:
            house.engine.desk.key._secret = bytes([seed]) * 32
            w = parameter()
            step(house, x, w, dy)
            sent = [house.spy.sent(*of)[0] for of in ((Op.PRODUCT, "left"), (Op.PRODUCT, "right"))]
            sent.append(house.spy.sent(Op.GRAD_W, "left")[0])
            found.append([float(t.norm() / o.norm()) for t, o in zip(sent, (x, w.detach(), dy), strict=True)])
    return torch.tensor(found).log()


@pytest.mark.security
def test_gain_hides_absolute_sizes():
    """Coefficients average out over an operand: without a gain its norm is off by a factor that hardly
    varies. With one it varies as the sum of two uniform logarithms."""
    assert float(norm_ratios(1.0).std(0).max()) < 0.15
    assert float(norm_ratios(64.0).std(0).min()) > 1.0


@pytest.mark.security
def test_gain_is_one_factor_per_basis():
    sizes_ = {"chunk": 128, "smallest": 64, "rounds": 2, "row_rounds": 2, "block": 64}
    made = [
        scheme_from("mixing", spread=2.0, **sizes_, hardening=Hardening(gain=gain)) for gain in (1.0, 100.0)
    ]
    for draw in (
        lambda s: s.features(key_of(1).stream((1,)), [70, 70]),
        lambda s: s.rows(key_of(1).stream((1,)), [500]),
    ):
        for plain, gained in zip(*(draw(scheme) for scheme in made), strict=True):
            eye = torch.eye(plain.length, dtype=torch.float64)
            a, b = plain.encode(eye, 0), gained.encode(eye, 0)
            factor = float(b.norm() / a.norm())
            assert 0.01 <= factor <= 100
            torch.testing.assert_close(b, factor * a)
            torch.testing.assert_close(gained.dual().encode(eye, 0), plain.dual().encode(eye, 0) / factor)
            torch.testing.assert_close(gained.decode(b, 0), eye)
            assert gained.condition == plain.condition
