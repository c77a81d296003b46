"""A planted attack and a tiny subject, to test the suite itself: the attack reads X' as if it were X."""

from __future__ import annotations

import os
import signal
import time
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tempo.attacks.attack import Attack, NothingToAttack
from tempo.attacks.knowledge import Nothing, PublicWeights
from tempo.attacks.reference.subject import Phase, Public, Subject
from tempo.attacks.score.scorer import Scorer
from tempo.attacks.suite.run import Watcher
from tempo.attacks.transcript import Transcript
from tempo.attacks.truth import Truth
from tempo.attacks.verdict import Trials


@final
class Reading(Attack[Nothing, dict[int, Tensor]]):
    """X' by its id, taken for X."""

    name = "reading"
    number = 0
    title = "Takes what it sees for what was meant"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "rows read right"
    compute = "none"

    def run(self, transcript: Transcript, knowledge: Nothing) -> dict[int, Tensor]:
        return {p.x_id: p.x for p in transcript.passes()}


@final
class ReadingScorer(Scorer[dict[int, Tensor]]):
    attack = Reading

    def score(self, guess: dict[int, Tensor], truth: Truth) -> dict[str, Trials]:
        values = [
            float(torch.allclose(got, true, atol=1e-3))
            for id_, x in guess.items()
            for got, true in zip(x, truth.of(id_).plain, strict=False)
        ]
        return {"X": Trials(values, 0.0, "no row of random numbers is right")}

    def pictures(self, guess: dict[int, Tensor], truth: Truth) -> list[tuple[str, Tensor, Tensor]]:
        id_ = min(guess)
        return [("X", guess[id_][:64], truth.of(id_).plain[:64])]


@final
class Greedy(Attack[PublicWeights, None]):
    """Wants public weights."""

    name = "greedy"
    number = 0
    title = "Wants what it is not given"
    adversary = "anyone"
    side_knowledge = "public weights"
    knowledge = PublicWeights
    metric = "none"
    compute = "none"

    def run(self, transcript: Transcript, knowledge: PublicWeights) -> None:
        raise NothingToAttack("no weight like these")


@final
class Slow(Attack[Nothing, None]):
    name = "slow"
    number = 0
    title = "Never ends"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "none"
    compute = "endless"

    def run(self, transcript: Transcript, knowledge: Nothing) -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue


@final
class Deaf(Attack[Nothing, None]):
    """As one that is deep in a library: no signal reaches it."""

    name = "deaf"
    number = 0
    title = "Hears no signal"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "none"
    compute = "endless"

    def run(self, transcript: Transcript, knowledge: Nothing) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(1000)


@final
class Fatal(Attack[Nothing, None]):
    """As one that runs out of memory."""

    name = "fatal"
    number = 0
    title = "Takes its process down"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "none"
    compute = "none"

    def run(self, transcript: Transcript, knowledge: Nothing) -> None:
        os._exit(9)


@final
class Faulty(Attack[Nothing, None]):
    name = "faulty"
    number = 0
    title = "Falls over"
    adversary = "anyone"
    side_knowledge = "none"
    knowledge = Nothing
    metric = "none"
    compute = "none"

    def run(self, transcript: Transcript, knowledge: Nothing) -> None:
        raise ValueError("shapes do not meet")


@final
class NoScorer(Scorer[None]):
    attack = Slow

    def score(self, guess: None, truth: Truth) -> dict[str, Trials]:
        return {}


@final
class Quiet(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.runs = 0
        self.finished = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, runs: int) -> None:
        self.runs = runs

    def running(self, what: str, limit_s: float = 0) -> None:
        pass

    def done(self, rows: object, pictures: object = ()) -> None:
        self.finished += 1


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(80, 64), nn.ReLU(), nn.Linear(64, 72), nn.ReLU(), nn.Linear(72, 10))


def batches_of(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(96, 80, generator=generator), torch.randint(0, 10, (96,), generator=generator))
        for _ in range(count)
    ]


def tiny(say: object = None) -> Subject:
    run = batches_of(6)
    return Subject(
        "tiny",
        "a tiny perceptron on noise",
        model_of(),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        (Phase(tuple(run[:1]), training=False), Phase(tuple(run[1:3]), micro=2)),
        Public(inputs=torch.cat([x for x, _ in run[3:]]), decoys=tuple(run[3:])),
    )
