"""Workers held still: every thread of theirs has stopped when the master's next pass begins."""

import subprocess
import sys
import time
from pathlib import Path

from tempo.bench.quiet import WAIT, quiet
from tempo.stats import Stats

BUSY = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()\nspin()"


def states(pid: int) -> set[str]:
    found = Path(f"/proc/{pid}/task").glob("*/stat")
    return {each.read_text().rpartition(")")[2].split()[0] for each in found}


def test_threads_have_stopped_when_a_wait_is_over_and_go_on_in_the_next() -> None:
    stats = Stats()
    with subprocess.Popen([sys.executable, "-c", BUSY]) as worker:
        try:
            with quiet(stats, [worker.pid]):
                assert states(worker.pid) == {"T"}
                with stats.timed(WAIT):
                    assert until(worker.pid, running=True)
                    with stats.timed("check"):
                        assert states(worker.pid) == {"T"}
                assert states(worker.pid) == {"T"}
            assert until(worker.pid, running=True)
        finally:
            worker.kill()


def until(pid: int, *, running: bool) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if ("T" not in states(pid)) is running:
            return True
    return False
