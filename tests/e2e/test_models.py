"""Whole models, protected and plain: loss and every gradient, and every linear flop accounted for."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import BaseTorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tempo import FleetSettings, Session
from tempo.numerics import GROWTH

SCHEMES = ("monomial", "mixing")
VOCABULARY = 128


class Block(nn.Module):
    """A bottleneck with 1x1, 3x3 and grouped convolutions, in-place ReLU, as torchvision writes it."""

    def __init__(self, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2, self.bn3 = nn.BatchNorm2d(width), nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, 1, 1, groups=2 if stride > 1 else 1, bias=False)
        self.down = nn.Conv2d(width, 2 * width, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += self.down(x)
        return self.relu(y)


class OwnResNet(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.blocks = nn.ModuleList([Block(64, 1), Block(128, 2)])
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


class OwnViT(nn.Module):
    """nn.TransformerEncoder, which hands attention over as a whole."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.reentrant = reentrant
        self.patch = nn.Conv2d(3, 64, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, 64))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                64, 2, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=i == 0
            )
            for i in range(2)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x) if self.reentrant is None else checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(x[:, 0])


def hf_resnet(reentrant=None):
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128], depths=[1, 1], layer_type="basic", num_labels=10
        )
    )


def checkpointed(model, reentrant):
    if reentrant is not None:
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
    return model


def hf_vit(reentrant=None, attention="sdpa"):
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )
    return checkpointed(ViTForImageClassification(config), reentrant)


def gpt2(reentrant=None, attention="eager"):
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=64,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation=attention,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return checkpointed(GPT2LMHeadModel(config), reentrant)


def llama(reentrant=None, attention="sdpa"):
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_implementation=attention,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    # HF's RMSNorm goes through float32 whatever the model's dtype.
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(module, name, nn.RMSNorm(64, eps=1e-6))
    return checkpointed(model, reentrant)


MODELS = {
    "ResNet": OwnResNet,
    "ViT": OwnViT,
    "HF ResNet": hf_resnet,
    "HF ViT": hf_vit,
    "HF ViT, eager": lambda reentrant=None: hf_vit(reentrant, "eager"),
    "GPT-2": gpt2,
    "GPT-2, sdpa": lambda reentrant=None: gpt2(reentrant, "sdpa"),
    "Llama": llama,
}
#: Their softmax goes through float32, which rounds to one side or the other.
NOT_IN_FLOAT64 = {"HF ViT, eager"}


def make(name, dtype=torch.float64, reentrant=None):
    torch.manual_seed(0)
    model = MODELS[name](reentrant).to(dtype).train()
    if "GPT" in name or name == "Llama":
        tokens = torch.randint(VOCABULARY, (5, 24))
        return model, lambda m: m(input_ids=tokens, labels=tokens).loss
    images, labels = torch.randn(16, 3, 32, 32, dtype=torch.float64).to(dtype), torch.randint(10, (16,))

    def loss(m):
        out = m(images)
        return F.cross_entropy(getattr(out, "logits", out), labels)

    return model, loss


