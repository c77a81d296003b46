"""Model, loop, promises and pictures of the demo, without workers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tempo.demo import plots, promises
from tempo.demo import run as story
from tempo.demo.data import ImageSet, digits
from tempo.demo.diary import Diary
from tempo.demo.model import resnet
from tempo.demo.train import TrainResult, accuracy, train
from tempo.demo.workers import Killer
from tempo.fleet import Event, EventKind
from tempo.report import Report


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return digits()


def test_model_size_and_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = resnet(1, 10), resnet(1, 10, seed=0), resnet(1, 10, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert 100_000 <= sum(p.numel() for p in one.parameters()) <= 150_000
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert resnet(3, 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_training_repeats_and_learns(images: ImageSet) -> None:
    def once() -> TrainResult:
        seen: list[int] = []
        result = train(
            resnet(1, 10, width=16),
            images,
            steps=30,
            batch=32,
            seed=3,
            on_step=lambda step, loss: seen.append(step),
            test_count=200,
        )
        assert seen == list(range(30))
        return result

    first, second = once(), once()
    assert first.losses == second.losses
    assert first.accuracy == second.accuracy
    assert first.losses[-1] < 0.7 * first.losses[0]


def test_accuracy_counts_and_keeps_the_mode(images: ImageSet) -> None:
    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            at = [int((images.test_x - each).abs().sum((1, 2, 3)).argmin()) for each in x]
            return torch.nn.functional.one_hot(images.test_y[at], 10)

    model = Knows().train()
    assert accuracy(model, images, 20) == 1.0
    assert model.training


GOOD = promises.Kept(
    plain_losses=[2.0, 1.0],
    tempo_losses=[2.0, 1.0 + 1e-6],
    allowed_differences=[1e-6, 1e-5],
    plain_accuracy=0.97,
    tempo_accuracy=0.96,
    encodings_per_step=12,
    encodings_without_key_shift=24,
    lies_told=3,
    checks_failed=3,
    liar="worker-0",
    quarantined=["worker-0"],
    killed=True,
)


def test_promises_kept() -> None:
    assert promises.broken(GOOD) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tempo_losses": [2.0, 1.0 + 1.1e-5]}, "losses differ"),
        ({"tempo_losses": [2.0, float("nan")]}, "losses differ"),
        ({"tempo_losses": [2.0]}, "ended after 1 of 2"),
        ({"tempo_accuracy": 0.97 - promises.ACCURACY_BOUND - 1e-6}, "accuracies"),
        ({"encodings_per_step": 13}, "promised is half"),
        ({"encodings_per_step": 0}, "promised is half"),
        ({"lies_told": 0, "checks_failed": 0}, "never came to lie"),
        ({"checks_failed": 2}, "lied 3 times and was caught 2 times"),
        ({"checks_failed": 4}, "lied 3 times and was caught 4 times"),
        ({"quarantined": ["worker-1"]}, "was not quarantined"),
        ({"killed": False}, "no worker was killed"),
    ],
)
def test_promises_broken(change: dict[str, object], says: str) -> None:
    (found,) = promises.broken(dataclasses.replace(GOOD, **change))
    assert says in found


def test_killer_kills_once_between_forward_and_backward() -> None:
    killed: list[int] = []

    class Victim:
        def kill(self) -> None:
            killed.append(killer.step)

    model = torch.nn.Linear(2, 2)
    killer = Killer(Victim(), at=1)
    model.register_forward_hook(killer)
    model.eval()
    killer.step = 1
    model(torch.zeros(1, 2))
    assert killed == []
    model.train()
    for killer.step in range(3):
        y = model(torch.zeros(1, 2)).sum()
        assert bool(killed) == (killer.step >= 1)
        y.backward()
        model(torch.zeros(1, 2))
    assert killed == [1]


def outcome() -> story.Outcome:
    events = [Event(EventKind.CHECK_FAILED, "worker-0", "rows differ")]
    report = Report(
        scheme="mixing",
        key_shift=True,
        rows=[],
        encodings=24,
        encodings_without_key_shift=48,
        bytes_sent=10,
        bytes_received=20,
        checks=30,
        checks_failed=1,
        retries=1,
        local_fallbacks=0,
        quarantined=["worker-0"],
        seconds={"encode": 1.0, "wait": 0.5},
        events=events,
    )
    return story.Outcome(
        settings=story.Settings(steps=2),
        images="digits 8x8",
        parameters=118_474,
        plain=TrainResult([2.0, 1.0], 0.9, 1.0),
        exact=TrainResult([2.0, 1.0 + 2e-7], 0.9, 1.0),
        tempo=TrainResult([2.0, 1.0], 0.9, 2.0),
        report=report,
        encodings_per_step=12.0,
        encodings_without_key_shift=24.0,
        lies_told=1,
        lie_steps=[0],
        kill_step=1,
        seconds=3.0,
    )


def test_files_and_fields(tmp_path: Path) -> None:
    paths = story.write(outcome(), tmp_path / "out")
    assert [path.name for path in paths] == ["demo.json", "loss.png", "time.png", "encodings.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])
    fields = json.loads(paths[0].read_text())
    promised = (
        "plain_accuracy tempo_accuracy max_loss_difference encodings_per_step bytes_sent bytes_received"
    )
    promised += " encodings_without_key_shift checks checks_failed quarantined retries seconds"
    assert {"tempo", "verb", "machine", "commit", "rows", *promised.split()} <= set(fields)
    row = fields["rows"][1]
    assert (row["step"], row["plain_loss"], row["tempo_loss"]) == (1, 1.0, 1.0)
    assert row["allowed_difference"] == pytest.approx(100 * (2e-7 + 2**-24))


def test_pictures_of_next_to_nothing(tmp_path: Path) -> None:
    plots.loss_curves(tmp_path / "a.png", [1.0], [1.0], [0.1], lies=[], kill=None, subtitle="")
    plots.time_by_part(tmp_path / "b.png", {"wait": 0.0}, 1.0, "")
    plots.encodings(tmp_path / "c.png", 0, 0, "")


def test_diary_reads_each_event_once() -> None:
    class Watcher:
        said: list[str] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    made = outcome().report
    reports = iter([made, dataclasses.replace(made, encodings=36, encodings_without_key_shift=72)])
    diary = Diary(lambda: next(reports), Watcher())
    diary.after(0)
    diary.after(1)
    assert len(Watcher.said) == 1
    assert diary.lie_steps == [0]
    assert (diary.per_step(0), diary.per_step(1)) == (18.0, 36.0)
