"""Every layer and function inside a protected module against plain PyTorch: results, gradients, traps.

float64 agrees to 1e-9 relative. float32 may err GROWTH times (tempo/numerics.py) as much as plain
float32 does, both against float64, or GROWTH round-offs where the plain error happens to be less.
"""

from __future__ import annotations

import copy
import gc
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from transformers.pytorch_utils import Conv1D

from tempo import Session
from tempo.errors import UnsupportedError
from tempo.fleet import DeviceWorker
from tempo.numerics import GROWTH

SCHEMES = ("monomial", "mixing")
KEYS = list(itertools.product(SCHEMES, (True, False)))
CLOSE = 1e-9


def r(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


class Fn(nn.Module):
    """f(parameters, *inputs) as a module: linear algebra on bare parameters in user code."""

    def __init__(self, f, *shapes):
        super().__init__()
        self.f = f
        self.ps = nn.ParameterList([nn.Parameter(r(*shape)) for shape in shapes])

    def forward(self, *args):
        return self.f(list(self.ps), *args)


def outputs(out):
    return [t for t in (out if isinstance(out, tuple) else (out,)) if t is not None]


def evaluate(model, inputs, mask=None):
    """Outputs and gradients of inputs and parameters, in one list. mask: zero rows of dY."""
    model.zero_grad()
    inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    outs = outputs(model(*inputs))
    loss = 0
    for out in outs:
        dy = torch.arange(out.numel(), dtype=torch.float64).cos().reshape(out.shape).to(out.dtype)
        loss = loss + (out * (dy if mask is None else dy * mask)).sum()
    loss.backward()
    leaves = [*inputs, *model.parameters()]
    return [t.detach() for t in outs] + [
        p.grad if p.grad is not None else torch.zeros_like(p) for p in leaves
    ]


def errors(got, want):
    """Relative 2-norms. The floor is for gradients that are zero but for rounding (a key's bias)."""
    assert [t.shape for t in got] == [t.shape for t in want]
    floor = 1e-6 * max(float(t.norm()) for t in want)
    return [
        float((a.double() - b.double()).norm()) / max(float(b.norm()), floor, 1e-300)
        for a, b in zip(got, want)
    ]


def oracle(model, inputs, *, mask=None, unsafe_offload=(), **options):
    """Protected against plain. Returns the rows of the report."""
    plain = copy.deepcopy(model)
    want = evaluate(plain, inputs, mask)
    with Session("cpu", **options) as session:
        got = evaluate(session.protect(model, unsafe_offload=unsafe_offload), inputs, mask)
        report = session.report()
    assert max(errors(got, want)) < CLOSE, errors(got, want)
    assert (report.checks_failed, report.quarantined) == (0, [])
    assert all(row.reason for row in report.rows if not row.offloaded)
    return report.rows


# ---- layers ---------------------------------------------------------------------------------------

#: name: (layer, input, how the report calls it; None where it stays)
LAYERS = {
    "linear 2-D": (lambda: nn.Linear(64, 96), (128, 64), "linear"),
    "linear ragged": (lambda: nn.Linear(100, 130), (77, 100), "linear"),
    "linear 3-D, no bias": (lambda: nn.Linear(64, 64, bias=False), (4, 32, 64), "linear"),
    "linear 4-D": (lambda: nn.Linear(64, 64), (2, 4, 16, 64), "linear"),
    "HF Conv1D": (lambda: Conv1D(96, 64), (4, 32, 64), "linear, weight transposed"),
    "conv 1x1": (lambda: nn.Conv2d(64, 96, 1), (4, 64, 6, 6), "conv 1x1"),
    "conv 1x1 strided": (lambda: nn.Conv2d(64, 64, 1, stride=2, bias=False), (4, 64, 9, 10), "conv 1x1"),
    "conv 1x1 padded": (lambda: nn.Conv2d(64, 64, 1, padding=1, stride=2), (4, 64, 9, 9), "im2col"),
    "conv 3x3 F(2,3)": (lambda: nn.Conv2d(64, 64, 3, padding=1), (8, 64, 6, 6), "winograd F(2,3)"),
    "conv 3x3 F(4,3)": (lambda: nn.Conv2d(64, 96, 3, padding=1), (4, 64, 16, 15), "winograd F(4,3)"),
    "conv 3x3 valid": (lambda: nn.Conv2d(64, 64, 3, bias=False), (5, 64, 17, 17), "winograd F(4,3)"),
    "conv 3x3 strided": (lambda: nn.Conv2d(64, 64, 3, stride=2, padding=1), (4, 64, 9, 9), "im2col"),
    "conv 3x3 dilated": (lambda: nn.Conv2d(64, 64, 3, dilation=2, padding=2), (2, 64, 8, 8), "im2col"),
    "conv 3x3 circular": (
        lambda: nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
        (8, 64, 6, 6),
        "winograd F(2,3)",
    ),
    "conv 3x3 unbatched": (lambda: nn.Conv2d(64, 64, 3), (64, 34, 34), "winograd F(4,3)"),
    "conv 5x5": (lambda: nn.Conv2d(64, 64, 5, padding="same"), (2, 64, 8, 8), "im2col"),
    "conv 7x7": (lambda: nn.Conv2d(64, 64, 7, stride=2, padding=3), (2, 64, 13, 13), "im2col"),
    "conv 1x5": (lambda: nn.Conv2d(64, 64, (1, 5), padding=(0, 2)), (2, 64, 8, 8), "im2col"),
    "conv grouped": (lambda: nn.Conv2d(128, 128, 3, padding=1, groups=2), (2, 128, 8, 8), "im2col"),
    "conv grouped 1x1": (lambda: nn.Conv2d(128, 128, 1, groups=2), (2, 128, 8, 8), "im2col"),
    "Conv1d": (lambda: nn.Conv1d(64, 64, 3, padding=1), (4, 64, 33), "winograd F(4,3)"),
    "Conv1d k5": (lambda: nn.Conv1d(64, 64, 5, stride=2), (4, 64, 65), "im2col"),
    "Conv1d k1": (lambda: nn.Conv1d(64, 64, 1), (4, 64, 33), "conv 1x1"),
    "Conv1d unbatched": (lambda: nn.Conv1d(64, 64, 5), (64, 80), "im2col"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(64, 64)), (64, 64), "linear"),
    "depthwise": (lambda: nn.Conv2d(64, 64, 3, groups=64), (4, 64, 9, 9), None),
    "raw channels": (lambda: nn.Conv2d(3, 64, 5), (4, 3, 9, 9), None),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(64, 64, 2, stride=2), (4, 64, 5, 5), "conv transposed"),
    "ConvTranspose2d overlapping": (
        lambda: nn.ConvTranspose2d(64, 64, (3, 5), (2, 3), (1, 2), (1, 2), bias=False, dilation=(2, 1)),
        (4, 64, 5, 6),
        "conv transposed",
    ),
    "ConvTranspose2d grouped": (
        lambda: nn.ConvTranspose2d(128, 128, 3, groups=2),
        (4, 128, 5, 5),
        "conv transposed",
    ),
    "ConvTranspose2d unbatched": (lambda: nn.ConvTranspose2d(64, 64, 4, 2, 1), (64, 9, 9), "conv transposed"),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(64, 64, 16, 8, 4), (4, 64, 33), "conv transposed"),
    "ConvTranspose1d unbatched": (lambda: nn.ConvTranspose1d(64, 64, 3), (64, 80), "conv transposed"),
    "ConvTranspose2d depthwise": (lambda: nn.ConvTranspose2d(64, 64, 3, groups=64), (4, 64, 5, 5), None),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(64, 64, 2), (2, 64, 4, 4, 4), None),
    "Conv3d": (lambda: nn.Conv3d(64, 64, 3), (2, 64, 5, 5, 5), None),
    "bilinear": (lambda: nn.Bilinear(8, 8, 8), None, None),
    "few rows": (lambda: nn.Linear(64, 64), (63, 64), None),
    "few features": (lambda: nn.Linear(64, 63), (64, 64), None),
    "a vector": (lambda: nn.Linear(64, 64), (64,), None),
    "no rows": (lambda: nn.Linear(64, 64), (0, 64), None),
    "no images": (lambda: nn.Conv2d(64, 64, 3), (0, 64, 5, 5), None),
}
# Conv1d by Winograd: a 1-D kernel of 3 is a 1x3 one, which is none of 3x3.
LAYERS["Conv1d"] = (*LAYERS["Conv1d"][:2], "im2col")


