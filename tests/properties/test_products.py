"""The algebra of sealing: a product in secret bases, decoded, is the product. And what it must not show."""

import hashlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.errors import KeySpentError
from tempo.ops import grad_w, grad_x, product, spans
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.scheme import scheme_from
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre, open_rows

few = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


def scheme_of(name, block=64, chunk=128):
    return scheme_from(name, spread=2**0.5, chunk=chunk, smallest=1, rounds=2, row_rounds=2, block=block)


@st.composite
def steps(draw):
    """One training step of one layer: scheme, rows of each group, sizes, and whether rows are centred."""
    groups = draw(st.integers(1, 3))
    total = draw(st.sampled_from([1, 3, 63, 64, 65, 130, 300]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    share = torch.tensor([[draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))] for _ in range(groups)])
    mask = torch.rand(groups, total, generator=generator) < share
    mask[0, 0] = True
    sizes = st.sampled_from([1, 2, 5, 64, 65, 100])
    return (
        draw(st.sampled_from(["mixing", "monomial", "unsafe_none"])),
        Selection.where(mask),
        draw(sizes),
        draw(sizes),
        draw(st.booleans()),
        generator,
    )


def randn(*shape, generator):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def near(ours, exact, scale):
    assert ours.shape == exact.shape
    assert float((ours - exact).abs().max()) <= 1e-9 * (float(scale) + 1e-30) if exact.numel() else True


@few
@given(steps(), st.integers(0, 10**6))
def test_a_step_in_secret_bases_is_the_step(step, label):
    """Three encodings, six products' worth of results: the key shift."""
    name, where, k, n, centred, generator = step
    groups, total, counts = len(where.index), where.total, where.counts
    key, scheme = key_of(0), scheme_of(name)
    x, w = randn(groups, total, k, generator=generator) + 3, randn(groups, n, k, generator=generator)
    dy = randn(groups, total, n, generator=generator)
    untouched = [t.clone() for t in (x, w, dy)]
    c = draw_centre(key, (label,), x, where) if centred else x.new_zeros(groups, 1, k)

    weight, rows = (
        FeatureKey(key, scheme, (label,), groups=groups, k=k, n=n),
        RowKey(key, scheme, (label,), counts),
    )
    a = rows.bases()
    w_sealed = weight.seal_w(w)
    x_sealed = rows.seal_x(a, weight.b, x, where, c if centred else None)
    dy_sealed = rows.seal_dy(a, weight.c, dy, where)
    assert w_sealed.shape == w.shape
    assert x_sealed.shape == (sum(counts), k)
    assert all(t.is_contiguous() for t in (w_sealed, x_sealed, dy_sealed))

    # What workers return.
    y_sealed = product(x_sealed, w_sealed, counts)
    dx_sealed = grad_x(dy_sealed, w_sealed, counts)
    dw_sealed = grad_w(dy_sealed, x_sealed, counts)

    y, dx = x.new_full((groups, total, n), 7.0), x.new_full((groups, total, k), 7.0)
    open_rows(y_sealed, a, weight.c, where, y, c @ w.mT if centred else None)
    a_again = rows.bases()  # derived when needed: backward does not find them kept
    open_rows(dx_sealed, [b.dual() for b in a_again], [b.dual() for b in weight.b], where, dx)
    dy_sum = torch.stack([where.take(dy, g).sum(0)[:, None] for g in range(groups)])
    dw = weight.open_dw(dw_sealed) + dy_sum * c

    mask = where.mask()[..., None]
    seven = torch.tensor(7.0, dtype=torch.float64)
    size = x.norm() * w.norm() + 7
    # Rows that were not sent are not touched, by the decoding or by the share of the centre.
    near(y, torch.where(mask, x @ w.mT, seven), size)
    near(dx, torch.where(mask, dy @ w, seven), dy.norm() * w.norm() + 7)
    near(dw, (dy * mask).mT @ x, dy.norm() * x.norm())
    assert all(torch.equal(t, before) for t, before in zip((x, w, dy), untouched, strict=True))


@pytest.mark.parametrize("name", ["mixing", "monomial", "unsafe_none"])
def test_float32_stays_within_its_round_off(name):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 200, 100, generator=g), torch.randn(1, 96, 100, generator=g)
    where, key, scheme = Selection.everything(1, 200), key_of(1), scheme_of(name)
    weight = FeatureKey(key, scheme, (0,), groups=1, k=100, n=96)
    rows = RowKey(key, scheme, (0,), (200,))
    a = rows.bases()
    sealed = product(rows.seal_x(a, weight.b, x, where), weight.seal_w(w), (200,))
    y = x.new_zeros(1, 200, 96)
    open_rows(sealed, a, weight.c, where, y)
    exact = x.double() @ w.double().mT
    plain = float((x @ w.mT - exact).norm())
    assert float((y - exact).norm()) < 30 * plain


def test_partial_gradients_of_shards_add_up():
    g = torch.Generator().manual_seed(1)
    x, w, dy = (
        torch.randn(*s, dtype=torch.float64, generator=g) for s in [(2, 300, 70), (2, 65, 70), (2, 300, 65)]
    )
    key, scheme = key_of(2), scheme_of("mixing")
    weight = FeatureKey(key, scheme, ("w",), groups=2, k=70, n=65)
    shards, _ = Selection.where(torch.rand(2, 300, generator=g) < 0.8).shards([1.0] * 3, 64)
    total, mask = 0, torch.zeros(2, 300, dtype=torch.bool)
    for i, shard in shards.items():
        rows = RowKey(key, scheme, ("r", i), shard.counts)
        a = rows.bases()
        x_sealed = rows.seal_x(a, weight.b, x, shard)
        dy_sealed = rows.seal_dy(a, weight.c, dy, shard)
        total = total + grad_w(dy_sealed, x_sealed, shard.counts)
        mask |= shard.mask()
    assert len(shards) == 3
    exact = (dy * mask[..., None]).mT @ x
    near(weight.open_dw(total), exact, exact.abs().max() * 100)


