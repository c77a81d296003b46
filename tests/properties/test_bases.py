"""What every secret basis promises, on any length, axis, rank, layout and dtype."""

import copy
import hashlib
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempo.errors import UsageError
from tempo.kernels import Axis, Monomial, Transform, mix, transform
from tempo.secrecy.basis import Basis, chunks, direct_sum, identity
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.mixing import mixing_bases
from tempo.secrecy.monomial import monomial_bases
from tempo.secrecy.scheme import SCHEMES, MixingScheme, MonomialScheme, UnsafeNone, scheme_from

few = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

KINDS = ("identity", "monomial", "mixing", "sum of monomials", "sum of mixings")


def key_of(seed):
    key = SessionKey()
    key._secret = hashlib.sha256(repr(seed).encode()).digest()
    return key


def draw_basis(kind, length, label, *, spread, rounds, block):
    stream = key_of(0).stream(label)
    parts = chunks(length, 2 * block)
    match kind:
        case "identity":
            return identity(length)
        case "monomial":
            return monomial_bases(stream, [length], spread=spread)[0]
        case "mixing":
            return mixing_bases(stream, [length], spread=spread, rounds=rounds, block=block)[0]
        case "sum of monomials":
            return direct_sum(monomial_bases(stream, parts, spread=spread))
        case _:
            return direct_sum(mixing_bases(stream, parts, spread=spread, rounds=rounds, block=block))


@st.composite
def bases(draw, smallest=0):
    block = draw(st.sampled_from([2, 4, 8, 16, 64]))
    length = draw(
        st.one_of(
            st.integers(smallest, 40),
            st.sampled_from([max(smallest, n) for n in (1, block - 1, block, block + 1, 2 * block - 1)]),
            st.integers(100, 200),
        )
    )
    return draw_basis(
        draw(st.sampled_from(KINDS)),
        length,
        ("basis", draw(st.integers(0, 1000))),
        spread=draw(st.sampled_from([1.05, 2**0.5, 2.0])),
        rounds=draw(st.integers(1, 3)),
        block=block,
    )


@st.composite
def operands(draw, length):
    """(tensor, axis): any rank, place of the axis, layout and dtype."""
    rank = draw(st.integers(1, 4))
    axis = draw(st.integers(0, rank - 1))
    shape = [draw(st.integers(0 if rank > 2 else 1, 4)) for _ in range(rank)]
    shape[axis] = length
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    layout = draw(st.sampled_from(["contiguous", "reversed", "sliced", "expanded", "column major"]))
    match layout:
        case "contiguous":
            t = torch.randn(shape, dtype=dtype, generator=generator)
        case "reversed":
            t = torch.randn(shape[::-1], dtype=dtype, generator=generator).permute(*range(rank)[::-1])
        case "sliced":
            wide = torch.randn([2 * n + 1 for n in shape], dtype=dtype, generator=generator)
            t = wide[tuple(slice(1, 2 * n + 1, 2) for n in shape)]
        case "expanded":
            other = (axis + 1) % rank
            narrow = [1 if i == other and rank > 1 else n for i, n in enumerate(shape)]
            t = torch.randn(narrow, dtype=dtype, generator=generator).expand(shape)
        case _:
            t = torch.randn(shape, dtype=dtype, generator=generator).mT if rank > 1 else torch.randn(shape)
            t = t.contiguous().mT if rank > 1 else t
    return t, draw(st.sampled_from([axis, axis - rank]))


@st.composite
def basis_and_operand(draw):
    basis = draw(bases())
    return (basis, *draw(operands(basis.length)))


def dense(basis: Basis):
    return basis.encode(torch.eye(basis.length, dtype=torch.float64), 0)