@pytest.mark.parametrize(("scheme", "key_shift"), KEYS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, scheme, key_shift):
    make, shape, lowering = LAYERS[name]
    torch.manual_seed(0)
    inputs = [r(70, 8), r(70, 8)] if shape is None else [r(*shape)]
    holder = nn.Sequential(make().double()) if shape else make().double()
    (row,) = oracle(holder, inputs, scheme=scheme, key_shift=key_shift)
    assert (row.operation if row.offloaded else None) == lowering, row


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", [name for name, (_, _, lowering) in LAYERS.items() if lowering])
def test_layers_in_float32_err_little_more_than_plain_float32(name, scheme):
    make, shape, _ = LAYERS[name]
    torch.manual_seed(0)
    exact = nn.Sequential(make().double())
    x = r(*shape)
    single = copy.deepcopy(exact).float()
    truth = evaluate(exact, [x])
    plain = errors(evaluate(single, [x.float()]), truth)
    with Session("cpu", scheme=scheme) as session:
        got = errors(evaluate(session.protect(single), [x.float()]), truth)
        assert session.report().checks_failed == 0
    for mine, theirs in zip(got, plain):
        assert mine <= GROWTH * max(theirs, 2**-24), (mine, theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: nn.Linear(64, 64), r(64, 128).T),
        (lambda: nn.Linear(64, 64), r(64, 3, 40).permute(2, 1, 0)),
        (lambda: nn.Linear(64, 64), r(1, 64).expand(80, 64)),
        (lambda: nn.Conv2d(64, 64, 3), r(8, 64, 8, 8).contiguous(memory_format=torch.channels_last)),
        (lambda: nn.Conv2d(64, 64, 3, stride=2), r(8, 64, 9, 18)[..., ::2]),
        (lambda: nn.Conv2d(64, 64, 1), r(8, 8, 8, 64).permute(0, 3, 1, 2)),
    ],
)
def test_strided_inputs(make, x, scheme):
    """One row that stands for all is one of them: sent where nobody looks for rows that repeat."""
    (row,) = oracle(nn.Sequential(make().double()), [x], scheme=scheme, repeats=1.0)
    assert row.offloaded


