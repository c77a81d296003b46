"""Timelines: what is recorded, written and drawn, and that the parts of a real run overlap."""

import json
import threading

import pytest
import torch
from torch import nn

import tempo
from tempo.errors import OutsideError, UsageError
from tempo.trace import Span, Trace, chrome, lanes, overlap


def test_parts_nest_and_are_told_apart_by_thread():
    trace = Trace()
    trace.part("wait", True)
    trace.part("encode", True)
    trace.part("encode", False)
    trace.part("wait", False)
    trace.part("decode", False)  # began before the trace did
    thread = threading.Thread(target=lambda: [trace.part("check", b) for b in (True, False)], name="other")
    thread.start()
    thread.join()
    wait, encode, check = trace.spans
    assert [s.part for s in (wait, encode, check)] == ["wait", "encode", "check"]
    assert wait.start <= encode.start <= encode.end <= wait.end
    assert (encode.lane, check.lane) == (threading.current_thread().name, "other")
    assert wait.overlaps(encode) == pytest.approx(encode.seconds)
    assert encode.overlaps(check) == 0.0


def test_chrome_events_are_complete_and_say_bytes():
    spans = [Span("encode", "MainThread", 5.0, 0.25), Span("send", "w link", 5.5, 0.125, 77)]
    events = json.loads(json.dumps(chrome(spans)))["traceEvents"]
    named = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    encode, send = (e for e in events if e["ph"] == "X")
    assert (encode["ts"], encode["dur"], named[encode["tid"]]) == (0.0, 250_000.0, "MainThread")
    assert (send["ts"], send["dur"], send["args"]) == (500_000.0, 125_000.0, {"bytes": 77})
    assert lanes(spans) == ["MainThread", "w link"]


def test_overlap_is_the_masters_share():
    busy = [Span("encode", "MainThread", 0.0, 2.0), Span("decode", "MainThread", 3.0, 2.0)]
    # Two workers at once count once: 1 s of the first part and 1 s of the second.
    jobs = [Span("worker", "local-0", 1.0, 3.0), Span("worker", "local-1", 1.5, 2.0)]
    # Waiting and bytes on their way are no work.
    idle = [Span("wait", "MainThread", 2.0, 1.0), Span("send", "local-0 link", 5.0, 9.0)]
    assert overlap([*busy, *jobs, *idle]) == pytest.approx(0.5)
    assert overlap([]) == overlap(jobs) == 0.0


def test_a_full_trace_counts_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr("tempo.trace._MOST", 2)
    trace = Trace()
    for _ in range(5):
        trace.span("encode", "x", 0.0, 1.0)
    assert (len(trace.spans), trace.left_out) == (2, 3)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_drawn(tmp_path, suffix):
    trace = Trace()
    trace.span("encode", "MainThread", 0.0, 1.0)
    trace.span("worker", "w", 0.5, 2.0)
    trace.save(tmp_path / f"t{suffix}")
    assert (tmp_path / f"t{suffix}").stat().st_size > 1000


def test_a_bad_path_is_said_before_anything_runs(tmp_path, monkeypatch):
    with tempo.Session("cpu") as session:
        with pytest.raises(UsageError, match=r"\.json"), session.trace(tmp_path / "t.txt"):
            pytest.fail("it ran")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match="matplotlib"), session.trace(tmp_path / "t.png"):
            pytest.fail("it ran")
        with (
            session.trace(tmp_path / "a.json"),
            pytest.raises(UsageError, match="already"),
            session.trace(tmp_path / "b.json"),
        ):
            pytest.fail("it ran")
    with pytest.raises(OutsideError, match="cannot write"):
        Trace().save(tmp_path / "no" / "folder.json")


def step(layer, x, g):
    layer(x).backward(g)


def test_nothing_is_recorded_outside(tmp_path):
    layer, x = nn.Linear(128, 64), torch.randn(256, 128)
    with tempo.Session("cpu") as session:
        session.protect(layer)
        with session.trace(tmp_path / "t.json") as trace:
            step(layer, x, torch.randn(256, 64))
        count = len(trace.spans)
        step(layer, x, torch.randn(256, 64))
    assert len(trace.spans) == count > 0


def test_encoding_overlaps_the_workers_and_links_overlap_them_too(tmp_path):
    """Two worker processes and several chunks each: a later chunk is encoded while workers compute."""
    layer, x = nn.Linear(512, 1024), torch.randn(24_000, 512, requires_grad=True)
    g = torch.randn(24_000, 1024)
    with tempo.Session("local:2") as session:
        session.protect(layer)
        step(layer, x, g)
        with session.trace(tmp_path / "t.json") as trace:
            step(layer, x, g)
    spans = trace.spans
    parts = {part: [s for s in spans if s.part == part] for part in {s.part for s in spans}}
    assert {"encode", "decode", "check", "send", "worker", "receive"} <= parts.keys()
    assert {s.lane for s in parts["worker"]} == {"local-0", "local-1"}
    chunks = len(parts["worker"])
    assert len(parts["send"]) == len(parts["receive"]) == chunks
    assert chunks >= 2 * 2 * 3, "two or more chunks a worker, forward and backward"
    assert sum(s.nbytes for s in parts["send"]) >= x.nbytes + g.nbytes
    working = parts["worker"]
    for part in ("encode", "decode"):
        during = sum(max((s.overlaps(w) for w in working), default=0.0) for s in parts[part])
        assert during > 0.25 * sum(s.seconds for s in parts[part]), part
    # A later chunk is encoded while an earlier one is computed: it began later and ended earlier.
    assert any(e.start > w.start and e.end < w.end for e in parts["encode"] for w in working)
    # The next request is on its way while its worker computes.
    assert any(
        s.lane == f"{w.lane} link" and s.overlaps(w) > 0.5 * s.seconds for s in parts["send"] for w in working
    )
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == len(spans)
