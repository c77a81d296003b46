"""multi_head_attention_forward against PyTorch's own, in float64: outputs, weights, gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

from tempo.errors import UsageError
from tempo.nn.attention import multi_head_attention_forward

EMBED, HEADS = 12, 3


def r(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Ours(TorchFunctionMode):
    """Puts our function in the place of PyTorch's, and keeps a list of the products done."""

    def __init__(self):
        super().__init__()
        self.weights = []
        self.products = []

    def linear(self, x, w, b):
        self.weights.append(w)
        return F.linear(x, w, b)

    def matmul(self, a, b):
        self.products.append("matmul")
        return a @ b

    def attend(self, q, k, v, mask, dropout_p, is_causal):
        self.products.append("attend")
        assert q.dim() == k.dim() == v.dim() == 4
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.multi_head_attention_forward:
            func, args = multi_head_attention_forward, (self.linear, self.matmul, self.attend, *args)
        return func(*args, **(kwargs or {}))


def agree(call, leaves):
    """call() with and without us: same outputs, same gradients of all leaves. Returns the mode."""
    torch.manual_seed(0)
    want = call()
    torch.manual_seed(0)
    with Ours() as ours:
        got = call()
    leaves = [x for x in leaves if x is not None and x.requires_grad]
    grads = []
    for out, weights in (want, got):
        # Positions that may look at nothing are NaN in both.
        loss = (out.nan_to_num() * torch.arange(out.numel()).reshape(out.shape).cos()).sum()
        if weights is not None:
            loss = (
                loss
                + (weights.nan_to_num() * torch.arange(weights.numel()).reshape(weights.shape).sin()).sum()
            )
        grads.append(torch.autograd.grad(loss, leaves, allow_unused=True))
    torch.testing.assert_close(got[0], want[0], equal_nan=True)
    assert (got[1] is None) == (want[1] is None)
    if want[1] is not None:
        torch.testing.assert_close(got[1], want[1], equal_nan=True)
    for x, mine, theirs in zip(leaves, grads[1], grads[0]):
        assert (mine is None) == (theirs is None), x.shape
        if mine is not None:
            torch.testing.assert_close(mine, theirs, equal_nan=True)
    return ours


MASKS = ["none", "bool", "float", "bool3", "float3"]
PADDINGS = ["none", "bool", "float"]


def make_mask(kind, length, source, batch):
    shape = (batch * HEADS, length, source) if kind.endswith("3") else (length, source)
    if kind.startswith("bool"):
        mask = torch.rand(shape) < 0.4
        mask[..., 0] = False
        return mask
    return None if kind == "none" else r(*shape).requires_grad_()


def make_padding(kind, source, batch):
    if kind == "bool":
        mask = torch.zeros(*batch, source, dtype=torch.bool)
        mask[..., -1] = True
        return mask
    return None if kind == "none" else r(*batch, source)


def operands(sharing, batch, length=4, source=5, kdim=EMBED, vdim=EMBED):
    q = r(length, *batch, EMBED).requires_grad_()
    if sharing == "self":
        return q, q, q
    k = r(source, *batch, kdim).requires_grad_()
    return (q, k, k) if sharing == "cross" else (q, k, r(source, *batch, vdim).requires_grad_())


def run(sharing, batch, bias, bias_kv, zero, need_weights, average, mask, padding, separate, causal):
    torch.manual_seed(1)
    dims = {"kdim": 7, "vdim": 9} if separate else {}
    module = nn.MultiheadAttention(
        EMBED, HEADS, bias=bias, add_bias_kv=bias_kv, add_zero_attn=zero, dtype=torch.float64, **dims
    )
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    q, k, v = operands("three" if separate else sharing, batch, **dims)
    n = batch[0] if batch else 1
    mask = make_mask(mask, q.shape[0], k.shape[0], n)
    padding = make_padding(padding, k.shape[0], batch)
    if mask is not None and padding is not None and mask.dtype != padding.dtype:
        padding = make_padding("bool" if mask.dtype == torch.bool else "float", k.shape[0], batch)
    if causal:
        mask = torch.ones(q.shape[0], k.shape[0]).triu(1).bool()
        padding = None if padding is None or padding.dtype != torch.bool else padding

    def call():
        return module(q, k, v, padding, need_weights, mask, average, is_causal=causal)

    ours = agree(
        call, [q, k, v, mask if mask is not None and mask.is_floating_point() else None, *module.parameters()]
    )
    assert ours.products == (["matmul", "matmul"] if need_weights else ["attend"])
    return module, ours


BOOL = [False, True]


@pytest.mark.parametrize("sharing", ["self", "cross", "three"])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("need_weights", BOOL)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_sharing_masks_and_weights(sharing, batch, need_weights, mask, padding):
    for average, bias in [(True, True), (False, False)]:
        run(sharing, batch, bias, False, False, need_weights, average, mask, padding, False, False)


@pytest.mark.parametrize("need_weights", BOOL)
@pytest.mark.parametrize("separate", BOOL)
def test_extra_positions(need_weights, separate):
    for bias_kv, zero, mask, padding in itertools.product(BOOL, BOOL, MASKS, PADDINGS):
        run("three", (2,), True, bias_kv, zero, need_weights, True, mask, padding, separate, False)


@settings(max_examples=60, deadline=None)
@given(
    sharing=st.sampled_from(["self", "cross", "three"]),
    batch=st.sampled_from([(), (1,), (3,)]),
    bias=st.booleans(),
    bias_kv=st.booleans(),
    zero=st.booleans(),
    need_weights=st.booleans(),
    average=st.booleans(),
    mask=st.sampled_from(MASKS),
    padding=st.sampled_from(PADDINGS),
    separate=st.booleans(),
    causal=st.booleans(),
)
def test_any_combination(**options):
    run(**options)


