"""Whatever the last layer is made of, it stays in the TEE, and the one before it does not."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tempo import Session
from tempo.errors import UsageError
from tempo.nn.classifier import classifier

LAST = "last weighted layer: its gradient gives away labels"
VOCABULARY = 96


class Tagger(nn.Module):
    """Embedding, a recurrent layer, a head: one module has a parameter of the name `weight` to send."""

    def __init__(self, recurrent: type[nn.RNNBase]) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 64)
        self.body = recurrent(64, 64, batch_first=True)
        self.head = nn.Linear(64, VOCABULARY)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.table(x))[0])


def reasons(session: Session) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in session.report().rows:
        found.setdefault(row.module, set()).add("" if row.offloaded else row.reason)
    return found


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_head_after_a_recurrent_layer(recurrent: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    with Session("cpu", unsafe_small=True, repeats=1.0) as session:
        model = session.protect(Tagger(recurrent))
        x = torch.randint(VOCABULARY, (32, 8))
        nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()
        found = reasons(session)
    assert found["head"] == {LAST}
    assert "" in found["body"]


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(module)


MADE = {
    "weight norm": parametrizations.weight_norm,
    "weight norm, the older": old_weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, the older": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("made", list(MADE.values()), ids=list(MADE))
def test_a_head_whose_weight_is_computed(made) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), made(nn.Linear(64, VOCABULARY)))
    before = copy.deepcopy(plain.state_dict())
    with Session("cpu", unsafe_small=True, repeats=1.0) as session:
        model = session.protect(plain)
        # Asking for the weight would have taken a step of the power iteration.
        assert all(
            torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
        )
        model(torch.randn(128, 64)).square().sum().backward()
        found = reasons(session)
    assert found["2"] == {LAST}
    assert found["0"] == {""}


def test_consent_is_asked_for_a_parametrised_layer_by_its_name() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(64, 64)), nn.Linear(64, VOCABULARY))
    with Session("cpu") as session, pytest.raises(UsageError, match=r"\b0\b(?!\.)"):
        session.protect(model, require={"shapes"})


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (nn.Linear(4, 4), None),
        (nn.LSTM(4, 4), None),
        (nn.MultiheadAttention(4, 1), None),
        (parametrizations.weight_norm(nn.Linear(4, 4)), None),
        (nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), "1"),
        (nn.Sequential(nn.Linear(4, 4), nn.GRUCell(4, 4), nn.LayerNorm(4)), "1"),
        (nn.Sequential(nn.LSTM(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4)), "2"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.Linear(4, 4), nn.ReLU())), "1.0"),
    ],
)
def test_the_last_of_several(model: nn.Module, last: str | None) -> None:
    assert classifier(dict(model.named_modules())) == last
