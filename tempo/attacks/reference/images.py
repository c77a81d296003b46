"""From scratch on real images (MNIST; without network scikit-learn's digits): a small CNN and a perceptron.

    cnn   1x28x28
          stem  3x3 stride 2, 64 channels, ReLU   14x14   stays: it works on the raw image
          one   3x3, ReLU                         14x14   Winograd
          two   3x3, ReLU, average of 2x2          7x7    Winograd
          three 1x1, ReLU                          7x7
          head  linear to 10                              stays: its gradient gives labels away

    mlp   784-256-256-256-10, ReLU; everything but the head leaves, the first layer too
    head  the same with the head offloaded against better advice: what attack 3 shows
    steps the same late in training, one batch to a step: what a known candidate is recognised by
    kinds the same, asked only, with batches of one kind of image each

Each is run at its random start and late in training. One half of the training images is secret, the other is
what the attacker has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.reference.subject import RATE, Batch, Phase, Public, Subject, sgd, state_of
from tempo.attacks.reference.train import trained
from tempo.demo.data import ImageSet, load_images
from tempo.fetch import Say

_TRAIN_BATCH: Final = 64
#: Images of the public half that the attacker is given.
_PUBLIC: Final = 8192
_DECOYS: Final = 24
#: Many small steps, each of which is a trial, and batches that were not run.
_STEPS: Final = 64
_OTHERS: Final = 96
#: Two that look alike.
_KINDS: Final = (3, 8)
_KIND_BATCH: Final = 64
_KIND_RUNS: Final = 80


@final
class SmallCnn(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.three = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(F.relu(self.stem(x))))
        x = F.avg_pool2d(F.relu(self.two(x)), 2)
        x = F.relu(self.three(x))
        return cast(Tensor, self.head(F.adaptive_avg_pool2d(x, 2).flatten(1)))


def perceptron(inputs: int, width: int, classes: int) -> nn.Module:
    """Three hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """batch: (inputs, labels)."""
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def cnn(say: Say) -> Subject:
    """Raises DataError."""
    images = load_images(None, say)
    return _subject("images", "a small CNN", SmallCnn, (64, images.classes), images, 64, 150, 1, say)


def mlp(say: Say) -> Subject:
    """Raises DataError."""
    images = load_images(None, say)
    sizes = (images.train_x[0].numel(), 256, images.classes)
    subject = _subject("mlp", "a perceptron", perceptron, sizes, images, 256, 300, 6, say)
    # Two batches add up to one step, so that two X meet the same W.
    phases = tuple(replace(phase, micro=2) for phase in subject.phases)
    return replace(subject, phases=phases)


def steps(say: Say) -> Subject:
    """Raises DataError."""
    subject = mlp(say)
    run, decoys = (
        _smaller(batches)[:most]
        for batches, most in ((subject.batches, _STEPS), (subject.public.decoys, _OTHERS))
    )
    return replace(
        subject,
        name="steps",
        title=f"{subject.title}, late steps of one batch each",
        phases=(Phase(run, subject.phases[-1].state),),
        optimizer=_slow,
        public=replace(subject.public, decoys=decoys),
    )


def head(say: Say) -> Subject:
    """Raises DataError."""
    subject = mlp(say)
    last = [name for name, module in subject.model.named_modules() if isinstance(module, nn.Linear)][-1]
    return replace(
        subject,
        name="head",
        title=f"{subject.title}, its last layer offloaded against better advice",
        unsafe_offload=(last,),
        options={"min_size": 8, "unsafe_small": True},
    )


def kinds(say: Say) -> Subject:
    """Raises DataError."""
    subject = mlp(say)
    images = load_images(None, say)
    halves = [_of_kind(images, kind) for kind in _KINDS]
    # One kind and the other, in turns.
    batches = [
        (x, torch.full((len(x),), kind))
        for parts in zip(*(secret.split(_KIND_BATCH) for secret, _ in halves), strict=False)
        for kind, x in zip(_KINDS, parts, strict=True)
    ]
    full = [batch for batch in batches if len(batch[0]) == len(batches[0][0])][:_KIND_RUNS]
    inputs = torch.cat([public for _, public in halves])
    labels = torch.cat([torch.full((len(public),), i) for i, (_, public) in enumerate(halves)])
    return replace(
        subject,
        name="kinds",
        title=f"{subject.title}, asked with batches of one kind of image",
        phases=(Phase(tuple(full), subject.phases[-1].state, training=False),),
        public=Public(inputs=inputs, labels=labels),
    )


def _slow(parameters: Any) -> torch.optim.Optimizer:
    """A rate as schedules end with: over many steps W stays near the candidate's."""
    return torch.optim.SGD(parameters, lr=RATE / 100)


def _smaller(batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """As large as those of training."""
    return tuple(
        part
        for x, y in batches
        for part in zip(x.split(_TRAIN_BATCH), y.split(_TRAIN_BATCH), strict=True)
        if len(part[0]) == _TRAIN_BATCH
    )


def _of_kind(images: ImageSet, kind: int) -> tuple[Tensor, Tensor]:
    """Images of one kind: the secret half, and what the attacker has."""
    found = images.train_x[images.train_y == kind]
    secret, public = found.tensor_split(2)
    return secret, public[:_PUBLIC]


def _subject(
    name: str,
    title: str,
    make: Any,
    sizes: tuple[int, ...],
    images: ImageSet,
    batch: int,
    steps: int,
    runs: int,
    say: Say,
) -> Subject:
    """make(*sizes): the model. batch: images of a recorded one. runs: batches that are recorded at the start;
    late in training twice as many. Fewer where there are not so many images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = make(*sizes)
    half = len(images.train_x) // 2
    batch = min(batch, half // 8)
    order = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(1))
    secret, public = order[:half], order[half:]

    def take(picked: Tensor) -> Batch:
        return images.train_x[picked], images.train_y[picked]

    def draw(generator: torch.Generator) -> Batch:
        return take(secret[torch.randint(half, (_TRAIN_BATCH,), generator=generator)])

    start = state_of(model)
    settings = {"data": images.name, "sizes": sizes, "batch": _TRAIN_BATCH, "count": len(images.train_x)}
    trained(model, cross_entropy, draw, _adam, steps, what=name, settings=settings, say=say)
    late = state_of(model)
    whole = [part for part in secret.split(batch) if len(part) == batch]
    runs = min(runs, max(1, len(whole) // 3))
    run = [take(part) for part in whole[: 3 * runs]]
    few = public[: min(_PUBLIC, len(public) // 2)]
    decoys = public[len(few) :].split(batch)[:_DECOYS]
    x, y = take(few)
    return Subject(
        name=name,
        title=f"{title} from scratch on {images.name}",
        model=model,
        loss=cross_entropy,
        phases=(Phase(tuple(run[:runs]), start), Phase(tuple(run[runs:]), late)),
        public=Public(inputs=x, labels=y, decoys=tuple(take(part) for part in decoys if len(part) == batch)),
        optimizer=sgd,
    )


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=2e-3)