def test_a_channels_last_model():
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 5, padding=2)).double()
    model = model.to(memory_format=torch.channels_last)
    x = r(8, 64, 8, 8).to(memory_format=torch.channels_last)
    rows = oracle(model, [x], unsafe_offload=["2"])
    assert [row.offloaded for row in rows] == [True, True]


# ---- functions on parameters in user code --------------------------------------------------------

FUNCTIONS = {
    "F.linear": (lambda p, x: F.linear(x, p[0], p[1]), [(96, 64), (96,)], (128, 64)),
    "F.linear, keywords": (
        lambda p, x: F.linear(bias=p[1], weight=p[0], input=x),
        [(96, 64), (96,)],
        (128, 64),
    ),
    "matmul": (lambda p, x: torch.matmul(x, p[0]), [(64, 96)], (2, 64, 64)),
    "x @ W": (lambda p, x: x @ p[0], [(64, 96)], (128, 64)),
    "x @ W.T": (lambda p, x: x @ p[0].T, [(96, 64)], (128, 64)),
    "W @ x": (lambda p, x: (p[0] @ x).view(-1), [(96, 64)], (64, 128)),
    "W @ x, 3-D": (lambda p, x: (p[0] @ x).view(2, -1), [(96, 64)], (2, 64, 128)),
    "mm": (lambda p, x: torch.mm(x, p[0]), [(64, 96)], (128, 64)),
    "x.mm": (lambda p, x: x.mm(mat2=p[0]), [(64, 96)], (128, 64)),
    "bmm": (lambda p, x: torch.bmm(x, p[0]), [(2, 64, 96)], (2, 128, 64)),
    "broadcast": (lambda p, x: x @ p[0], [(2, 1, 64, 96)], (2, 3, 64, 64)),
    "addmm": (lambda p, x: torch.addmm(p[1], x, p[0], beta=0.5, alpha=2), [(64, 96), (96,)], (128, 64)),
    "baddbmm": (lambda p, x: torch.baddbmm(p[1], x, p[0]), [(2, 64, 96), (2, 1, 96)], (2, 128, 64)),
    "addmm, beta 0": (
        lambda p, x: torch.addmm(p[1] * torch.nan, x, p[0], beta=0),
        [(64, 96), (96,)],
        (128, 64),
    ),
    "einsum": (lambda p, x: torch.einsum("bld,hdk->bhlk", x, p[0]), [(4, 64, 64)], (2, 64, 64)),
    "einsum, 3": (lambda p, x: torch.einsum("ij,jk,lk->il", x, p[0], p[1]), [(64, 96), (70, 96)], (128, 64)),
    "einsum, batch": (lambda p, x: torch.einsum("gri,gio->gro", x, p[0]), [(2, 64, 64)], (2, 64, 64)),
    "conv2d": (lambda p, x: F.conv2d(x, p[0], p[1], padding=1), [(64, 64, 3, 3), (64,)], (8, 64, 6, 6)),
    "rows of one": (lambda p, x: x @ p[0][:64] + x @ p[0][64:], [(128, 64)], (64, 64)),
    "both operands": (lambda p, x: x * (p[0] @ p[1]), [(64, 64), (64, 64)], (64, 64)),
    "itself": (lambda p, x: x * (p[0] @ p[0]), [(64, 64)], (64, 64)),
}


