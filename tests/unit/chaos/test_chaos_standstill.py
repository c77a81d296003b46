"""The two looks at a failure notice a model that moved and a log that is ahead."""

import logging

import pytest

from tempo.chaos.standstill import Standstill, log_ahead
from tempo.chaos.training import Training
from tempo.errors import TamperedError
from tempo.trust.ledger import Kind, Ledger, Signer


@pytest.fixture
def seen():
    import torch

    training = Training(1, torch.float64)
    return training, Standstill([training])


def failure(event="check_failed"):
    return logging.makeLogRecord({"event": event, "msg": "w0: a check failed"})


def test_a_failure_in_the_middle_of_a_step_is_no_advance(seen):
    training, standstill = seen
    standstill.begin(7)
    standstill.emit(failure())
    standstill.emit(failure("protocol"))
    standstill.emit(failure("lost"))
    assert (standstill.failed, standstill.advanced) == ([7, 7], 0)
    training.step()
    standstill.begin(8)
    standstill.emit(failure())
    assert (standstill.failed, standstill.advanced) == ([7, 7, 8], 0)


@pytest.mark.parametrize("what", ["parameter", "momentum"])
def test_a_model_that_moved_is_noticed(seen, what):
    training, standstill = seen
    training.step()
    standstill.begin(2)
    moved = training.state()[0 if what == "parameter" else -1]
    moved.view(-1)[3] += 1e-12
    standstill.emit(failure())
    assert standstill.advanced == 1


def log(folder, *entries):
    signer = Signer.generate("chaos")
    with Ledger.create(folder, signer) as ledger:
        for step in entries:
            if step is None:
                ledger.append(Kind.INTEGRITY_FAILURE, event="check_failed", worker="w0", detail="")
            else:
                ledger.append(Kind.CHECKPOINT_WRITTEN, name="run", step=step)
    return signer.verifier


def test_a_log_that_is_ahead_is_noticed(tmp_path):
    key = log(tmp_path, 20, None, 40, None, None)
    assert log_ahead(tmp_path, key, [21, 41, 45]) == (3, 0)
    assert log_ahead(tmp_path, key, [21, 40, 45]) == (3, 1)
    assert log_ahead(tmp_path, key, [20, 40]) == (3, 3)


def test_a_log_that_was_altered_does_not_count(tmp_path):
    key = log(tmp_path, 20, None)
    path = tmp_path / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b"w0", b"w1"))
    with pytest.raises(TamperedError, match="entry 2"):
        log_ahead(tmp_path, key, [21])
