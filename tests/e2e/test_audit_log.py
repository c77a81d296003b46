"""A session's audit log, with a worker that lies: the failure is entered before the run goes on."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tempo
from tempo.errors import OutsideError
from tempo.fleet import Event, EventKind, ProcessWorker
from tempo.trust.ledger import Kind, Ledger, Signer, read_verified
from tempo.trust.ledger.session_log import EACH, SessionLog
from tempo.worker import Lie

pytestmark = pytest.mark.security


def step(model):
    torch.manual_seed(2)
    loss = F.cross_entropy(model(torch.randn(96, 64)), torch.randint(0, 10, (96,)))
    loss.backward()
    return loss.item()


def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 80), nn.SiLU(), nn.Linear(80, 64), nn.SiLU(), nn.Linear(64, 10))


def crew():
    return [ProcessWorker("liar", unsafe_lie=Lie.parse("flip_entry:0:1"))]


def test_a_lie_is_in_the_log_and_the_log_is_whole(tmp_path):
    signer = Signer.generate("example.org/run")
    with (
        Ledger.create(tmp_path / "log", signer) as ledger,
        tempo.Session(crew(), ledger=ledger, probes=3) as session,
    ):
        model = session.protect(make())
        step(model)
        assert session.report().checks_failed == 1
        # On disk already, not only at the end.
        kinds = [e.kind for e in read_verified(tmp_path / "log", signer.verifier).entries]
        assert Kind.INTEGRITY_FAILURE in kinds
    entries = read_verified(tmp_path / "log", signer.verifier).entries
    assert [e.kind for e in entries[:3]] == [Kind.LOG_OPENED, Kind.SESSION_OPENED, Kind.CONFIGURATION]
    assert entries[1].fields["workers"] == ["liar"]
    assert entries[2].fields == {"scheme": "mixing", "probes": 3}
    failure = next(e for e in entries if e.kind is Kind.INTEGRITY_FAILURE)
    assert failure.fields["worker"] == "liar"
    assert entries[-1].kind is Kind.SESSION_CLOSED
    assert entries[-1].fields["checks_failed"] == 1


def test_nothing_goes_on_without_the_log(tmp_path, monkeypatch):
    """The disk is full when the lie is found: the step ends with an error, and no gradient was changed."""
    signer = Signer.generate("example.org/run")
    with Ledger.create(tmp_path / "log", signer) as ledger, tempo.Session(crew(), ledger=ledger) as session:
        model = session.protect(make())

        def full(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutsideError, match="audit log"):
            step(model)
        monkeypatch.undo()
        assert all(p.grad is None for p in model.parameters())


def test_a_worker_cannot_fill_the_disk(tmp_path):
    signer = Signer.generate("example.org/run")
    with Ledger.create(tmp_path / "log", signer) as ledger:
        log = SessionLog(ledger, "1", {"scheme": "mixing"}, ["w"])
        log._entered["w", False] = EACH - 1
        for _ in range(5):
            log.event(Event(EventKind.LOST, "w", "gone"))
            log.event(Event(EventKind.HEDGED, "v", "slow"))
        log.close({"checks": 1})
        log.close({"checks": 1})
    entries = read_verified(tmp_path / "log", signer.verifier).entries
    assert [e.kind for e in entries].count(Kind.WORKER_EVENT) == 1
    assert entries[-1].fields == {"checks": 1, "only_counted_lost": 4, "only_counted_hedged": 5}