def smoothed(model):
    """Without ReLU, whose gradient jumps where rounding takes an activation over zero."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU(inplace=child.inplace))
    return model


def gradients(model, loss):
    """The loss and the gradient of every parameter."""
    model.zero_grad()
    value = loss(model)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in model.parameters())]


def errors(got, want):
    """Relative 2-norms; gradients that are zero but for rounding count against the largest."""
    floor = 1e-6 * max(float(t.norm()) for t in want[1:])
    return [
        float((a.double() - b.double()).norm()) / max(float(b.norm()), floor)
        for a, b in zip(got, want, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_IN_FLOAT64])
@pytest.mark.parametrize(("scheme", "key_shift"), list(itertools.product(SCHEMES, (True, False))))
def test_float64_gradients_equal_plain_pytorchs(name, scheme, key_shift):
    plain, loss = make(name)
    model = copy.deepcopy(plain)
    want = gradients(plain, loss)
    fleet = FleetSettings(hedge_least_s=60)
    with Session(["cpu", "cpu"], scheme=scheme, key_shift=key_shift, fleet=fleet) as session:
        got = gradients(session.protect(model), loss)
        report = session.report()
    assert max(errors(got, want)) < 1e-9
    assert (report.checks_failed, report.local_fallbacks, report.events) == (0, 0, [])
    # Every buffer too (running statistics), and the plain model's keys.
    for (key, mine), (other, theirs) in zip(
        model.state_dict().items(), plain.state_dict().items(), strict=True
    ):
        assert key == other
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_float32_errs_little_more_than_plain_float32(name, scheme):
    """Against float64, and no more than GROWTH times (tempo/numerics.py) what plain float32 errs."""
    exact, loss = make(name)
    truth = gradients(smoothed(exact), loss)
    plain, loss = make(name, torch.float32)
    model = copy.deepcopy(smoothed(plain))
    theirs = errors(gradients(plain, loss), truth)
    with Session("cpu", scheme=scheme) as session:
        mine = errors(gradients(session.protect(model), loss), truth)
        assert session.report().checks_failed == 0
    for a, b in zip(mine, theirs):
        assert a <= GROWTH * max(b, 2**-24), (a, b)


@pytest.mark.parametrize(
    ("name", "reentrant"),
    [(name, r) for name in MODELS for r in (None, True, False) if r is None or name != "HF ResNet"],
)
def test_every_linear_flop_is_offloaded_or_kept_for_a_reason(name, reentrant):
    model, loss = make(name, torch.float32, reentrant)
    with FlopCounterMode(display=False) as counter:
        gradients(model, loss)
    with Session("cpu") as session:
        gradients(session.protect(model), loss)
        report = session.report()
    assert report.offloaded_flops + report.kept_flops == counter.get_total_flops()
    assert report.offloaded_flops > 0.5 * counter.get_total_flops(), str(report)
    for row in report.rows:
        assert row.offloaded != bool(row.reason), row
        assert all((row.module, row.operation, row.calls)), row


@pytest.mark.parametrize("name", ["ViT", "HF ViT", "GPT-2", "Llama", "ResNet"])
def test_flops_of_inference(name):
    model, loss = make(name, torch.float32)
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, BaseTorchFunctionMode():
        want = loss(model)  # any function mode turns the fast path off, whose flops nobody counts
    with Session("cpu") as session, torch.no_grad():
        got = loss(session.protect(model))
        report = session.report()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert report.offloaded_flops + report.kept_flops == counter.get_total_flops()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["ResNet", "ViT", "GPT-2", "Llama"])
def test_checkpointed_gradients(name, reentrant):
    plain, loss = make(name)
    want = gradients(plain, loss)
    model, loss = make(name, reentrant=reentrant)
    model.load_state_dict(make(name)[0].state_dict())
    with Session("cpu") as session:
        got = gradients(session.protect(model), loss)
    assert max(errors(got, want)) < 1e-9


def test_generation():
    torch.manual_seed(1)
    model = gpt2().eval()
    model.config.use_cache = True
    prompt = torch.randint(VOCABULARY, (16, 8))
    options = {
        "max_new_tokens": 4,
        "do_sample": False,
        "pad_token_id": 0,
        "attention_mask": torch.ones_like(prompt),
    }
    want = model.generate(prompt, **options)
    with Session("cpu") as session:
        got = session.protect(model).generate(prompt, **options)
        assert session.report().offloaded_flops
    assert torch.equal(got, want)


def test_a_model_on_worker_processes():
    plain, loss = make("GPT-2")
    model = copy.deepcopy(plain)
    want = gradients(plain, loss)
    # A worker that is late on a busy machine is no event of interest here.
    with Session("local:2", fleet=FleetSettings(hedge_least_s=60)) as session:
        got = gradients(session.protect(model, unsafe_offload=["lm_head"]), loss)
        report = session.report()
    assert max(errors(got, want)) < 1e-9
    assert (report.checks_failed, report.events) == (0, [])
