"""Workers that Ray keeps alive: endpoints are printed, a session trains on them, a killed one comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")

import torch
from torch import nn

import tempo
from tempo.wire.authority import issue, make_authority

ROOT = Path(__file__).resolve().parents[2]


def told(process, count, seconds=120):
    """The next line that names so many workers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line = process.stdout.readline()
        if line and len(found := json.loads(line)["workers"]) == count:
            return found
    raise AssertionError("the workers did not come")


def pids_of_workers(parent_words):
    """Processes of `tempo worker` with these words on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"worker" in words and parent_words.encode() in words:
                found.append(int(folder.name))
    return found


@pytest.mark.timeout(280)
def test_a_session_trains_on_workers_that_ray_keeps_alive(tmp_path):
    make_authority(tmp_path)
    worker, master = issue(tmp_path, "gpu", "worker", ["127.0.0.1"]), issue(tmp_path, "m", "master")
    command = [sys.executable, str(ROOT / "deploy/ray/workers.py"), "--count", "2", "--device", "cpu"]
    command += ["--cert", str(worker.cert), "--key", str(worker.key), "--ca", str(worker.ca)]
    command += ["--host", "127.0.0.1", "--memory", "1G"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        endpoints = told(process, 2)
        with tempo.Session(workers=endpoints, tls=master) as session:
            model = session.protect(nn.Sequential(nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 10)))
            model(torch.randn(160, 96)).sum().backward()
            assert session.report().checks > 0
            assert session.report().checks_failed == 0
        os.kill(pids_of_workers(str(worker.cert))[0], signal.SIGKILL)
        again = told(process, 2)
        assert again != endpoints
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    until = time.monotonic() + 20
    while pids_of_workers(str(worker.cert)) and time.monotonic() < until:
        time.sleep(0.2)
    assert pids_of_workers(str(worker.cert)) == []
