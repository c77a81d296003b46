"""A small language model on real text, whose weights are public: first asked, then fine-tuned.

A decoder of GPT's form (pre-norm, causal attention, GELU) over words: 2 layers of width 128, contexts of 64
words. Trained on one part of Shakespeare's plays, published, and used on another part that is secret.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.reference.subject import Batch, Phase, Public, Subject, state_of
from tempo.attacks.reference.texts import plays
from tempo.attacks.reference.train import trained
from tempo.fetch import Say

_WIDTH: Final = 128
_LAYERS: Final = 2
_HEADS: Final = 4
_CONTEXT: Final = 64
#: The most frequent words; the rest is one word, number 0.
_WORDS: Final = 2048
_STEPS: Final = 200
_TRAIN_BATCH: Final = 32
_BATCH: Final = 8
#: Many requests meet one W.
_ASKED: Final = 12
_STEPPED: Final = 2
_PUBLIC: Final = 256
_DECOYS: Final = 24


@final
class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + cast(Tensor, self.down(F.gelu(self.up(self.norm2(x)))))


@final
class SmallGpt(nn.Module):
    """tokens (B, L) int64 -> logits (B, L, words)."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, _WIDTH)
        self.places = nn.Embedding(_CONTEXT, _WIDTH)
        self.blocks = nn.Sequential(*(Block(_WIDTH, _HEADS) for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, words)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        return cast(Tensor, self.head(self.norm(self.blocks(x))))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """batch: tokens (B, L + 1); the next word is to be named."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def language_model(say: Say) -> Subject:
    """Raises DataError."""
    name, raw = plays(say)
    words = re.findall(r"[a-z']+|[.,;:!?]", raw.lower())
    known = {word: i + 1 for i, (word, _) in enumerate(Counter(words).most_common(_WORDS - 1))}
    ids = torch.tensor([known.get(word, 0) for word in words])
    rows = ids[: len(ids) // (_CONTEXT + 1) * (_CONTEXT + 1)].view(-1, _CONTEXT + 1)
    # Nine parts made the public model, of the tenth one half is secret.
    cut = len(rows) * 9 // 10
    rest = rows[cut:][torch.randperm(len(rows) - cut, generator=torch.Generator().manual_seed(1))]
    secret, public = rest.tensor_split(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallGpt(_WORDS)

    def draw(generator: torch.Generator) -> Batch:
        return rows[torch.randint(cut, (_TRAIN_BATCH,), generator=generator)]

    settings = {"data": name, "count": len(rows), "sizes": [_WIDTH, _LAYERS, _HEADS, _CONTEXT, _WORDS]}
    trained(model, loss, draw, _adam, _STEPS, what="text", settings=settings, say=say)
    run = secret.split(min(_BATCH, len(secret) // (_ASKED + _STEPPED)))[: _ASKED + _STEPPED]
    size = len(run[0])
    given = public[: min(_PUBLIC, len(public) // 2)]
    decoys = [part for part in public[len(given) :].split(size)[:_DECOYS] if len(part) == size]
    return Subject(
        name="text",
        title=f"a small language model on {name}, its weights public",
        model=model,
        loss=loss,
        phases=(Phase(tuple(run[:_ASKED]), training=False), Phase(tuple(run[_ASKED:]))),
        public=Public(state_of(model), given[:, :-1], given[:, 1:], tuple(decoys)),
        optimizer=_adam,
    )


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)
