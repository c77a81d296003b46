"""A master killed with SIGKILL at any moment goes on from its last checkpoint, with the losses of a run that
was never killed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.security

STEPS = 18
SCRIPT = """
import sys
from pathlib import Path
import torch, torch.nn.functional as F
from torch import nn
import tempo
from tempo.trust.sealed import DataKey

folder, steps, every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
key = DataKey.load(folder / "key")
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
layers = [nn.Linear(64, 96), nn.SiLU(), nn.Dropout(0.1), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10)]
model = nn.Sequential(*layers)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
with tempo.Session("cpu") as session:
    session.protect(model)
    found = session.resume(folder / "run", key, model=model, optimizer=optimizer)
    step = found.step if found else 0
    print("from", step, flush=True)
    while step < steps:
        x = torch.randn(128, 64)
        loss = F.cross_entropy(model(x), x[:, :10].argmax(1))
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        step += 1
        print(step, loss.item().hex(), flush=True)
        if step % every == 0:
            session.checkpoint(folder / "run", key, step=step, model=model, optimizer=optimizer)
"""


def run(folder, every, kill_after=None):
    """Losses by step, and the step that it began from."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(STEPS), str(every)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        losses, began = {}, 0
        for line in process.stdout:
            name, value = line.split()
            if name == "from":
                began = int(value)
                continue
            losses[int(name)] = float.fromhex(value)
            if kill_after is not None and len(losses) >= kill_after[0]:
                time.sleep(kill_after[1])
                os.kill(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait() in (0, -signal.SIGKILL)
    return losses, began


@pytest.mark.timeout(240)
def test_killed_at_any_moment(tmp_path):
    from tempo.trust.sealed import DataKey

    key = DataKey.generate()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        key.save(tmp_path / name / "key")
    whole, _ = run(tmp_path / "whole", every=STEPS + 1)
    assert len(whole) == STEPS
    rng = random.Random(3)
    losses, starts = {}, []
    for _ in range(3):  # within a step, or while the checkpoint is being written
        got, began = run(tmp_path / "killed", 2, kill_after=(rng.randint(3, 6), rng.random() * 0.02))
        starts.append(began)
        losses.update(got)
    got, began = run(tmp_path / "killed", 2)
    losses.update(got)
    starts.append(began)
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] > 4
    assert losses.keys() == whole.keys()
    # Keys are fresh each time, so results round differently: in float64 by 1e-9 (docs/numerics.md, 4).
    assert all(abs(losses[n] - whole[n]) <= 1e-9 for n in whole)
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == ["key", "run"]
