"""Flops agree with PyTorch's counter to the flop, and every listed function is met as listed."""

from __future__ import annotations

import itertools
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tempo.nn.flops import (
    LINEAR_FUNCTIONS,
    FlopMeter,
    Flops,
    Kind,
    attention_flops,
    bilinear_flops,
    conv_flops,
    linear_flops,
    matmul_flops,
)


def r(*shape):
    return torch.randn(*shape)


def leaves(out):
    return [
        t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor) and t.requires_grad
    ]


def counted(call):
    """(forward, backward) by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter:
        grads = leaves(call())
        forward = counter.get_total_flops()
        if grads:
            sum(t.sum() for t in grads).backward()
    return forward, counter.get_total_flops() - forward


def check(flops: Flops, function, *operands):
    for needs in itertools.product((False, True), repeat=len(operands)):
        args = [x.detach().clone().requires_grad_(need) for x, need in zip(operands, needs)]
        assert counted(lambda: function(*args)) == (flops.forward, flops.backward(needs)), needs


MATMULS = [
    *[((4, 5), (5, 6)), ((5,), (5, 6)), ((4, 5), (5,)), ((5,), (5,)), ((3, 4, 5), (5,)), ((1, 1), (1, 1))],
    *[((3, 4, 5), (3, 5, 6)), ((3, 4, 5), (5, 6)), ((4, 5), (3, 5, 6))],
    *[((2, 1, 4, 5), (3, 5, 6)), ((2, 3, 4, 5), (1, 3, 5, 6))],
]


@pytest.mark.parametrize(("a", "b"), MATMULS)
def test_matmul(a, b):
    check(matmul_flops(a, b), torch.matmul, r(*a), r(*b))


@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 7, 5), (2, 3, 7, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(shape, bias):
    b = r(6) if bias else None
    check(linear_flops(shape, (6, 5)), lambda x, w: F.linear(x, w, b), r(*shape), r(6, 5))


def test_addmm_counts_its_product():
    check(matmul_flops((4, 5), (5, 6)), lambda a, b: torch.addmm(r(6), a, b), r(4, 5), r(5, 6))
    check(matmul_flops((3, 4, 5), (3, 5, 6)), lambda a, b: torch.baddbmm(r(6), a, b), r(3, 4, 5), r(3, 5, 6))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("batch", [(), (1,), (3,)])
def test_conv(dims, transposed, groups, batch):
    name = f"conv_transpose{dims}d" if transposed else f"conv{dims}d"
    function = getattr(F, name)
    x = r(*batch, 4, *(7, 6, 5)[:dims])
    w = r(*((4, 8 // groups) if transposed else (8, 4 // groups)), *(3, 2, 3)[:dims])
    for options in ({}, {"stride": 2}, {"padding": 2, "dilation": 2}):

        def convolve(x, w):
            return function(x, w, groups=groups, **options)

        check(conv_flops(x.shape, w.shape, convolve(x, w).shape, transposed), convolve, x, w)


@pytest.mark.filterwarnings("ignore:.*even kernel:UserWarning")
def test_conv_same_padding():
    x, w = r(2, 4, 9, 8), r(6, 4, 4, 3)
    out = F.conv2d(x, w, padding="same")
    check(conv_flops(x.shape, w.shape, out.shape), lambda x, w: F.conv2d(x, w, padding="same"), x, w)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_attention_on_the_math_path(lead):
    q, k, v = r(*lead, 6, 8), r(*lead, 7, 8), r(*lead, 7, 4)
    check(attention_flops(q.shape, k.shape, v.shape), F.scaled_dot_product_attention, q, k, v)


@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
def test_attention_with_dropout_is_on_the_math_path(mask):
    given = {"bool": torch.ones(6, 7).bool(), "float": r(6, 7)}.get(mask)
    q, k, v = r(2, 3, 6, 8), r(2, 3, 7, 8), r(2, 3, 7, 8)
    flops = attention_flops(q.shape, k.shape, v.shape)

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, given, dropout_p=0.1, is_causal=mask == "causal")

    check(flops, attend, q, k, v)


@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
def test_fused_attention_is_unseen_by_the_counter_and_known_to_the_meter(mask):
    given = {"bool": torch.ones(6, 7).bool(), "float": r(6, 7)}.get(mask)
    q, k, v = (r(2, 3, n, 8).requires_grad_() for n in (6, 7, 7))
    with FlopMeter() as meter:
        y = F.scaled_dot_product_attention(q, k, v, given, is_causal=mask == "causal")
    assert counted(lambda: F.scaled_dot_product_attention(q, k, v, given, is_causal=mask == "causal")) == (
        0,
        0,
    )
    assert (meter.forward, meter.backward) == (0, 0)
    assert meter.unseen == attention_flops(q.shape, k.shape, v.shape).forward > 0
    assert y.requires_grad


def test_bilinear_is_unseen_by_the_counter_and_known_to_the_meter():
    x1, x2, w = r(7, 3, 4), r(7, 3, 5), r(6, 4, 5)
    with FlopMeter() as meter:
        F.bilinear(x1, x2, w)
    assert counted(lambda: F.bilinear(x1, x2, w.requires_grad_())) == (0, 0)
    assert meter.forward == 0
    assert meter.unseen == bilinear_flops(x1.shape, x2.shape, w.shape).forward == 2 * 21 * 6 * 4 * 5


class Seen(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.functions = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.functions.append(func)
        return func(*args, **(kwargs or {}))


P, T = nn.Parameter, torch.Tensor
a, b, c = r(4, 5), r(5, 6), r(4, 6)
A, B, C = r(3, 4, 5), r(3, 5, 6), r(3, 4, 6)
RAW = ([1], [0], [1], False, [0], 1)  # stride, padding, dilation, transposed, output padding, groups
OLD = (False,) * 4
fused_loss = getattr(F, "linear_cross_entropy", None)


def imatmul(x, y):
    x @= y
    return x


def math_attention(*qkv):
    return torch._scaled_dot_product_attention_math(*qkv)[0]


def mha(x, w, o):
    return F.multi_head_attention_forward(x, x, x, 8, 2, w, r(24), None, None, False, 0.0, o, r(8))[0]


# (what a mode sees, a call of the operands, the operands)
CALLS = [
    (F.linear, F.linear, (a, r(6, 5), r(6))),
    (torch.matmul, torch.matmul, (a, b)),
    (torch.matmul, torch.matmul, (A.mT.contiguous().mT, r(5))),  # strides decide: bmm, not mv
    (torch.linalg.matmul, torch.linalg.matmul, (a, b)),
    (T.matmul, lambda a, b: a.matmul(b), (A, b)),
    (T.matmul, operator.matmul, (a, b)),
    (T.matmul, lambda a, b: a.__matmul__(b), (a, b)),
    (T.matmul, lambda a, b: imatmul(a * 1, b), (a, r(5, 5))),
    (T.__rmatmul__, lambda a, b: b.__rmatmul__(a), (a, b)),
    (torch.mm, torch.mm, (a, b)),
    (T.mm, T.mm, (a, b)),
    (torch.bmm, torch.bmm, (A, B)),
    (T.bmm, T.bmm, (A, B)),
    (torch.addmm, torch.addmm, (c, a, b)),
    (T.addmm, lambda c, a, b: c.addmm(a, b, beta=2, alpha=3), (c, a, b)),
    (T.addmm_, lambda c, a, b: (c * 1).addmm_(a, b), (c, a, b)),
    (torch.baddbmm, torch.baddbmm, (C, A, B)),
    (T.baddbmm, T.baddbmm, (C, A, B)),
    (T.baddbmm_, lambda c, a, b: (c * 1).baddbmm_(a, b), (C, A, B)),
    (torch.addbmm, torch.addbmm, (c, A, B)),
    (T.addbmm, T.addbmm, (c, A, B)),
    (T.addbmm_, lambda c, a, b: (c * 1).addbmm_(a, b), (c, A, B)),
    (torch.inner, torch.inner, (A, r(2, 5))),
    (T.inner, T.inner, (a, r(6, 5))),
    (torch.tensordot, lambda a, b: torch.tensordot(a, b, ([2, 0], [1, 0])), (A, B)),
    (torch.chain_matmul, torch.chain_matmul, (a, b, r(6, 3))),
    (torch.linalg.multi_dot, lambda *m: torch.linalg.multi_dot(m), (a, b, r(6, 3), r(3, 2))),
    (torch.matrix_power, lambda m: torch.matrix_power(m, 5), (r(4, 4),)),
    (T.matrix_power, lambda m: m.matrix_power(3), (r(2, 4, 4),)),
    (torch.linalg.matrix_power, lambda m: torch.linalg.matrix_power(m, 3), (r(4, 4),)),
    (torch.cov, torch.cov, (a,)),
    (T.cov, T.cov, (a,)),
    (torch.corrcoef, torch.corrcoef, (a,)),
    (T.corrcoef, T.corrcoef, (a,)),
    (F.bilinear, F.bilinear, (r(7, 4), r(7, 5), r(6, 4, 5))),
    (torch.einsum, lambda a, b: torch.einsum("ij,jk", a, b), (a, b)),
    (torch.einsum, lambda a, b: torch.einsum("bij,bjk->k", [a, b]), (A, B)),
    (torch.einsum, lambda a, b: torch.einsum(a, [0, 1], b, [1, 2]), (a, b)),
    (torch._VF.einsum, lambda a, b: torch._VF.einsum("ij,jk", (a, b)), (a, b)),
    (F.conv1d, F.conv1d, (r(2, 4, 9), r(6, 4, 3), r(6))),
    (F.conv2d, lambda x, w: F.conv2d(x, w, padding="same"), (r(4, 9, 9), r(6, 4, 4, 4))),
    (F.conv3d, lambda x, w: F.conv3d(x, w, groups=2), (r(2, 4, 5, 5, 5), r(6, 2, 3, 3, 3))),
    (F.conv_transpose1d, F.conv_transpose1d, (r(2, 4, 9), r(4, 6, 3))),
    (F.conv_transpose2d, lambda x, w: F.conv_transpose2d(x, w, groups=2), (r(2, 4, 9, 9), r(4, 6, 3, 3))),
    (F.conv_transpose3d, F.conv_transpose3d, (r(2, 4, 5, 5, 5), r(4, 6, 3, 3, 3))),
    (torch.convolution, lambda x, w: torch.convolution(x, w, None, *RAW), (r(2, 4, 9), r(6, 4, 3))),
    (torch._convolution, lambda *xw: torch._convolution(*xw, None, *RAW, *OLD), (r(2, 4, 9), r(6, 4, 3))),
    (torch.conv_tbc, torch.conv_tbc, (r(9, 2, 4), r(3, 4, 6), r(6))),
    (torch._grouped_mm, lambda a, b: torch._grouped_mm(a, b) * r(2, 16, 16), (r(2, 16, 16), r(2, 16, 16))),
    (F.scaled_dot_product_attention, F.scaled_dot_product_attention, (A, r(3, 2, 5), r(3, 2, 5))),
    (F.scaled_dot_product_attention, F.scaled_dot_product_attention, (r(1, 3, 4, 5),) * 3),
    (
        F.scaled_dot_product_attention,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, dropout_p=0.1),
        (r(2, 4, 5, 8), r(2, 2, 5, 8), r(2, 2, 5, 8)),
    ),
    (torch._scaled_dot_product_attention_math, math_attention, (A, A, A)),
    (F.multi_head_attention_forward, mha, (r(3, 2, 8), r(24, 8), r(8, 8))),
    (torch.lstm, nn.LSTM(4, 5), (r(3, 2, 4),)),
    (torch.lstm, nn.LSTM(4, 5, proj_size=3, num_layers=2), (r(3, 2, 4),)),
    (torch.gru, nn.GRU(4, 5), (r(3, 2, 4),)),
    (torch.rnn_tanh, nn.RNN(4, 5, bidirectional=True), (r(3, 2, 4),)),
    (torch.rnn_relu, nn.RNN(4, 5, nonlinearity="relu"), (r(3, 2, 4),)),
    (torch.lstm_cell, nn.LSTMCell(4, 5), (r(3, 4),)),
    (torch.gru_cell, nn.GRUCell(4, 5), (r(3, 4),)),
    (torch.rnn_tanh_cell, nn.RNNCell(4, 5), (r(3, 4),)),
    (torch.rnn_relu_cell, nn.RNNCell(4, 5, nonlinearity="relu"), (r(3, 4),)),
]
# Met, but not metered: their gradients pass through decompositions, which the meter does not know.
FORWARD_ONLY = [
    (torch.svd_lowrank, lambda m: torch.svd_lowrank(m, 3), (P(r(20, 10)),)),
    (torch.pca_lowrank, lambda m: torch.pca_lowrank(m, 3), (P(r(20, 10)),)),
    (torch.lobpcg, lambda m: torch.lobpcg(m, 2, niter=3), (P(torch.diag(torch.arange(1.0, 21.0))),)),
]
if fused_loss is not None:
    CALLS.append((fused_loss, lambda x, w: fused_loss(x, w, torch.tensor([0, 1, 2, 3])), (a, r(6, 5))))
names = [getattr(function, "__qualname__", str(function)) for function, *_ in CALLS + FORWARD_ONLY]


@pytest.mark.filterwarnings("ignore:.*(chain_matmul|oneDNN|even kernel):UserWarning")
@pytest.mark.parametrize(("function", "call", "operands"), CALLS + FORWARD_ONLY, ids=names)
def test_a_mode_sees_the_listed_function(function, call, operands):
    with Seen() as seen:
        call(*operands)
    met = [f for f in seen.functions if f in LINEAR_FUNCTIONS]
    assert met == [function] * len(met)
    assert met, seen.functions


def test_every_listed_function_is_met():
    assert set(LINEAR_FUNCTIONS) == {function for function, *_ in CALLS + FORWARD_ONLY}
    assert set(LINEAR_FUNCTIONS.values()) == set(Kind)


@pytest.mark.filterwarnings("ignore:.*(chain_matmul|oneDNN|even kernel):UserWarning")
@pytest.mark.parametrize(("function", "call", "operands"), CALLS, ids=names[: len(CALLS)])
def test_meter_agrees_with_the_counter(function, call, operands):
    for needs in itertools.product((False, True), repeat=len(operands)):
        args = [x.detach().clone().requires_grad_(need) for x, need in zip(operands, needs)]
        meter = FlopMeter()

        def metered():
            with meter:
                return call(*args)

        want = counted(metered)
        assert (meter.forward, meter.backward) == want, needs


def test_meter_under_no_grad_and_inference_mode():
    for context in (torch.no_grad, torch.inference_mode):
        with context(), FlopCounterMode(display=False) as counter, FlopMeter() as meter:
            F.linear(A, P(r(6, 5)), P(r(6)))
            torch.einsum("bij,bjk->bik", A, B)
            F.conv2d(r(2, 4, 9, 9), P(r(6, 4, 3, 3)))
        assert meter.forward == counter.get_total_flops() > 0
        assert meter.backward == 0


def test_a_wrong_formula_would_show():
    flops = Flops(240, ((240, (0,)), (241, (1,))))
    with pytest.raises(AssertionError):
        check(flops, torch.matmul, a, b)
