"""Watching a session: steps, scalars, one step's trace, the line; and that a failing teller ends alone."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tempo
from tempo.errors import UnsupportedError, UsageError
from tempo.trust.ledger import Kind, Ledger, Signer, read_verified
from tempo.watch import WatchSettings
from tempo.watch.bar import words


def parts(session: tempo.Session) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = session.protect(nn.Sequential(nn.Linear(64, 96), nn.SiLU(), nn.Linear(96, 64)))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        model(torch.randn(128, 64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def steps_in(text: str) -> int:
    return int(text.partition("\ntempo_steps_total ")[2].partition("\n")[0])


def test_steps_are_those_of_any_optimizer_and_counted_once() -> None:
    with tempo.Session("cpu") as session:
        assert steps_in(session.metrics()) == 0
        session.watch()
        session.watch()
        train(*parts(session), 3)
        assert steps_in(session.metrics()) == 3
    plain = nn.Linear(2, 2)
    train_plain = torch.optim.Adam(plain.parameters())
    plain(torch.ones(1, 2)).sum().backward()
    train_plain.step()
    assert steps_in(session.metrics()) == 3, "a closed session hears of no step"
    with pytest.raises(UsageError, match="closed"):
        session.watch()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "watch.every = 0"),
        ({"trace_step": True}, "watch.trace_step = True"),
        ({"progress": "yes"}, "watch.progress = 'yes'"),
        ({"metrics": 9464}, "watch.metrics = 9464"),
        ({"metrics": "9464"}, "HOST:PORT"),
        ({"metrics": "127.0.0.1:99999"}, "HOST:PORT"),
        ({"trace": "step.txt"}, r"\.json"),
        ({"colour": "red"}, "unknown setting watch.colour"),
    ],
)
def test_what_is_wrong_is_said_at_once(options: dict[str, object], says: str) -> None:
    with tempo.Session("cpu") as session:
        with pytest.raises(UsageError, match=says):
            session.watch(**options)
        session.watch()  # nothing is left behind


@pytest.mark.parametrize("which", [1, 2, 3])
def test_the_trace_of_one_step(which: int, tmp_path: Path) -> None:
    with tempo.Session("cpu") as session:
        session.watch(trace=tmp_path / "step.json", trace_step=which)
        model, optimizer = parts(session)
        train(model, optimizer, which - 1)
        assert (tmp_path / "step.json").exists() is False
        before = session.report().jobs["cpu-0"]
        train(model, optimizer, 1)
        jobs = session.report().jobs["cpu-0"] - before
        train(model, optimizer, 1)
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["otherData"]["title"] == f"step {which}"
    assert sum(e["name"] == "worker" for e in written["traceEvents"]) == jobs > 0


def test_a_step_that_never_ended_is_written_when_the_session_ends(tmp_path: Path) -> None:
    with tempo.Session("cpu") as session:
        session.watch(trace=tmp_path / "step.json", trace_step=1)
        parts(session)[0](torch.randn(128, 64))
    assert any(e["name"] == "worker" for e in json.loads((tmp_path / "step.json").read_text())["traceEvents"])


def test_a_teller_that_fails_ends_alone_and_the_log_says_so(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.WARNING, "tempo")
    with tempo.Session("cpu") as session:
        session.watch(trace=tmp_path / "no" / "folder.json", trace_step=1)
        train(*parts(session), 3)
        assert steps_in(session.metrics()) == 3
    (record,) = caplog.records
    assert record.getMessage().startswith("watch_ended: onestep tells no more: cannot write the timeline")


def test_scalars_are_what_a_step_added(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tempo.Session("cpu") as session:
        session.watch(tensorboard=tmp_path / "board", every=2)
        model, optimizer = parts(session)
        train(model, optimizer, 2)
        middle = session.report()
        train(model, optimizer, 3)
    events = accumulator.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    sent = events.Scalars("tempo/sent_bytes")
    assert [each.step for each in sent] == [2, 4]
    assert sent[0].value == middle.bytes_sent
    assert [e.value for e in events.Scalars("tempo/checks_failed_total")] == [0, 0]
    assert {"tempo/seconds", "tempo/jobs/cpu-0", "tempo/master_seconds/encode"} <= set(
        events.Tags()["scalars"]
    )
    assert all(each.value > 0 for each in events.Scalars("tempo/seconds"))


@pytest.mark.security
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_whatever_fails_at_the_end_workers_stop_and_what_must_be_said_is(
    error: Exception, tmp_path: Path, caplog, monkeypatch
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer").EventFileWriter
    close = writer.close

    def fails(self) -> None:
        close(self)
        raise error

    monkeypatch.setattr(writer, "close", fails)
    caplog.set_level(logging.WARNING, "tempo")
    heard: list[object] = []
    signer = Signer.generate("example.org/run")
    with Ledger.create(tmp_path / "audit", signer) as ledger:
        session = tempo.Session("local:1", ledger=ledger)
        session.at_close(heard.append)
        session.watch(tensorboard=tmp_path / "board")
        train(*parts(session), 1)
        if isinstance(error, OSError):
            session.close()
            (record,) = caplog.records
            assert record.getMessage().startswith("watch_ended: scalars tells no more: [Errno 28]")
        else:
            with pytest.raises(RuntimeError, match="a bug"):
                session.close()
    assert len(heard) == 1
    assert multiprocessing.active_children() == []
    assert read_verified(tmp_path / "audit", signer.verifier).entries[-1].kind == Kind.SESSION_CLOSED


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempo.watch.tellers.find_spec", lambda name: None)
    with (
        tempo.Session("cpu") as session,
        pytest.raises(UnsupportedError, match=r"pip install 'tempo-confidential\[tensorboard\]'"),
    ):
        session.watch(tensorboard=tmp_path)


def test_the_line_is_shown_on_a_terminal_alone(capsys) -> None:
    with tempo.Session("cpu") as session:
        session.watch(progress=True)
        train(*parts(session), 2)
        print("the script's own")
    printed = capsys.readouterr()
    assert printed.out == "the script's own\n"
    assert printed.err == ""


def test_the_line_on_a_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # as rich asks for it
    monkeypatch.setenv("COLUMNS", "200")
    with tempo.Session("cpu") as session:
        session.watch(progress=True)
        train(*parts(session), 2)
        print("the script's own")
    printed = capsys.readouterr()
    assert printed.out == "the script's own\n", "what is piped stays in its pipe"
    assert "2 steps" in printed.err
    assert "none failed, 1 workers" in printed.err


def test_failed_checks_are_loud_in_the_line() -> None:
    with tempo.Session("cpu") as session:
        figures = session._view.figures()
        session._stats.add("checks_failed", 3)
        assert ", 3 FAILED, " in words(figures, session._view.figures())


def test_a_file_says_what_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "tempo.toml"
    path.write_text('workers = "cpu"\n[watch]\ntrace = "step.json"\ntrace_step = 1\n')
    with tempo.Session.from_file(path) as session:
        train(*parts(session), 1)
    assert (tmp_path / "step.json").exists(), "beside the file"
    path.write_text('workers = "cpu"\n[watch]\nmetrics = "256.0.0.1:1"\n')
    from tempo.errors import OutsideError

    with pytest.raises(OutsideError, match="cannot be listened on"):
        tempo.Session.from_file(path)


def test_nothing_is_imported_that_is_not_asked_for() -> None:
    assert WatchSettings() == WatchSettings(every=1)
    import subprocess

    code = (
        "import sys, tempo\nwith tempo.Session('cpu') as s: s.watch()\n"
        "print([m for m in ('tensorboard', 'http.server', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "tensorboard" not in done.stdout
    assert "matplotlib" not in done.stdout