@pytest.mark.parametrize(("scheme", "key_shift"), KEYS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_parameters(name, scheme, key_shift):
    f, parameters, shape = FUNCTIONS[name]
    torch.manual_seed(1)
    rows = oracle(Fn(f, *parameters), [r(*shape)], scheme=scheme, key_shift=key_shift)
    if name == "addmm, beta 0":
        return  # its bias gets a zero gradient
    assert {row.offloaded for row in rows} == {True}, rows


def test_results_lie_in_memory_as_pytorchs_do():
    for name, (f, parameters, shape) in FUNCTIONS.items():
        model, x = Fn(f, *parameters), r(*shape)
        want = model(x)
        with Session("cpu") as session:
            got = session.protect(model)(x)
        assert got.is_contiguous() or not want.is_contiguous(), name


def test_a_weight_that_broadcasts_in_two_orders_is_encoded_for_each():
    model = Fn(lambda p, x: x @ p[0], (2, 1, 64, 64))
    inputs = [r(3, 2, 1, 64, 64), r(2, 3, 64, 64)]  # six groups, in another order
    want = [model(x) for x in inputs]
    with Session("cpu") as session:
        session.protect(model)
        for x, y in zip(inputs, want):
            torch.testing.assert_close(model(x), y)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_of_activations_on_request(scheme):
    q, k = r(2, 2, 64, 64), r(2, 2, 70, 64)
    model = Fn(lambda p, q, k: torch.softmax(q @ k.mT / 8, -1) @ k)
    rows = oracle(model, [q, k], scheme=scheme, offload_attention=True)
    assert [row.offloaded for row in rows] == [True, True]
    rows = oracle(Fn(model.f), [q, k], scheme=scheme)
    assert {row.reason for row in rows} == {"product of two activations"}


# ---- attention ------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.kind = kind
        self.mha = nn.MultiheadAttention(64, 2, batch_first=True, dtype=torch.float64, **options)

    def forward(self, x, memory):
        kind = self.kind
        padding = torch.zeros(memory.shape[:2], dtype=torch.bool)
        padding[:, -3:] = True
        if kind == "self":
            return self.mha(x, x, x)
        if kind == "self, no weights":
            return self.mha(x, x, x, need_weights=False)
        if kind == "causal":
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
            return self.mha(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        if kind == "padded":
            return self.mha(x, memory, memory, key_padding_mask=padding, average_attn_weights=False)
        return self.mha(x, memory, memory)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["self", "self, no weights", "causal", "cross", "padded", "bias"])
def test_multi_head_attention(kind, scheme):
    torch.manual_seed(2)
    options = {"add_bias_kv": True, "add_zero_attn": True} if kind == "bias" else {}
    rows = oracle(Attention(kind, **options), [r(4, 32, 64), r(4, 20, 64)], scheme=scheme)
    assert {row.operation for row in rows if row.offloaded} == {"linear"}
    calls = sum(row.calls for row in rows if row.offloaded)
    assert calls == (2 if "self" in kind or kind == "causal" else 3), rows


@pytest.mark.parametrize("scheme", SCHEMES)
def test_transformer_layer(scheme):
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, dtype=torch.float64)
    rows = oracle(nn.Sequential(layer), [r(4, 20, 64)], scheme=scheme, unsafe_offload=["0.linear2"])
    assert sum(row.offloaded for row in rows) == 4


def test_transformer_layer_takes_no_fast_path_past_us():
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dtype=torch.float64)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = r(4, 20, 64)
    padding = torch.zeros(4, 20, dtype=torch.bool)
    padding[:, 15:] = True
    with torch.no_grad():
        want = model(x, src_key_padding_mask=padding)
        with Session("cpu") as session:
            session.protect(model, unsafe_offload=["layers.1.linear2"])
            got = model(x, src_key_padding_mask=padding)
            report = session.report()
    torch.testing.assert_close(got[~padding], want[~padding], rtol=CLOSE, atol=CLOSE)
    linear = 2 * 2 * 80 * 64 * (3 * 64 + 64 + 128 + 128)
    assert report.offloaded_flops == linear


