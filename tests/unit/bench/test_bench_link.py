"""What a link carries, beside its bare transport."""

import math
import subprocess

import pytest

from tempo.bench import link
from tempo.bench.link import link_rates
from tempo.bench.timing import Repeats, Spread
from tempo.errors import WorkerLost
from tempo.fleet import DeviceWorker

TWICE = Repeats(2, 2, 0.0)


def spread(low: float) -> Spread:
    return Spread(low, 2 * low, 3 * low, 5)


def test_what_takes_longer_is_told_by_the_fastest_runs_and_never_nothing() -> None:
    assert spread(5.0).beyond(spread(3.0)) == 2.0
    assert spread(3.0).beyond(spread(5.0)) == pytest.approx(0.03)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started to echo."""
    begun: list[subprocess.Popen[bytes]] = []
    plain = subprocess.Popen

    def noted(*given: object, **options: object) -> subprocess.Popen[bytes]:
        begun.append(plain(*given, **options))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(link.subprocess, "Popen", noted)
    return begun


def test_rates_of_a_worker_and_of_the_bare_transport(started: list[subprocess.Popen[bytes]]) -> None:
    worker = DeviceWorker("cpu", name="w")
    worker.connect()
    found = link_rates([worker], 1 << 20, TWICE, bare=True)
    assert all(math.isfinite(rate) and rate > 0 for rate in (found.up, found.down, found.alone or 0.0))
    assert [each.returncode is None for each in started] == [False], "it has ended and was waited for"
    assert link_rates([worker], 1 << 20, TWICE, bare=False).alone is None
    assert len(started) == 1


@pytest.mark.parametrize("error", [WorkerLost("gone"), KeyboardInterrupt("gone")])
def test_what_went_wrong_is_what_is_told_and_no_process_is_left(
    error: BaseException, started: list[subprocess.Popen[bytes]]
) -> None:
    worker, jobs = DeviceWorker("cpu", name="w"), 0
    worker.connect()
    plain = worker.run

    def run(*given: object) -> object:
        nonlocal jobs
        jobs += 1
        if jobs > 5:
            worker.close()
            raise error
        return plain(*given)  # type: ignore[arg-type]

    worker.run = run  # type: ignore[assignment, method-assign]
    with pytest.raises(type(error), match="gone"):
        link_rates([worker], 1 << 16, TWICE, bare=True)
    assert [each.returncode is None for each in started] == [False]
