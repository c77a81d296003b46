"""Watching a session, stopping its workers, the timeline, the passes; calibration against what is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tempo.bench import calibrate, clear
from tempo.bench.baselines import Step
from tempo.bench.clear import unprotected
from tempo.bench.counted import Counted
from tempo.bench.crew import Crew
from tempo.bench.layers import LinearCase, layer_step
from tempo.bench.passes import Passes, memcpys_per_element
from tempo.bench.protected import Bench
from tempo.bench.quiet import Hush, quiet, waited
from tempo.bench.timing import Repeats
from tempo.bench.trace import Tracer
from tempo.config import Config
from tempo.errors import UsageError
from tempo.facade import Session
from tempo.fleet import Worker
from tempo.lowering import lower_conv
from tempo.stats import Stats

ONCE = Repeats(1, 1, 0.0)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(pid: int, states: str) -> None:
    end = time.monotonic() + 10
    while state(pid) not in states:
        assert time.monotonic() < end, f"the process is {state(pid)}, not {states}"
        time.sleep(0.005)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()


def test_workers_are_stopped_while_the_master_works(sleeper: int) -> None:
    stats = Stats()
    with quiet(stats, [sleeper]), stats.timed("wait"):
        until(sleeper, "SR")
        with stats.timed("encode"):
            until(sleeper, "T")
            with stats.timed("keys"):
                until(sleeper, "T")
            until(sleeper, "T")
        until(sleeper, "SR")
    assert waited(stats.seconds) == stats.seconds["wait"] > 0


def test_workers_are_still_between_the_parts_of_the_masters_work(sleeper: int) -> None:
    stats = Stats()
    with quiet(stats, [sleeper]) as hush:
        until(sleeper, "T")
        with stats.timed("encode"):
            until(sleeper, "T")
        until(sleeper, "T")
        assert hush.seconds == 0
        with stats.timed("wait"):
            until(sleeper, "SR")
        until(sleeper, "T")
        assert 0 < hush.seconds < 1
    until(sleeper, "SR")


def test_workers_go_on_after_an_error(sleeper: int) -> None:
    def broken() -> None:
        with quiet(Stats(), [sleeper]):
            os.kill(sleeper, signal.SIGSTOP)
            until(sleeper, "T")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    until(sleeper, "SR")


def test_a_worker_that_died_is_no_fault_of_the_bench() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    hush = Hush([process.pid])
    hush("encode", True)
    hush("encode", False)


def test_the_watcher_hears_begin_and_end_in_order() -> None:
    stats, heard = Stats(), []
    stats.watch(lambda part, begins: heard.append((part, begins)))
    with stats.timed("wait"), stats.timed("check"):
        pass
    stats.watch(None)
    with stats.timed("encode"):
        pass
    assert heard == [("wait", True), ("check", True), ("check", False), ("wait", False)]


def test_the_first_step_is_traced_and_written(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "t.json")
    with pytest.raises(UsageError, match="no step was traced"):
        tracer.write()
    with Session("cpu") as session:
        layer = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
        stats, fleet = session._stats, session._fleet
        with tracer.step("nothing", stats, fleet):
            pass
        assert not tracer.done
        with tracer.step("one layer", stats, fleet):
            layer(torch.randn(128, 64)).sum().backward()
    assert tracer.done
    tracer.write()
    written = json.loads((tmp_path / "t.json").read_text())
    assert {"encode", "worker", "decode"} <= {e["name"] for e in written["traceEvents"]}
    assert written["otherData"]["title"] == "one layer"
    with pytest.raises(UsageError, match=r"\.json"):
        Tracer(tmp_path / "t.gif")


@pytest.mark.parametrize("scheme", ["mixing", "monomial"])
def test_the_passes_are_those_of_the_engine(scheme: str) -> None:
    passes = Passes(Config(scheme=scheme), 1, 256, 128, 96)
    sealed = passes.encode().work()
    assert isinstance(sealed, torch.Tensor)
    assert sealed.shape == (256, 128)
    assert not torch.allclose(sealed, passes.x[0])
    decode = passes.decode()
    decode.work()
    out = next(c.cell_contents for c in decode.work.__closure__ if _is(c.cell_contents, passes.x.shape))
    torch.testing.assert_close(out, passes.x, rtol=1e-4, atol=1e-4)
    for each in passes.checks().values():
        if each.prepare is not None:
            each.prepare()
        each.work()  # raises IntegrityError if the true reply were refused


def _is(value: object, shape: torch.Size) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == shape


def test_convolutions_are_lowered_and_encoded() -> None:
    lowering = lower_conv((2, 64, 16, 16), (64, 64, 3, 3), padding=1)
    shape = lowering.shape
    passes = Passes(Config(), shape.groups, shape.rows, shape.k, shape.n)
    each = passes.encode_lowered(lowering, torch.randn(2, 64, 16, 16))
    sealed = each.work()
    assert isinstance(sealed, torch.Tensor)
    assert sealed.numel() == passes.x.numel() == shape.groups * shape.rows * shape.k
    took, memcpy = each.beside_copy(passes.x, Repeats(2, 2, 0.0))
    assert 0 < memcpy.low <= memcpy.median <= memcpy.high
    assert took.count == memcpy.count == 2


def test_memcpys_per_element_is_a_cost() -> None:
    assert 0.5 < memcpys_per_element(Config(), (1, 256, 128, 192), ONCE, copy=1e9) < 10_000


def test_constants_of_a_worker_process() -> None:
    crew = Crew.parse("1")
    workers = crew.start()
    try:
        known = calibrate.constants(crew, workers, calibrate.SMALL)
        step, lowering = layer_step(LinearCase(256, 128, 192))
        weight = next(step.module.parameters()).detach()
        assert step.dy is not None
        plain = unprotected(workers, lowering, step.x.detach(), weight, step.dy, ONCE)
    finally:
        for worker in workers:
            worker.close()
    assert known.alone is not None
    assert 1e6 < known.up < 1e12
    assert 1e6 < known.worker_flops < 1e14
    assert "fp32" in known.tee_flops
    # X, W and dY go, Y, dX and dW come: headers beside them are small.
    sent, received = 4 * (256 * 128 + 128 * 192 + 256 * 192), 4 * (256 * 192 + 256 * 128 + 192 * 128)
    assert sent < plain.sent < sent + 2000
    assert received < plain.received < received + 2000


def test_rows_in_the_clear_are_cut_as_the_engine_cuts_them() -> None:
    _, lowering = layer_step(LinearCase(8192, 512, 512))
    assert clear._ways(2, lowering)[0] == [(0, 4096, 0), (4096, 8192, 1)]
    _, lowering = layer_step(LinearCase(16384, 512, 512))
    for way in clear._ways(1, lowering):
        ends = sorted((lo, hi) for lo, hi, _ in way)
        assert [lo for lo, _ in ends] == [0, *(hi for _, hi in ends[:-1])]
        assert ends[-1][1] == 16384
    assert len(way) > 1


class _Deep(Worker):
    """Counts how many jobs were under way at once."""

    name, depth = "deep", 2
    bytes_sent = bytes_received = 0

    def __init__(self) -> None:
        self.open, self.most, self.ops = 0, 0, []

    def connect(self) -> None: ...

    def run(self, job, ship, deadline):
        raise AssertionError("one after the other is a slower baseline than Tempo has")

    def begin(self, job, ship, deadline) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        self.ops.append(job.op.value)

    def end(self, deadline):
        self.open -= 1

    def release(self, ids, deadline) -> None:
        assert self.open == 0

    def close(self) -> None: ...


def test_the_clear_baseline_keeps_two_jobs_under_way() -> None:
    step, lowering = layer_step(LinearCase(128, 64, 64))
    worker, weight = _Deep(), next(step.module.parameters()).detach()
    assert step.dy is not None
    unprotected([worker], lowering, step.x.detach(), weight, step.dy, ONCE)
    assert worker.most == 2
    assert worker.ops == ["product", "grad_w", "grad_x"] * 2  # a warm one and a timed one


def test_what_is_watched_is_as_deep_as_the_worker() -> None:
    """Else Tempo itself would be measured with one job under way."""
    worker = _Deep()
    watched = Counted(worker)
    assert watched.depth == 2
    step, lowering = layer_step(LinearCase(128, 64, 64))
    assert step.dy is not None
    weight = next(step.module.parameters()).detach()
    unprotected([watched], lowering, step.x.detach(), weight, step.dy, ONCE)
    assert watched.flops == 2 * 3 * lowering.flops


def test_a_protected_step_is_measured_and_the_layer_left_plain() -> None:
    step, lowering = layer_step(LinearCase(256, 128, 192))
    with Bench(Crew.parse("1"), scheme="mixing") as bench:
        found = bench.measure(step, Repeats(2, 2, 0.0))
        assert bench.session.report().checks_failed == 0
    assert "forward" not in step.module.__dict__
    assert found.flops == 3 * lowering.flops
    assert found.seconds.count == found.master.count == 2
    assert 0 < found.check < found.seconds.high
    assert 0 < found.passes <= found.master.high * 1.5
    assert found.sent > 4 * 256 * (128 + 192)


def test_a_step_in_inference_keeps_the_weights_epoch() -> None:
    step = Step(torch.nn.Linear(128, 128), torch.randn(128, 128))
    version = step.module.weight._version
    step.run()
    step.prepare()
    assert step.module.weight._version == version
    trained, _ = layer_step(LinearCase(64, 64, 64))
    before = trained.module.weight._version
    trained.run()
    trained.prepare()
    assert trained.module.weight._version > before
    assert trained.module.weight.grad is None
    assert trained.x.grad is None