# ---- zero rows, odd values ------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "key_shift"), KEYS)
@pytest.mark.parametrize(
    ("zero_x", "zero_dy"),
    [
        (slice(0, 0), slice(0, 50)),
        (slice(0, 50), slice(0, 0)),
        (slice(0, 50), slice(30, 90)),
        (slice(0, 180), slice(0, 0)),  # too few rows are left to send
        (slice(0, 0), slice(0, 180)),
        (slice(0, 100), slice(100, 200)),  # disjoint
        (slice(None), slice(0, 0)),
        (slice(0, 0), slice(None)),
        (slice(None, None, 2), slice(None, None, 3)),
    ],
)
def test_zero_rows(zero_x, zero_dy, scheme, key_shift):
    torch.manual_seed(4)
    x, mask = r(200, 64), torch.ones(200, 1, dtype=torch.float64)
    x[zero_x], mask[zero_dy] = 0, 0
    model = nn.Sequential(nn.Linear(64, 64, dtype=torch.float64))
    (row,) = oracle(model, [x], mask=mask, scheme=scheme, key_shift=key_shift)
    assert row.offloaded


def test_zero_rows_of_some_images_only():
    x, mask = r(16, 64, 8, 8), torch.ones(16, 1, 1, 1, dtype=torch.float64)
    x[3:7], mask[5:12] = 0, 0
    for conv in (nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(128, 64, 5, groups=2)):
        inputs = [x.repeat(1, conv.in_channels // 64, 1, 1)]
        inputs[0][:, 64:] *= 0.0 if conv.groups > 1 else 1.0
        (row,) = oracle(nn.Sequential(conv.double()), inputs, mask=mask, min_size=32, block=32)
        assert row.offloaded


def test_the_first_token_alone_has_a_gradient():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))[:, 0]

    rows = oracle(Pooled().double(), [r(80, 5, 64)], unsafe_offload=["b"])
    assert [row.offloaded for row in rows] == [True, True]


@pytest.mark.security
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "layer", [nn.Linear(64, 64), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 5), Conv1D(64, 64)]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, 3e38])
def test_values_that_cannot_be_sent_do_as_in_pytorch_and_accuse_nobody(layer, value, scheme):
    x = torch.randn(128, 64) if not isinstance(layer, nn.Conv2d) else torch.randn(4, 64, 16, 16)
    x.view(-1)[777] = value
    plain = nn.Sequential(layer)
    want = evaluate(plain, [x])
    with Session("cpu", scheme=scheme) as session:
        got = evaluate(session.protect(copy.deepcopy(plain)), [x])
        report = session.report()
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, equal_nan=True)
    assert (report.checks_failed, report.quarantined, report.offloaded_flops) == (0, [], 0)
    assert report.rows[0].reason == "values not finite or too large to send"


@pytest.mark.parametrize("scale_dy", [float("inf"), 1e38, 1e-42])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_that_cannot_be_sent_are_computed_here(scheme, scale_dy):
    x, plain = torch.randn(128, 64), nn.Sequential(nn.Linear(64, 64))
    dy = torch.randn(128, 64) * scale_dy
    grads = []
    with Session("cpu", scheme=scheme) as session:
        for model in (plain, session.protect(copy.deepcopy(plain))):
            grads.append(torch.autograd.grad(model(x), model.parameters(), dy))
        assert session.report().quarantined == []
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-5, atol=0.0 if scale_dy > 1 else 1e-42)