def near(ours, exact, basis, axis, scale=None):
    """Relative to the norm of the fibre along the axis: that is what a mixed entry's error is relative to."""
    assert ours.shape == exact.shape
    unit = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}[ours.dtype]
    fibre = torch.linalg.vector_norm(exact if scale is None else scale, dim=axis, keepdim=True)
    allowed = 64 * unit * basis.condition * fibre + 1e-300
    assert bool(((ours - exact).abs() <= allowed).all()), float(((ours - exact).abs() / allowed).max())


@few
@given(basis_and_operand())
def test_decode_undoes_encode(case):
    basis, t, axis = case
    near(basis.decode(basis.encode(t, axis), axis), t, basis, axis)
    near(basis.encode(basis.decode(t, axis), axis), t, basis, axis)


@few
@given(basis_and_operand())
def test_encode_is_its_dense_matrix_on_that_axis(case):
    basis, t, axis = case
    e = dense(basis).to(t.dtype)
    exact = torch.tensordot(e, t, dims=([1], [axis])).movedim(0, axis)
    near(basis.encode(t, axis), exact, basis, axis, scale=t * basis.condition)


@few
@given(bases())
def test_the_dual_is_the_inverse_transpose(basis):
    e, d = dense(basis), dense(basis.dual())
    eye = torch.eye(basis.length, dtype=torch.float64)
    torch.testing.assert_close(e.mT @ d, eye, rtol=0, atol=1e-12 * basis.condition)
    torch.testing.assert_close(dense(basis.dual().dual()), e, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        basis.dual().decode(eye, 0), e.mT.contiguous(), rtol=0, atol=1e-12 * basis.condition
    )


@few
@given(st.data())
def test_a_basis_and_its_dual_keep_inner_products(data):
    basis = data.draw(bases())
    (x, axis), generator = data.draw(operands(basis.length)), torch.Generator().manual_seed(1)
    y = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    ours = (basis.encode(x, axis) * basis.dual().encode(y, axis)).sum(axis)
    size = torch.linalg.vector_norm(x, dim=axis) * torch.linalg.vector_norm(y, dim=axis)
    unit = 2.0**-24 if x.dtype == torch.float32 else 2.0**-53
    assert bool(((ours - (x * y).sum(axis)).abs() <= 64 * unit * basis.condition * size + 1e-300).all())


@few
@given(basis_and_operand())
def test_encode_is_linear(case):
    basis, t, axis = case
    u = torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(2))
    ours, both = basis.encode(2 * t - 3 * u, axis), 2 * basis.encode(t, axis) - 3 * basis.encode(u, axis)
    near(ours, both, basis, axis, scale=(t.abs() + u.abs()) * 3 * basis.condition)


@few
@given(bases(smallest=1))
def test_the_condition_is_an_upper_bound(basis):
    assert torch.linalg.cond(dense(basis)) <= basis.condition * (1 + 1e-9)
    assert torch.linalg.cond(dense(basis.dual())) <= basis.dual().condition * (1 + 1e-9)


