"""What the libraries themselves do to a protected model: unwrap it, adapt it, copy it, generate with it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tempo import Session
from tempo.nn.wrapped import is_protected

LAST = "last weighted layer: its gradient gives away labels"


@pytest.fixture
def session():
    with Session("cpu") as session:
        yield session
        report = session.report()
        assert (report.checks_failed, report.quarantined) == (0, [])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))


def sent(session):
    return {row.module for row in session.report().rows if row.offloaded}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("order", ["protect first", "prepare first"])
@pytest.mark.parametrize("keep", [True, False])
def test_accelerate_wraps_and_unwraps(session, precision, order, keep):
    accelerate = pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    plain, x = net(), torch.randn(96, 64)
    want = plain(x)
    model = session.protect(net()) if order == "protect first" else accelerator.prepare(net())
    model = accelerator.prepare(model) if order == "protect first" else session.protect(model)
    tolerance = {"rtol": 3e-2, "atol": 3e-2} if precision == "bf16" else {}
    torch.testing.assert_close(model(x), want, **tolerance)
    assert sent(session) == {"0", "2"}
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.zero_()
        assert average(x).abs().max() == 0
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=keep)
    torch.testing.assert_close(model(x), want, **tolerance)
    if order == "protect first":
        assert is_protected(model)
    session.unprotect(model)
    before = session.report().bytes_sent
    torch.testing.assert_close(model(x), want, **tolerance)
    assert session.report().bytes_sent == before
    AcceleratorState._reset_state(True)


@pytest.mark.security
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_pefts_adapter_on_the_last_layer_keeps_it_in_the_tee(session):
    peft = pytest.importorskip("peft")

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(64, 64)
            self.head = nn.Linear(64, 64)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x)))

    torch.manual_seed(0)
    config = peft.LoraConfig(r=64, target_modules=["body", "head"])
    model = session.protect(peft.get_peft_model(Classifier(), config))
    model(torch.randn(96, 64)).square().sum().backward()
    rows = {row.module: row.reason for row in session.report().rows}
    for name, reason in rows.items():
        assert (".head." in name) == (reason == LAST), name
    assert sum(".head." in name for name in rows) == 3
    sent_or_zero = [reason for name, reason in rows.items() if ".body." in name]
    assert sorted(sent_or_zero) == ["", "", "all weights are zero"], "lora_B begins at zero"


def small_llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=128, num_key_value_heads=2, pad_token_id=0, **sizes)
    ).eval()


@pytest.mark.parametrize(
    "options",
    [{"do_sample": False}, {"do_sample": False, "num_beams": 2}, {"do_sample": True, "top_k": 5}],
    ids=str,
)
def test_llama_generates_the_same_tokens_with_its_cache(session, options):
    plain = small_llama()
    prompts = torch.randint(1, 128, (64, 5))
    told = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 4, "min_new_tokens": 4, **options}

    def generate(model):
        torch.manual_seed(3)
        return model.generate(prompts, **told)

    want = generate(plain)
    assert torch.equal(generate(session.protect(copy.deepcopy(plain))), want)
    calls = {row.shape.split()[0] for row in session.report().rows if row.offloaded}
    rows = 64 * options.get("num_beams", 1)
    assert any(shape.startswith(f"{rows}x1x") for shape in calls), "steps with the cache are sent"


def test_few_sequences_generate_in_the_tee_and_the_report_says_so(session):
    model = session.protect(small_llama())
    prompts = torch.randint(1, 128, (2, 5))
    model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=3, do_sample=False)
    report = session.report()
    assert (report.offloaded_flops, report.bytes_sent) == (0, 0)
    assert "fewer than 64 rows" in {row.reason for row in report.rows}


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_lightning_in_bfloat16_with_an_average_of_the_weights(session, tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    from torch.optim.swa_utils import get_ema_avg_fn
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(1)
    data = TensorDataset(torch.randn(384, 64), torch.randint(8, (384,)))

    def train(model):
        average = pl.callbacks.WeightAveraging(avg_fn=get_ema_avg_fn(0.5))
        trainer = pl.Trainer(
            max_epochs=1,
            precision="bf16-mixed",
            accelerator="cpu",
            logger=False,
            callbacks=[average],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, DataLoader(data, batch_size=96))
        return [p.detach().clone() for p in model.parameters()]

    torch.manual_seed(0)
    want, got = train(Module()), train(session.protect(Module()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)
    assert sent(session) == {"net.0", "net.2"}
