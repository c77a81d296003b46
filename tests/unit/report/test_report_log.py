"""Every event has a line, with no secret in it; counters for Prometheus; and the red last word."""

import json
import logging
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tempo
from tempo.fleet import Event, EventKind, ProcessWorker
from tempo.report import JsonLines
from tempo.report.log import LEVELS, log_event
from tempo.trust.ledger import Kind, Ledger, Signer, read_verified
from tempo.trust.ledger.session_log import EACH, SessionLog
from tempo.trust.sealed import DataKey
from tempo.worker import Lie

#: Planted in weights, inputs, labels and paths: no line may hold it.
CANARY = 31337.0625


class Lines(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records, self.text = [], []
        self.setFormatter(JsonLines())

    def emit(self, record):
        self.records.append(record)
        self.text.append(self.format(record))


@pytest.fixture
def lines():
    logger, handler = logging.getLogger("tempo"), Lines()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def model():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 80), nn.SiLU(), nn.Linear(80, 64), nn.SiLU(), nn.Linear(64, 10))
    with torch.no_grad():
        net[0].weight[0, 0] = CANARY
    return net


def step(net):
    x = torch.randn(96, 64)
    x[3, 5] = CANARY
    F.cross_entropy(net(x), torch.randint(0, 10, (96,))).backward()


def liar():
    return ProcessWorker("liar", unsafe_lie=Lie.parse("flip_entry:0:1"))


def test_every_kind_of_event_has_a_level_and_a_line(lines):
    assert set(LEVELS) == set(EventKind)
    for kind in EventKind:
        log_event(Event(kind, "w0", "words"))
    got = [json.loads(text) for text in lines.text]
    assert [each["event"] for each in got] == [kind.value for kind in EventKind]
    assert all(each["worker"] == "w0" and each["detail"] == "words" for each in got)
    assert [r.levelno for r in lines.records] == [LEVELS[kind] for kind in EventKind]


def test_a_line_is_one_line(lines):
    log_event(Event(EventKind.LOST, "w\n0", 'a "quoted"\nword'))
    assert "\n" not in lines.text[0]
    logging.getLogger("tempo").warning("another %s", "library's")
    assert json.loads(lines.text[1])["message"] == "another library's"


def test_silent_unless_asked(capfd):
    with tempo.Session("cpu") as session:
        step(session.protect(model()))
    assert capfd.readouterr() == ("", "")


@pytest.mark.security
def test_a_whole_session_in_lines_and_no_planted_value_in_any(lines, tmp_path):
    key = DataKey.generate()
    folder = tmp_path / "canary-31337"
    folder.mkdir()
    with tempo.Session([liar()]) as session:
        net = session.protect(model())
        step(net)
        session.checkpoint(folder / "run", key, step=1, model=net, extra=[CANARY])
        assert session.resume(folder / "run", key, model=net).extra == [CANARY]
        metrics = session.metrics()
    events = [json.loads(text)["event"] for text in lines.text]
    assert events[0] == "session_opened"
    assert {"check_failed", "quarantined", "checkpoint_written", "checkpoint_resumed"} <= set(events)
    assert events[-1] == "session_closed"
    assert lines.records[-1].levelno == logging.ERROR
    everything = "\n".join([*lines.text, *(record.getMessage() for record in lines.records), metrics])
    for secret in ("31337", "canary", str(net[0].weight[1, 1].item())[:8], key.unsafe_bytes().hex()):
        assert secret not in everything


def test_the_last_word_is_red_and_says_what_to_do(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with tempo.Session([liar()]) as session:
        step(session.protect(model()))
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"\x1b\[1;31mINTEGRITY: 1 of \d+ checks failed\. Workers: liar\.", err)
    assert "What to do: take these workers out" in err


def test_no_last_word_after_an_honest_run(capfd):
    with tempo.Session("local:1") as session:
        step(session.protect(model()))
    assert capfd.readouterr().err == ""


SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\\n])*"(,[a-z]+="(\\.|[^"\\\n])*")*\})? [0-9.e+-]+')


def test_metrics_are_what_prometheus_reads():
    with tempo.Session([liar()]) as session:
        step(session.protect(model()))
        text, report = session.metrics(), session.report()
    assert text.endswith("\n")
    families = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families
            families[name] = kind
            assert (kind == "counter") == name.endswith("_total")
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            assert line.split("{")[0].split(" ")[0] == name
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(values["tempo_checks_total"]) == report.checks > 0
    assert int(values["tempo_checks_failed_total"]) == 1
    assert int(values['tempo_events_total{kind="check_failed"}']) == 1
    assert int(values["tempo_sent_bytes_total"]) == report.bytes_sent
    assert {f'tempo_events_total{{kind="{kind.value}"}}' for kind in EventKind} <= set(values)


def test_names_of_workers_are_escaped_in_metrics():
    worker = ProcessWorker('a"b\\c\nd')
    with tempo.Session([worker]) as session:
        text = session.metrics()
    assert r'tempo_jobs_total{worker="a\"b\\c\nd"} 0' in text


@pytest.mark.security
def test_every_kind_of_event_reaches_the_audit_log(tmp_path):
    """Entered, or counted at the end; and no number of other events keeps a failure out."""
    signer = Signer.generate("example.org/run")
    with Ledger.create(tmp_path / "log", signer) as ledger:
        log = SessionLog(ledger, "1", {"scheme": "mixing"}, ["w"])
        for kind in EventKind:
            log.event(Event(kind, "w", "once"))
        log._entered["w", False] = EACH
        log.event(Event(EventKind.LOST, "w", "one too many"))
        log.event(Event(EventKind.CHECK_FAILED, "w", "must be entered"))
        log.close({"checks": 1})
    entries = read_verified(tmp_path / "log", signer.verifier).entries
    entered = {e.fields["event"] for e in entries if "event" in e.fields}
    counted = {name.removeprefix("only_counted_") for name in entries[-1].fields}
    assert {kind.value for kind in EventKind} <= entered | counted
    failures = [e.fields["detail"] for e in entries if e.kind is Kind.INTEGRITY_FAILURE]
    assert failures[-1] == "must be entered"
