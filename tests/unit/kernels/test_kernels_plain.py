"""The passes that bases are made of, against dense matrices written from their definition."""

import pytest
import torch

from tempo.kernels import Axis, Monomial, mix
from tempo.kernels import along as encode
from tempo.kernels.plain import hadamard

BLOCKS = (1, 2, 4, 16, 64)


def sylvester(order):
    """H[i, j] = (-1)^popcount(i & j) / sqrt(order)."""
    signs = [[(-1.0) ** (i & j).bit_count() for j in range(order)] for i in range(order)]
    return torch.tensor(signs, dtype=torch.float64) / order**0.5


def dense_mix(length, block):
    """Consecutive blocks first; where some entries are left over, the last block once more."""
    main = torch.eye(length, dtype=torch.float64)
    for lo in range(0, length - block + 1, block):
        main[lo : lo + block, lo : lo + block] = sylvester(block)
    if length % block == 0:
        return main
    tail = torch.eye(length, dtype=torch.float64)
    # H D with the signs of the bent function x0 x1 + x2 x3 + ... over the bits of the column.
    bits = [[(j >> i) & 1 for i in range(block.bit_length() - 1)] for j in range(block)]
    signs = [(-1.0) ** sum(a * b for a, b in zip(x[::2], x[1::2])) for x in bits]
    tail[length - block :, length - block :] = sylvester(block) * torch.tensor(signs, dtype=torch.float64)
    return tail @ main


def along(matrix, t, axis):
    return torch.tensordot(matrix, t, dims=([1], [axis])).movedim(0, axis)


def tensors(length, axis, dtype=torch.float64):
    """The same kind of operand in every layout that a caller may have."""
    shape = [3, 5, 2]
    shape[axis] = length
    g = torch.Generator().manual_seed(length)
    t = torch.randn(shape, dtype=dtype, generator=g)
    yield "contiguous", t
    yield "transposed", t.transpose(0, 2).contiguous().transpose(0, 2)
    wide = torch.randn([2 * size + 1 for size in shape], dtype=dtype, generator=g)
    yield "sliced", wide[1::2, 1::2, 1::2]
    other = (axis + 1) % 3
    yield "expanded", t.narrow(other, 0, 1).expand(shape)
    one = torch.randn(1, dtype=dtype, generator=g)
    yield "expanded along the axis", one.expand(shape)


