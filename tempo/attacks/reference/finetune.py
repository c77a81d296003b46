"""A pre-trained MiniLM (BERT) fine-tuned on real e-mails, wanted or not. Its first weights are public.

The class is read from the first token's state (CLS pooling). Three of its six layers leave the TEE (the
first, one in the middle and the last), which keeps recordings small; a layer is four products of 384 x 384
and two of 384 x 1536.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.reference.subject import Batch, Phase, Public, Subject, state_of
from tempo.attacks.reference.texts import mails, minilm
from tempo.attacks.reference.train import trained
from tempo.errors import UsageError
from tempo.fetch import Say

_LENGTH: Final = 64
#: Of a text: more than its first tokens need.
_CHARACTERS: Final = 2000
_BATCH: Final = 8
_EACH: Final = 600
_STEPS: Final = 30
_RUNS: Final = 3
_DECOYS: Final = 9
_PUBLIC: Final = 256
_KEPT: Final = tuple(f"bert.encoder.layer.{number}" for number in (1, 3, 4))


@final
class Classifier(nn.Module):
    """tokens (B, L) int64, zero where there is none -> logits (B, 2)."""

    def __init__(self, bert: nn.Module, width: int) -> None:
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.bert(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state
        out: Tensor = self.head(states[:, 0])
        return out


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """batch: (tokens, labels)."""
    tokens, labels = batch
    return F.cross_entropy(model(tokens), labels)


def fine_tuned(say: Say) -> Subject:
    """Raises DataError without network, UsageError without transformers."""
    model, tokenizer = _pretrained(say)
    name, texts, labels = mails(say, _EACH)
    tokenizer.enable_truncation(_LENGTH)
    tokenizer.enable_padding(length=_LENGTH)
    x = torch.tensor([encoded.ids for encoded in tokenizer.encode_batch([t[:_CHARACTERS] for t in texts])])
    y = torch.tensor(labels)
    half = len(x) // 2
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    secret, public = order[:half], order[half:]

    def take(picked: Tensor) -> Batch:
        return x[picked], y[picked]

    def draw(generator: torch.Generator) -> Batch:
        return take(secret[torch.randint(half, (2 * _BATCH,), generator=generator)])

    weights = state_of(model)
    settings = {"data": name, "count": len(x), "length": _LENGTH, "batch": _BATCH}
    trained(model, loss, draw, _adam, _STEPS, what="finetune", settings=settings, say=say)
    run = [take(part) for part in secret.split(_BATCH)[:_RUNS]]
    given = public[:_PUBLIC]
    decoys = [take(part) for part in public[_PUBLIC:].split(_BATCH)[:_DECOYS] if len(part) == _BATCH]
    model.eval()  # dropout off: the same tokens give the same states
    return Subject(
        name="finetune",
        title=f"MiniLM fine-tuned on {name}",
        model=model,
        loss=loss,
        phases=(Phase(tuple(run)),),
        public=Public(weights, x[given], y[given], tuple(decoys)),
        optimizer=_adam,
        keep=_KEPT,
    )


def _pretrained(say: Say) -> tuple[nn.Module, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched from there
    try:
        transformers = importlib.import_module("transformers")
        tokenizers = importlib.import_module("tokenizers")
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise UsageError(
            "the reference finetune needs transformers: pip install transformers==5.23.0"
        ) from error
    encoder = minilm(say)
    config = transformers.BertConfig(**encoder.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bert = transformers.BertModel(config, add_pooling_layer=False)
        model = Classifier(bert, config.hidden_size)
    state = safetensors.load(encoder.weights)
    wanted = bert.state_dict()
    bert.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    missing = sorted(name for name in wanted if name not in state and name.endswith("weight"))
    if missing:
        raise UsageError(f"MiniLM's file lacks {missing[0]}: another version of transformers is installed")
    return model, tokenizers.Tokenizer.from_str(encoder.tokenizer)


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=5e-5)
