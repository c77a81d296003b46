"""The references without a network: what stands in, what is disjoint, and that training happens once."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tempo.attacks.reference import REFERENCES, texts, train
from tempo.attacks.reference.images import _adam, cnn, cross_entropy, kinds, mlp
from tempo.attacks.reference.text import SmallGpt
from tempo.attacks.reference.train import trained
from tempo.demo import data
from tempo.errors import DataError


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, an empty cache, and few steps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def nowhere(*_, **__):
        raise DataError("no network.")

    monkeypatch.setattr(data, "mnist", nowhere)
    monkeypatch.setattr("tempo.fetch.Package.cached", nowhere)


@pytest.fixture
def few(monkeypatch):
    """Training of two steps: what is trained does not matter here."""
    short = lambda *args, **options: trained(*args[:4], 2, **options)  # noqa: E731
    monkeypatch.setattr("tempo.attacks.reference.images.trained", short)
    monkeypatch.setattr("tempo.attacks.reference.text.trained", short)


def test_names():
    assert list(REFERENCES) == ["images", "mlp", "head", "steps", "kinds", "finetune", "text"]


@pytest.mark.parametrize("make", [cnn, mlp])
def test_digits_stand_in_and_the_halves_are_disjoint(make, few):
    said = []
    subject = make(said.append)
    assert any("NOTICE" in text for text in said)
    secret = torch.cat([x.flatten(1) for x, _ in subject.batches])
    public = torch.cat([subject.public.inputs.flatten(1), *(x.flatten(1) for x, _ in subject.public.decoys)])
    assert not (torch.cdist(secret, public) == 0).any()
    start, late = (len(phase.batches) for phase in subject.phases)
    assert 1 <= start == late / 2
    start, late = (phase.state for phase in subject.phases)
    assert any(not torch.equal(start[name], late[name]) for name in start)


def test_batches_of_one_kind(few):
    subject = kinds(lambda text: None)
    for _, labels in subject.batches:
        assert len(labels.unique()) == 1
    assert len({int(labels[0]) for _, labels in subject.batches}) == 2
    assert sorted(subject.public.labels.unique().tolist()) == [0, 1]


def test_sonnets_stand_in(few):
    said = []
    subject = REFERENCES["text"](said.append)
    assert "sonnets" in subject.title
    assert any("NOTICE" in text for text in said)
    assert [phase.training for phase in subject.phases] == [False, True]
    state = subject.model.state_dict()
    assert all(torch.equal(w, state[name]) for name, w in subject.public.weights.items())


def test_there_are_as_many_sonnets_as_there_should_be():
    found = texts.sonnets()
    assert len(found) == 154
    assert found[17].startswith("Shall I compare thee to a summer's day?")


def test_labelled_texts_stand_in_for_mails():
    name, lines, labels = texts.mails(lambda text: None, 50)
    assert (len(lines), sum(labels)) == (100, 50)
    assert "sonnets" in name


def test_mails_are_read_without_their_headers(monkeypatch):
    def mail(group, text):
        return json.dumps({"group": group, "text": text}).encode()

    body = "word " * 40
    found = [
        ("x", mail("spam-1", f"From: a\n\n<p>{body}</p>")),
        ("x", mail("easy-ham-2", f"To: b\n\n{body}end")),
        ("x", mail("easy-ham-2", "To: b\n\nshort")),
    ]
    assert list(texts._mails(iter(found))) == [(1, body.strip()), (0, f"{body}end")]
    with pytest.raises(DataError, match="no e-mail"):
        list(texts._mails(iter([("x", b"[]")])))


def test_a_pre_trained_model_has_no_stand_in():
    with pytest.raises(DataError):
        texts.minilm(lambda text: None)


def test_training_happens_once(tmp_path):
    said = []

    def made(steps=3):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        trained(
            model,
            cross_entropy,
            lambda generator: (torch.randn(8, 4, generator=generator), torch.zeros(8, dtype=torch.int64)),
            _adam,
            steps,
            what="toy",
            settings={"sizes": [4, 2]},
            say=said.append,
            cache=tmp_path,
        )
        return model.weight.detach()

    first = made()
    assert torch.equal(made(), first)
    assert len(said) == 1
    assert not torch.equal(made(steps=4), first)
    (path, other) = sorted(tmp_path.iterdir())
    path.write_bytes(b"damaged")
    other.write_bytes(b"damaged")
    assert torch.equal(made(), first)


def test_a_cache_of_another_model_is_not_loaded(tmp_path):
    model = nn.Linear(4, 2)
    train._save(tmp_path / "x.npz", {"weight": torch.ones(3, 3)}, print)
    assert train._load(tmp_path / "x.npz", model) is None


def test_the_language_model_looks_back_only():
    torch.manual_seed(0)
    model = SmallGpt(50)
    tokens = torch.randint(0, 50, (2, 20))
    other = tokens.clone()
    other[:, 12:] = 0
    assert torch.allclose(model(tokens)[:, :12], model(other)[:, :12], atol=1e-5)