def lengths(block):
    return sorted({0, block, block + 1, 2 * block - 1, 2 * block, 3 * block + block // 2, 5 * block + 3})


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("block", BLOCKS)
def test_mix_is_its_dense_matrix_in_every_layout(block, axis):
    for length in lengths(block):
        matrix = dense_mix(length, block)
        for layout, t in tensors(length, axis % 3):
            before = t.clone()
            out, back = mix(t, axis, block), mix(t, axis, block, inverse=True)
            torch.testing.assert_close(out, along(matrix, t, axis % 3), rtol=0, atol=1e-12, msg=layout)
            torch.testing.assert_close(back, along(matrix.mT, t, axis % 3), rtol=0, atol=1e-12, msg=layout)
            assert out.is_contiguous()
            assert back.is_contiguous()
            assert torch.equal(t, before), f"{layout}: mix wrote to its input"


@pytest.mark.parametrize("block", BLOCKS)
def test_mix_is_orthonormal_and_undone_by_its_inverse(block):
    for length in lengths(block):
        eye = torch.eye(length, dtype=torch.float64)
        e = mix(eye, 0, block)
        torch.testing.assert_close(e @ e.mT, eye, rtol=0, atol=1e-12)
        torch.testing.assert_close(mix(e, 0, block, inverse=True), eye, rtol=0, atol=1e-12)
        torch.testing.assert_close(mix(mix(eye, 0, block, inverse=True), 0, block), eye, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b > 1])
def test_every_entry_of_whole_blocks_is_spread_evenly(block):
    e = mix(torch.eye(3 * block, dtype=torch.float64), 0, block)
    torch.testing.assert_close(e.abs().amax(1), torch.full((3 * block,), block**-0.5).double())
    assert bool(((e.abs() > 1e-9).sum(1) == block).all())


def test_mix_refuses_an_axis_shorter_than_a_block():
    # Regression: a block of 8 on 3 entries ran across the outer axis and said nothing.
    with pytest.raises(ValueError, match="fewer than a block"):
        mix(torch.randn(8, 3), 1, 8)
    for block in BLOCKS[1:]:
        for length in {1, block - 1} - {block}:
            with pytest.raises(ValueError, match="fewer than a block"):
                mix(torch.randn(block, length, block), 1, block)


def test_mix_in_float32_agrees_with_float64():
    for length in (64, 65, 200):
        t = torch.randn(7, length, generator=torch.Generator().manual_seed(0))
        exact = mix(t.double(), 1, 64)
        assert (mix(t, 1, 64).double() - exact).abs().max() < 64 * 2**-24 * t.abs().max()
        assert mix(t, 1, 64).dtype == torch.float32


@pytest.mark.parametrize("order", [0, -1, -2, 3, 6, 12, 63, 65, 96])
def test_hadamard_refuses_all_but_powers_of_two(order):
    with pytest.raises(ValueError, match="power of two"):
        hadamard(order, torch.float32)


def test_mix_refuses_a_block_that_is_no_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        mix(torch.randn(6, 12), 1, 6)


@pytest.mark.parametrize("order", [1, 2, 8, 64, 128])
def test_hadamard_is_sylvesters(order):
    torch.testing.assert_close(hadamard(order, torch.float64), sylvester(order), rtol=0, atol=1e-15)


def test_the_cached_hadamard_is_not_spoilt_by_its_users():
    before = hadamard(64, torch.float32).clone()
    t = torch.randn(3, 130)
    mix(t, 1, 64).mul_(0)
    mix(t, 1, 64, inverse=True).zero_()
    assert torch.equal(hadamard(64, torch.float32), before)


def monomial(length, seed):
    g = torch.Generator().manual_seed(seed)
    index = torch.randperm(length, generator=g).int()
    return Monomial(index, torch.randn(length, dtype=torch.float64, generator=g) + 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("length", [0, 1, 2, 63, 64, 65])
def test_a_monomial_gathers_where_it_enters_and_scatters_where_it_leaves(length, axis, dtype):
    m = monomial(length, 1)
    entering = torch.zeros(length, length, dtype=dtype)
    leaving = torch.zeros(length, length, dtype=dtype)
    for i, (p, s) in enumerate(zip(m.index.tolist(), m.scale.tolist(), strict=True)):
        entering[i, p] = s
        leaving[p, i] = s
    for layout, t in tensors(length, axis % 3, dtype):
        before = t.clone()
        for a, matrix in ((Axis(length, enter=m), entering), (Axis(length, leave=m), leaving)):
            out = encode(t, axis, [a])
            assert out.dtype == dtype
            torch.testing.assert_close(out, along(matrix, t, axis % 3), rtol=0, atol=0, msg=layout)
            assert out.is_contiguous()
            assert torch.equal(t, before)
            if out.numel():
                assert out.untyped_storage().data_ptr() != t.untyped_storage().data_ptr(), (
                    f"{layout}: an alias"
                )


def test_an_axis_that_does_nothing_still_copies():
    for layout, t in tensors(5, 1):
        for stretches in ([Axis(5)], [Axis(2), Axis(3)], [Axis(0), Axis(5)]):
            out = encode(t, 1, stretches)
            assert torch.equal(out, t)
            assert out.is_contiguous()
            assert out.untyped_storage().data_ptr() != t.untyped_storage().data_ptr(), f"{layout}: an alias"


def test_stretches_must_be_as_long_as_the_axis():
    for stretches in ([Axis(4)], [Axis(2), Axis(4)], []):
        with pytest.raises(ValueError, match="entries, the basis"):
            encode(torch.zeros(5, 3), 0, stretches)