@few
@given(basis_and_operand())
def test_operands_are_neither_written_to_nor_returned(case):
    basis, t, axis = case
    before = t.clone()
    for pass_ in (basis.encode, basis.decode, basis.dual().encode, basis.dual().decode):
        out = pass_(t, axis)
        assert out.shape == t.shape
        assert out.dtype == t.dtype
        assert out.is_contiguous()
        if out.numel():
            assert out.untyped_storage().data_ptr() != t.untyped_storage().data_ptr(), "an alias"
        again = out.clone()
        out.fill_(float("nan"))
        assert torch.equal(t, before), "the operand changed"
        assert torch.equal(pass_(t, axis), again), "the basis depends on what it returned before"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_equal_labels_give_equal_bases_and_others_differ(kind):
    def make(label):
        return dense(draw_basis(kind, 150, label, spread=2.0, rounds=2, block=64))

    a = make(("rows", 1))
    assert torch.equal(a, make(("rows", 1)))
    for label in (("rows", 2), ("features", 1), ("rows", "1")):
        b = make(label)
        assert not torch.equal(a, b)
        # Unrelated, not merely different: no entry of one is found at its place in the other.
        both = (a != 0) & (b != 0)
        assert int((a[both] == b[both]).sum()) <= 0.01 * int(both.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_bases_are_not_pickled_copied_or_printed(kind):
    basis = draw_basis(kind, 150, ("secret",), spread=2.0, rounds=2, block=64)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(basis, protocol)
    for dup in (copy.copy, copy.deepcopy, lambda b: copy.deepcopy({"bases": [b]})):
        with pytest.raises(TypeError):
            dup(basis)
    for text in (repr(basis), str(basis), f"{[basis]}", repr(basis.dual())):
        assert "hidden" in text
        assert "tensor" not in text
        assert "." not in text
        assert "0x" not in text


# ---- monomial ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.05, 2**0.5, 4.0])
def test_a_monomial_has_one_entry_in_each_row_and_column(spread):
    e = dense(draw_basis("monomial", 200, ("m", str(spread)), spread=spread, rounds=1, block=2))
    assert bool(((e != 0).sum(0) == 1).all())
    assert bool(((e != 0).sum(1) == 1).all())
    entries = e[e != 0]
    assert bool((entries.abs() <= spread * (1 + 1e-12)).all())
    assert bool((entries.abs() >= (1 - 1e-12) / spread).all())
    assert 0.3 < (entries > 0).double().mean() < 0.7
    assert len(set(entries.abs().tolist())) == 200


# ---- mixing: what the secret has to cover ------------------------------------------------------


def mixing(length, label=("mix",), rounds=2):
    return mixing_bases(key_of(3).stream(label), [length], spread=2**0.5, rounds=rounds, block=64)[0]


def monomials_of(basis):
    """Every secret monomial of a basis, in the order in which they are applied."""
    return [m for a in basis.stretches for m in (a.enter, *a.middle, a.leave) if m is not None]


def entering(m):
    return Basis([Axis(m.index.numel(), enter=m)], 1.0)


def leaving(m):
    return Basis([Axis(m.index.numel(), leave=m)], 1.0)


def with_monomials(basis, monomials):
    (a,) = basis.stretches
    enter, *middle, leave = monomials
    changed = Axis(a.length, enter=enter, middle=middle, leave=leave, rounds=a.rounds, block=a.block)
    return Basis([changed], basis.condition)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("length", [64, 128, 150, 192])
def test_both_ends_of_a_mixing_are_secret_monomials(length, rounds):
    basis = mixing(length, rounds=rounds)
    (axis,) = basis.stretches
    ends = monomials_of(basis)
    assert len(ends) == rounds + 1
    assert axis.enter is ends[0]
    assert axis.leave is ends[-1]
    assert all(sorted(m.index.tolist()) == list(range(length)) for m in ends)
    assert all(m.scale.shape == (length,) for m in ends)
    # No two of them alike.
    assert len({tuple(dense(entering(m)).flatten().tolist()) for m in ends}) == rounds + 1
    # Every entry of the result depends on its own outermost coefficient, and nothing public remains:
    # undoing the public butterflies of the encoded operand gives none of the operands in between.
    e = dense(basis)
    between = dense(entering(ends[0]))
    for monomial in ends[1:-1]:
        between = entering(monomial).encode(mix(between, 0, 64), 0)
    between = leaving(ends[-1]).encode(mix(between, 0, 64), 0)
    torch.testing.assert_close(between, e, rtol=0, atol=1e-12)
    inner = leaving(ends[-1]).decode(e, 0)
    assert not bool(torch.isclose(inner.norm(dim=1), e.norm(dim=1), rtol=1e-6).all())
    assert bool((inner != e).any(1).all())


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_coefficient_of_each_monomial_reaches_the_result(which):
    basis = mixing(192)
    e = dense(basis)
    for entry in (0, 63, 64, 191):
        monomials = monomials_of(basis)
        old = monomials[which]
        scale = old.scale.clone()
        scale[entry] *= 1.1
        monomials[which] = Monomial(old.index, scale)
        changed = (dense(with_monomials(basis, monomials)) - e).abs() > 1e-9
        if which == 2:
            assert changed.any(1).nonzero().flatten().tolist() == [int(old.index[entry])]
        elif which == 0:
            assert int(changed.any(0).sum()) == 1
            assert int(changed.sum()) >= 64
        else:
            assert int(changed.sum()) > 64 * 32


def test_row_norms_of_a_mixing_are_not_public():
    # An outermost Hadamard on equal scales would give rows of equal norm.
    norms = dense(mixing(192)).norm(dim=1)
    assert norms.max() / norms.min() > 1.5


def largest_share(length, draws=4):
    """Of the energy of one encoded entry, the most that comes from one plain entry."""
    worst = 0.0
    for i in range(draws):
        energy = dense(mixing(length, ("share", i))).square()
        worst = max(worst, float((energy / energy.sum(1, keepdim=True)).amax()))
    return worst


@pytest.mark.security
@pytest.mark.parametrize("length", [64, 128, 192, 768])
def test_whole_blocks_hide_every_entry_among_many(length):
    assert largest_share(length) < 0.5


@pytest.mark.parametrize("length", [65, 66, 72, 129, 200])
def test_ragged_lengths_hide_every_entry_among_many(length):
    assert largest_share(length) < 0.5


@pytest.mark.parametrize("length", [1, 2, 3, 63])
def test_blocks_shrink_to_short_axes(length):
    basis = mixing(length)
    block = basis.stretches[0].block
    assert block <= length < 2 * block
    e = dense(basis)
    assert int((e != 0).sum(1).min()) >= min(length, block) // 2


# ---- chunks, sums, tiles, schemes --------------------------------------------------------------


@pytest.mark.security
@pytest.mark.parametrize("lengths", [[64] * 4, [64, 65, 64, 100], [0, 64, 0, 64], [1, 1, 1]])
@pytest.mark.parametrize("name", ["mixing", "monomial"])
def test_bases_drawn_together_are_independent(name, lengths):
    """Keys are drawn in bulk: no two axes may share a permutation or a coefficient."""
    scheme = scheme_from(name, spread=2.0, chunk=128, smallest=64, rounds=2, row_rounds=1, block=64)
    for draw, count in ((scheme.features, 3), (scheme.rows, 2)):
        drawn = draw(key_of(10).stream(("bulk",)), lengths)
        assert [b.length for b in drawn] == lengths
        monomials = [m for b in drawn for m in monomials_of(b)]
        scales = [v for m in monomials for v in m.scale.tolist()]
        assert len(scales) == len(set(scales)) == sum(lengths) * (count if name == "mixing" else 1)
        orders = [tuple(m.index.tolist()) for m in monomials if m.index.numel() >= 64]
        assert len(set(orders)) == len(orders)
        for m in monomials:
            assert m.index.dtype == torch.int32
            assert sorted(m.index.tolist()) == list(range(m.index.numel()))


@few
@given(st.integers(0, 3000), st.integers(1, 700))
def test_chunks_cut_an_axis_and_merge_the_last(length, size):
    parts = chunks(length, size)
    assert sum(parts) == length
    assert all(part == size for part in parts[:-1])
    assert len(parts) == 1 or size <= parts[-1] < 2 * size
    assert len(parts) > 1 or length < 2 * size


def test_a_direct_sum_is_block_diagonal_with_independent_blocks():
    parts = [mixing(64, ("a",)), identity(3), mixing(70, ("b",)), identity(0)]
    e = dense(direct_sum(parts))
    torch.testing.assert_close(e, torch.block_diag(*[dense(p) for p in parts[:3]]), rtol=0, atol=1e-12)
    assert direct_sum(parts).condition == max(p.condition for p in parts)


def test_a_scheme_draws_every_chunk_anew():
    scheme = MixingScheme(spread=2.0, chunk=128, smallest=64, rounds=2, row_rounds=2, block=64)
    e = dense(scheme.rows(key_of(4).stream(("r",)), [384])[0])
    blocks = [e[lo : lo + 128, lo : lo + 128] for lo in (0, 128, 256)]
    assert e.square().sum() == pytest.approx(sum(float(b.square().sum()) for b in blocks))
    assert not any(torch.allclose(a, b) for a, b in [(blocks[0], blocks[1]), (blocks[1], blocks[2])])


@pytest.mark.parametrize(("rounds", "row_rounds"), [(1, 3), (2, 1), (3, 2)])
def test_rows_and_features_have_rounds_of_their_own(rounds, row_rounds):
    scheme = scheme_from(
        "mixing", spread=1.5, chunk=128, smallest=64, rounds=rounds, row_rounds=row_rounds, block=64
    )
    (rows,) = scheme.rows(key_of(11).stream(("r",)), [300])
    (features,) = scheme.features(key_of(11).stream(("f",)), [300])
    assert [a.rounds for a in rows.stretches] == [row_rounds] * 2
    assert [a.rounds for a in features.stretches] == [rounds]
    assert rows.condition == pytest.approx(1.5 ** (2 * (row_rounds + 1)))
    assert features.condition == pytest.approx(1.5 ** (2 * (rounds + 1)))


def through(t, rows, features):
    """rows t features^T, by the pass that serves here."""
    out = torch.empty_like(t)
    transform([Transform(t, out, rows, *features)])
    return out


@few
@given(st.integers(0, 80), st.integers(1, 80))
def test_a_matrix_is_encoded_on_both_axes_and_decoded(rows, columns):
    a = draw_basis("mixing", rows, ("a",), spread=2.0, rounds=2, block=64)
    b = draw_basis("monomial", columns, ("b",), spread=2.0, rounds=2, block=64)
    t = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    sealed = through(t, a.stretches, b.stretches)
    torch.testing.assert_close(sealed, dense(a) @ t @ dense(b).mT, rtol=0, atol=1e-11)
    torch.testing.assert_close(through(sealed, a.inverse, b.inverse), t, rtol=0, atol=1e-11)


def test_schemes_by_name():
    options = dict(spread=2.0, chunk=128, smallest=64, rounds=2, row_rounds=2, block=64)
    kinds = {name: type(scheme_from(name, **options)) for name in SCHEMES}
    assert kinds == {"mixing": MixingScheme, "monomial": MonomialScheme, "unsafe_none": UnsafeNone}
    assert all(scheme_from(name, **options).smallest == 64 for name in SCHEMES)
    assert scheme_from("mixing", **options).blurs_rows
    for name in ("none", "", "Mixing", "shares", "MIXING "):
        with pytest.raises(UsageError):
            scheme_from(name, **options)


def test_only_the_scheme_named_unsafe_shows_anything():
    t = torch.randn(128, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    options = dict(spread=2**0.5, chunk=8192, smallest=64, rounds=2, row_rounds=2, block=64)
    for name in SCHEMES:
        scheme, stream = scheme_from(name, **options), key_of(7).stream(("s",))
        a, b = scheme.rows(stream, [128])[0], scheme.features(stream, [128])[0]
        sealed = through(t, a.stretches, b.stretches)
        assert torch.equal(sealed, t) == (name == "unsafe_none")
        if name != "unsafe_none":
            assert not set(sealed.flatten().tolist()) & set(t.flatten().tolist())


@pytest.mark.parametrize("name", SCHEMES)
def test_bases_of_a_scheme_use_no_generator_of_the_framework(name):
    scheme = scheme_from(name, spread=2.0, chunk=128, smallest=64, rounds=2, row_rounds=2, block=64)
    state = torch.get_rng_state()
    a = dense(scheme.rows(key_of(8).stream(("r",)), [200])[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, dense(scheme.rows(key_of(8).stream(("r",)), [200])[0]))