@pytest.mark.security
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e25])
def test_huge_and_tiny_values(scheme, scale):
    torch.manual_seed(5)
    x, plain = torch.randn(128, 64) * scale, nn.Sequential(nn.Linear(64, 64, bias=False))
    want = evaluate(plain, [x])
    with Session("cpu", scheme=scheme) as session:
        got = evaluate(session.protect(copy.deepcopy(plain)), [x])
        report = session.report()
    for a, b in zip(got, want):
        assert float((a.double() - b.double()).norm()) <= 1e-5 * float(b.double().norm())
    assert (report.checks_failed, report.quarantined) == (0, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_very_different_size(dtype):
    """mixing errs relative to the largest row of a group, monomial relative to the row itself."""
    x = r(128, 64, dtype=dtype) * torch.logspace(0, -9, 128, dtype=dtype)[:, None]
    layer = nn.Linear(64, 64, bias=False, dtype=dtype)
    want = (x.double() @ layer.weight.double().T).detach()
    eps = torch.finfo(dtype).eps
    for scheme in SCHEMES:
        with Session("cpu", scheme=scheme) as session:
            got = session.protect(nn.Sequential(copy.deepcopy(layer)))(x).detach()
            assert session.report().checks_failed == 0
        error = (got.double() - want).norm(dim=1)
        size = want.norm(dim=1) if scheme == "monomial" else want.norm(dim=1).amax()
        assert (error <= GROWTH * eps * size).all()


# ---- how autograd may be used ---------------------------------------------------------------------


def mlp(*widths, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b, dtype=dtype) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*((layer, nn.Tanh()) for layer in layers)))


@pytest.fixture(params=KEYS, ids=lambda p: f"{p[0]}-{'shift' if p[1] else 'fresh'}")
def pair(request):
    """(plain, protected, worker): the same model twice, every layer offloaded."""
    scheme, key_shift = request.param
    worker = DeviceWorker("cpu", name="w")
    plain = mlp(64, 96, 64)
    with Session([worker], scheme=scheme, key_shift=key_shift) as session:
        yield plain, session.protect(copy.deepcopy(plain), unsafe_offload=["2"]), worker
        report = session.report()
        assert (report.checks_failed, report.quarantined, report.local_fallbacks) == (0, [], 0)


def same(pair, use, tolerance=CLOSE):
    """use(model) gives a list of tensors: the same for both models."""
    plain, protected, _ = pair
    got, want = use(protected), use(plain)
    assert max(errors(got, want)) < tolerance, errors(got, want)


def grads(model):
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_frozen_weights(pair):
    def use(model):
        model[0].weight.requires_grad_(False)
        x = r0.clone().requires_grad_()
        model(x).square().sum().backward()
        assert model[0].weight.grad is None
        return [x.grad, *grads(model)]

    r0 = r(128, 64)
    same(pair, use)


def test_inputs_without_gradient_and_nothing_at_all(pair):
    x = r(128, 64)

    def use(model):
        model.zero_grad()
        model(x).square().sum().backward()
        out = grads(model)
        model.requires_grad_(False)
        y = model(x)
        assert not y.requires_grad
        model.requires_grad_(True)
        return [*out, y]

    same(pair, use)


def test_retained_graph_with_the_same_and_another_gradient(pair):
    x0, d1, d2 = r(128, 64), r(128, 64), r(128, 64)

    def use(model):
        model.zero_grad()
        x = x0.clone().requires_grad_()
        y = model(x)
        out = []
        for dy in (d1, d1, d2, d2 * 0, d1):
            y.backward(dy, retain_graph=True)
            out += [x.grad.clone(), *grads(model)]
        out += torch.autograd.grad(y, x, d2)
        with pytest.raises(RuntimeError, match="second time"):
            y.backward(d1)
        return out

    same(pair, use)


def test_gradients_piecemeal(pair):
    x0, dy = r(128, 64), r(128, 64)

    def use(model):
        x = x0.clone().requires_grad_()
        y = model(x)
        first = torch.autograd.grad(y, x, dy, retain_graph=True)
        weight = torch.autograd.grad(y, model[0].weight, dy, retain_graph=True)
        rest = torch.autograd.grad(y, [model[2].weight, model[2].bias], dy)
        return [*first, *weight, *rest]

    same(pair, use)


def test_several_forwards_before_one_backward(pair):
    xs = [r(128, 64), r(70, 64), r(64, 64)]

    def use(model):
        model.zero_grad()
        sum(model(x).square().sum() for x in xs).backward()
        return grads(model)

    same(pair, use)


def test_a_layer_used_several_times(pair):
    x0 = r(128, 64)

    def use(model):
        model.zero_grad()
        x = x0
        for _ in range(3):
            x = model(x)
        x.sum().backward()
        return grads(model)

    same(pair, use)


def test_accumulation_clipping_and_optimizers(pair):
    xs = [r(64, 64) for _ in range(4)]

    def use(model):
        out = []
        for make in (
            lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
            lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
            lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
        ):
            optimizer = make(model.parameters())
            for _ in range(2):
                optimizer.zero_grad()
                for x in xs:
                    (model(x).square().mean() / len(xs)).backward()
                out.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
                optimizer.step()
        return [*out, *(p.detach() for p in model.parameters())]

    same(pair, use, 1e-8)  # Adam divides by roots of tiny sums