# ---- single use --------------------------------------------------------------------------------


EVERY = Selection.everything(1, 64)


def sealing(name="mixing", label=(0,)):
    key, scheme = key_of(3), scheme_of(name)
    return FeatureKey(key, scheme, label, groups=1, k=64, n=64), RowKey(key, scheme, label, (64,))


@pytest.mark.security
@pytest.mark.parametrize("name", ["mixing", "monomial", "unsafe_none"])
def test_a_key_hides_one_operand_of_each_kind(name):
    t = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, rows = sealing(name)
    a = rows.bases()
    weight.seal_w(t[None])
    rows.seal_x(a, weight.b, t[None], EVERY)
    rows.seal_dy(a, weight.c, t[None], EVERY)
    for again in (
        lambda: weight.seal_w(t[None]),
        lambda: rows.seal_x(a, weight.b, t[None], EVERY),
        lambda: rows.seal_x(rows.bases(), weight.b, 2 * t[None], EVERY),
        lambda: rows.seal_dy(a, weight.c, t[None], EVERY),
    ):
        with pytest.raises(KeySpentError):
            again()


@pytest.mark.security
def test_a_key_is_spent_even_where_sealing_failed_half_way():
    weight, rows = sealing()
    with pytest.raises((RuntimeError, ValueError)):
        weight.seal_w(torch.zeros(1, 3, 3, dtype=torch.float64))
    with pytest.raises(KeySpentError):
        weight.seal_w(torch.zeros(1, 64, 64, dtype=torch.float64))
    with pytest.raises((RuntimeError, ValueError)):
        rows.seal_x(rows.bases(), weight.b, torch.zeros(1, 3, 3, dtype=torch.float64), EVERY)
    with pytest.raises(KeySpentError):
        rows.seal_x(rows.bases(), weight.b, torch.zeros(1, 64, 64, dtype=torch.float64), EVERY)


def test_keys_are_not_printed():
    weight, rows = sealing()
    for text in (repr(weight), repr(rows), f"{[weight, rows]}"):
        assert "hidden" in text
        assert "tensor" not in text
        assert "0x" not in text


# ---- what must not be seen ---------------------------------------------------------------------


def seal_once(name, label, t):
    weight, rows = sealing(name, label)
    return weight.seal_w(t[None])[0], rows.seal_x(rows.bases(), weight.b, t[None], EVERY)


@pytest.mark.security
@pytest.mark.parametrize("name", ["mixing", "monomial"])
def test_the_same_operand_looks_new_every_time(name):
    """Rows 10 and 11 of SECRECY.md: keys are fresh, so ciphertexts of equal operands share nothing."""
    t = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    seen = [sealed for i in range(6) for sealed in seal_once(name, (i,), t)]
    for i, a in enumerate(seen):
        for b in [*seen[:i], t]:
            assert not set(a.flatten().tolist()) & set(b.flatten().tolist())
            cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
            assert abs(cosine) < 0.1  # 6 deviations of a random pair of 4,096 entries
    assert len({round(float(s.norm()), 9) for s in seen}) == len(seen)


@pytest.mark.security
@pytest.mark.parametrize("name", ["mixing", "monomial"])
def test_a_small_change_of_an_operand_changes_everything(name):
    """The differential form of row 11: W of consecutive steps."""
    g = torch.Generator().manual_seed(5)
    t = torch.randn(64, 64, dtype=torch.float64, generator=g)
    u = t + 1e-6 * torch.randn(64, 64, dtype=torch.float64, generator=g)
    for a, b in zip(seal_once(name, (0,), t), seal_once(name, (1,), u), strict=True):
        assert (a - b).norm() > 0.5 * a.norm()


@pytest.mark.security
@pytest.mark.parametrize("name", ["mixing", "monomial"])
def test_groups_and_axes_have_bases_of_their_own(name):
    t = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    key, scheme = key_of(7), scheme_of(name)
    weight = FeatureKey(key, scheme, (0,), groups=3, k=64, n=64)
    rows = RowKey(key, scheme, (0,), (64, 64, 64))
    eye = torch.eye(64, dtype=torch.float64)
    all_bases = [*weight.b, *weight.c, *rows.bases()]
    dense = [tuple(b.encode(eye, 0).flatten().tolist()) for b in all_bases]
    assert len(set(dense)) == 9
    a, b, c = weight.seal_w(t.expand(3, 64, 64))
    assert not torch.allclose(a, b)
    assert not torch.allclose(b, c)
    assert [spans((64, 64, 64))[1]] == [(64, 128)]


@pytest.mark.security
def test_an_operand_of_zeros_and_one_of_ones_under_mixing_and_centring():
    """Row 21: exact constraints. Ones are hidden by the noise of the centre; no sealed row is zero."""
    key, scheme = key_of(8), scheme_of("mixing")
    x = torch.ones(1, 128, 64, dtype=torch.float64)
    where = Selection.everything(1, 128)
    c = draw_centre(key, (0,), x, where)
    weight, rows = FeatureKey(key, scheme, (0,), groups=1, k=64, n=64), RowKey(key, scheme, (0,), (128,))
    sealed = rows.seal_x(rows.bases(), weight.b, x, where, c)
    assert float(sealed.norm(dim=1).min()) > 1e-6
