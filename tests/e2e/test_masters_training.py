"""Two attested masters under torchrun, two workers each: the losses of one, and the same model on both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tempo.wire.authority import issue, make_authority

pytestmark = pytest.mark.security

SCRIPT = Path(__file__).with_name("masters_training.py")
ROOT = Path(__file__).resolve().parents[2]
POLICY = f"""
tempo-policy = 1
name = "masters"
allow-unsafe = true
[unsafe-simulated]
measurements = [{{ measurement = "{(bytes([7]) * 48).hex()}" }}]
"""


@pytest.fixture
def scene(tmp_path):
    make_authority(tmp_path / "pki")
    for rank in range(2):
        issue(tmp_path / "pki", f"m{rank}", "master")
        issue(tmp_path / "pki", f"p{rank}", "peer", ["127.0.0.1"])
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "out").mkdir()
    return [str(SCRIPT), str(tmp_path / "pki"), str(tmp_path / "policy.toml"), str(tmp_path / "out")]


def run(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.timeout(280)
def test_two_masters_train_what_one_trains(scene, tmp_path):
    run(*scene)
    run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *scene)
    one, first, second = (
        json.loads((tmp_path / "out" / f"{n}.json").read_text()) for n in ("1-0", "2-0", "2-1")
    )
    assert first["losses"] == second["losses"]
    assert first["parameters"] == second["parameters"]
    for ours, alone in zip(first["losses"], one["losses"], strict=True):
        assert abs(ours - alone) < 1e-9
    apart = torch.tensor(first["parameters"]) - torch.tensor(one["parameters"])
    assert apart.abs().max() < 1e-9
    assert one["losses"][-1] < one["losses"][0]
    for each in (one, first, second):
        assert each["checks"] > 0
        assert each["failed"] == 0


@pytest.mark.timeout(280)
def test_a_master_that_runs_something_else_ends_the_run(scene, tmp_path):
    """The policy was changed: neither machine has the new measurement any more."""
    text = (tmp_path / "policy.toml").read_text()
    (tmp_path / "policy.toml").write_text(text.replace("07" * 48, "09" * 48))
    with pytest.raises(AssertionError, match="refused at step"):
        run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *scene)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.timeout(200)
def test_a_ring_that_breaks_in_a_backward_is_an_error(scene):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with pytest.raises(AssertionError, match=r"exitcode\s*:\s*7") as found:
        run(*command, str(SCRIPT.with_name("masters_broken.py")), scene[1])
    assert "SIGSEGV" not in str(found.value)