def test_weights_changed_behind_autograds_back_are_noticed(pair):
    x = r(128, 64)

    def use(model):
        out = [model(x).detach()]
        weight = model[0].weight
        weight.data.mul_(1.5)
        out.append(model(x).detach())
        weight.data = weight.data.flip(0)
        out.append(model(x).detach())
        weight.detach().numpy()[3] += 1  # no version is counted
        out.append(model(x).detach())
        weight.data[5, 7] += 0.25
        out.append(model(x).detach())
        weight.data = weight.data.T.contiguous().T
        out.append(model(x).detach())
        with torch.no_grad():
            weight.copy_(weight.flip(1))
        out.append(model(x).detach())
        model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})
        out.append(model(x).detach())
        model.load_state_dict({k: v / 2 for k, v in model.state_dict().items()}, assign=True)
        return [*out, model(x).detach()]

    same(pair, use)


def test_in_place_changes_raise_pytorchs_error(pair):
    _, model, _ = pair
    for change in (lambda x: model[0].weight.mul_(2), lambda x: model[2].weight.mul_(2), lambda x: x.mul_(2)):
        x = r(128, 64).requires_grad_()
        loss = model(x).sum()
        with torch.no_grad():
            change(x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(2).add_(1).relu_()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(64, 64, bias=False),
        nn.Conv2d(64, 64, 1, bias=False),
        nn.Conv2d(64, 64, 3, bias=False),
        nn.Conv2d(64, 64, 5, bias=False),
        Conv1D(64, 64),
    ],
)
def test_results_may_be_changed_in_place(layer):
    shape = (8, 64, 8, 8) if isinstance(layer, nn.Conv2d) else (4, 32, 64)
    (row,) = oracle(nn.Sequential(layer.double(), InPlace()), [r(*shape)])
    assert row.offloaded


def test_double_backward_is_refused_with_a_way_out(pair):
    _, model, _ = pair
    x = r(128, 64).requires_grad_()
    with pytest.raises(UnsupportedError, match=r"create_graph.*keep=\["):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)


def test_gradients_inside_a_forward():
    class Force(nn.Module):
        """As in molecular dynamics: the output is a gradient."""

        def __init__(self, grad):
            super().__init__()
            self.grad = grad
            self.a, self.b = nn.Conv2d(64, 64, 3, padding=1), nn.Linear(64, 64)

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return self.grad((self.b(self.a(x).tanh().flatten(2).mT)[:, 3:] ** 2).sum(), x)

    def backward(energy, x):
        torch.autograd.backward([energy], inputs=[x])
        return x.grad

    x = r(4, 64, 16, 16)
    for grad in (lambda energy, x: torch.autograd.grad(energy, x)[0], backward):
        model = Force(grad).double()
        want = model(x)
        with Session("cpu") as session:
            got = session.protect(model, unsafe_offload=["b"])(x)
            rows = session.report().rows
        assert errors([got], [want])[0] < CLOSE
        assert [(row.module, row.offloaded, row.calls) for row in rows] == [("a", True, 1), ("b", True, 1)]