def test_parameters_keep_their_identity():
    module, ours = run("self", (2,), True, False, False, False, True, "none", "none", False, False)
    assert ours.weights[0] is module.in_proj_weight
    assert ours.weights[-1] is module.out_proj.weight
    assert len(ours.weights) == 2
    # Unbatched too, where PyTorch itself forgets that its three operands are one.
    module, ours = run("self", (), True, False, False, True, True, "none", "none", False, False)
    assert ours.weights[0] is module.in_proj_weight
    for sharing, rows in (("cross", [EMBED * 2, EMBED]), ("three", [EMBED, EMBED, EMBED])):
        module, ours = run(sharing, (2,), True, False, False, False, True, "none", "none", False, False)
        assert [w.shape[0] for w in ours.weights[:-1]] == rows
        assert all(w._base is module.in_proj_weight for w in ours.weights[:-1])
    module, ours = run("three", (2,), True, False, False, False, True, "none", "none", True, False)
    for w, p in zip(ours.weights, (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)):
        assert w is p


@pytest.mark.parametrize("need_weights", BOOL)
def test_dropout_draws_what_pytorch_draws(need_weights):
    module = nn.MultiheadAttention(EMBED, HEADS, dropout=0.5, dtype=torch.float64)
    x = r(4, 2, EMBED).requires_grad_()
    agree(lambda: module(x, x, x, need_weights=need_weights), [x, *module.parameters()])
    module.eval()
    agree(lambda: module(x, x, x, need_weights=need_weights), [x, *module.parameters()])


@pytest.mark.parametrize("need_weights", BOOL)
@pytest.mark.parametrize("zero", BOOL)
@pytest.mark.parametrize("padding", PADDINGS)
def test_static_key_and_value(need_weights, zero, padding):
    q, k, v = operands("three", (2,))
    static_k, static_v = (r(2 * HEADS, 6, EMBED // HEADS).requires_grad_() for _ in range(2))
    w, o = r(3 * EMBED, EMBED).requires_grad_(), r(EMBED, EMBED).requires_grad_()
    given_padding = make_padding(padding, 6, (2,))

    def call():
        return F.multi_head_attention_forward(
            *(q, k, v, EMBED, HEADS, w, None, None, None, zero, 0.0, o, None),
            key_padding_mask=given_padding,
            need_weights=need_weights,
            static_k=static_k,
            static_v=static_v,
        )

    agree(call, [q, static_k, static_v, w, o])


def base(**changes):
    q = r(4, 2, EMBED)
    sizes = {"embed_dim_to_check": EMBED, "num_heads": HEADS, "add_zero_attn": False, "dropout_p": 0.0}
    weights = {"in_proj_weight": r(3 * EMBED, EMBED), "out_proj_weight": r(EMBED, EMBED)}
    absent = dict.fromkeys(("in_proj_bias", "bias_k", "bias_v", "out_proj_bias"))
    return {"query": q, "key": q, "value": q} | sizes | weights | absent | changes


WRONG = {
    "embed": {"embed_dim_to_check": 13},
    "heads": {"num_heads": 5},
    "dims": {"key": r(4, EMBED)},
    "one dimension": dict.fromkeys(("query", "key", "value"), r(EMBED)),
    "value shape": {"value": r(5, 2, EMBED)},
    "value length": {"value": r(5, 2, EMBED), "use_separate_proj_weight": True},
    "batch": {"key": r(4, 3, EMBED), "value": r(4, 3, EMBED)},
    "causal without mask": {"is_causal": True},
    "mask dtype": {"attn_mask": torch.ones(4, 4, dtype=torch.int64)},
    "padding dtype": {"key_padding_mask": torch.ones(2, 4, dtype=torch.int64)},
    "mask size": {"attn_mask": torch.zeros(4, 1).bool()},
    "mask heads": {"attn_mask": torch.zeros(1, 4, 4).bool()},
    "mask dims": {"attn_mask": torch.zeros(1, 1, 4, 4).bool()},
    "padding size": {"key_padding_mask": torch.zeros(4, 2).bool()},
    "padding broadcast": {"key_padding_mask": torch.zeros(1, 4).bool()},
    "one bias": {"bias_k": r(1, 1, EMBED)},
    "other bias": {"bias_v": r(1, 1, EMBED)},
    "bias and static": {
        "bias_k": r(1, 1, EMBED), "bias_v": r(1, 1, EMBED), "static_k": r(6, 4, 4), "static_v": r(6, 4, 4)
    },
    "static heads": {"static_k": r(5, 4, 4), "static_v": r(6, 4, 4)},
    "static width": {"static_k": r(6, 4, 4), "static_v": r(6, 4, 3)},
    "no packed weight": {"in_proj_weight": None},
    "no separate weight": {"use_separate_proj_weight": True, "q_proj_weight": r(EMBED, EMBED)},
}  # fmt: skip


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_what_pytorch_refuses_is_refused(changes):
    with pytest.raises((RuntimeError, AssertionError)):
        F.multi_head_attention_forward(**base(**changes))
    ours = Ours()
    with pytest.raises(UsageError):
        multi_head_attention_forward(ours.linear, ours.matmul, ours.attend, **base(**changes))


def test_masks_of_two_types_are_deprecated_as_in_pytorch():
    changes = {"attn_mask": torch.zeros(4, 4).bool(), "key_padding_mask": r(2, 4)}
    with pytest.warns(UserWarning, match="mismatched"):
        want = F.multi_head_attention_forward(**(args := base(**changes)))
    ours = Ours()
    with pytest.warns(UserWarning, match="mismatched"):
        got = multi_head_attention_forward(ours.linear, ours.matmul, ours.attend, **args)
    torch.testing.assert_close(got, want)