def test_no_grad_inference_mode_and_eval(pair):
    x = r(128, 64)

    def use(model):
        out = []
        model.eval()
        with torch.no_grad():
            out.append(model(x))
        with torch.inference_mode():
            out.append(model(x).clone())
            out.append(model(x + 1).clone())
        model.train()
        with torch.set_grad_enabled(False):
            out.append(model(x))
        return out

    same(pair, use)


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model, x = mlp(64, 64), r(128, 64)
        want = model(x)
        with Session("cpu") as session:
            got = session.protect(model)(x)
            assert session.report().offloaded_flops
    torch.testing.assert_close(got, want, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_autocast(scheme):
    torch.manual_seed(6)
    plain = nn.Sequential(
        nn.Conv2d(64, 64, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Linear(64, 64),
        Conv1D(64, 64),
    )
    x = torch.randn(16, 64, 10, 10)
    seen = []
    with Session("cpu", scheme=scheme) as session:
        for model in (plain, session.protect(copy.deepcopy(plain), unsafe_offload=["5"])):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = model(x)
            y.float().square().mean().backward()
            seen.append((y.detach(), [p.grad for p in model.parameters()]))
        assert all(row.offloaded for row in session.report().rows)
    (want, their), (got, mine) = seen
    assert got.dtype == want.dtype == torch.bfloat16
    assert [g.dtype for g in mine] == [g.dtype for g in their]
    # Three layers of bfloat16 (2^-8) on either side.
    assert max(errors([got, *mine], [want, *their])) < 16 * 2**-8


def test_autocast_leaves_float64_alone():
    plain, x = mlp(64, 64), r(64, 64)
    with Session("cpu") as session, torch.autocast("cpu", dtype=torch.bfloat16):
        want = plain(x).detach()
        got = session.protect(plain)(x).detach()
    assert got.dtype == want.dtype
    assert errors([got], [want])[0] < CLOSE


def test_the_default_dtype_is_the_users():
    x, model = torch.randn(128, 64), mlp(64, 64, 64, dtype=torch.float32)
    want = evaluate(model, [x])
    torch.set_default_dtype(torch.float64)
    try:
        with Session("cpu") as session:
            got = evaluate(session.protect(model, unsafe_offload=["2"]), [x])
    finally:
        torch.set_default_dtype(torch.float32)
    assert [t.dtype for t in got] == [t.dtype for t in want]
    assert max(errors(got, want)) < 1e-5


# ---- what the worker keeps ------------------------------------------------------------------------


def held(worker):
    return len(worker._executor.store)


def test_a_step_leaves_no_operand_behind(pair):
    _, model, worker = pair
    x = r(128, 64)
    for _ in range(3):
        model(x).sum().backward()
    with torch.no_grad():
        model(x)  # releases travel with the next job
    assert held(worker) == 2, "two weights"


def test_graphs_that_die_without_backward_are_released(pair):
    _, model, worker = pair
    for _ in range(5):
        model(r(128, 64))
    with pytest.raises(ZeroDivisionError):
        loss = model(r(128, 64)).sum() / (1 // 0)
    with torch.no_grad():
        model(r(128, 64))
    assert held(worker) == 2
    loss = model(r(128, 64)).sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weights_that_moved_or_died_are_released():
    worker = DeviceWorker("cpu", name="w")
    model, x, alive = mlp(64, 64), r(64, 64), []
    with Session([worker]) as session:
        session.protect(model)
        for _ in range(5):
            model[0].weight.data = r(64, 64)
            alive.append(model[0].weight.data)
            model(x).sum().backward()
        copies = [copy.deepcopy(model) for _ in range(3)]
        for one in copies:
            one(x)
        model(x)
        assert held(worker) <= 5
        del copies, one
        gc.collect()  # a protected module is a cycle: it holds its own forward
        model[0].weight.data = r(64, 64)
        model(x).sum().backward()
        model(x).sum().backward()
        assert held(worker) <= 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_worker_with_little_memory_forgets_and_is_sent_again(scheme):
    worker = DeviceWorker("cpu", name="small", memory=450_000)
    plain = mlp(64, 96, 96, 64)
    x = r(128, 64)
    want = evaluate(plain, [x])
    with Session([worker], scheme=scheme) as session:
        got = evaluate(session.protect(copy.deepcopy(plain), unsafe_offload=["4"]), [x])
        report = session.report()
    assert max(errors(got, want)) < CLOSE
    assert {event.kind.value for event in report.events} == {"evicted"}
    assert (report.checks_failed, report.local_fallbacks) == (0, 0)


@pytest.mark.parametrize("layer", [nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 3), nn.ConvTranspose2d(64, 64, 2)])
def test_channels_last_stays_channels_last(layer):
    """The format that PyTorch gives, and so the masks that dropout draws in the order of memory."""
    model = nn.Sequential(layer, nn.Dropout(0.5)).double()
    x = torch.randn(4, 64, 10, 10, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Session("cpu") as session:
        torch.manual_seed(0)
        want = model(x)
        torch.manual_seed(0)
        got = session.protect(model, unsafe_offload=["0"])(x)
        assert any(row.offloaded for row in session.report().rows)
    assert got.stride() == want.stride()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
def test_one_image_without_a_batch(weights):
    """(C,H,W): channels last is a format of four axes, and the weight alone has it."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, dtype=torch.float64).to(memory_format=weights)
    x = torch.randn(64, 12, 12, dtype=torch.float64)
    want = layer(x).detach()
    with Session("cpu", unsafe_small=True, repeats=1.0) as session:
        got = session.protect(layer)(x).detach()
        assert [row.offloaded for row in session.report().rows] == [True]
    torch.testing.assert_close(got, want)
