"""10,000 small operations: no thread, descriptor or memory more than before."""

import gc
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import tempo
from tempo.chaos.judge import medians, slope

OPERATIONS = 10_000
PER_STEP = 3  # one layer: Y, dX, dW


def usage():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), resident / 2**20


@pytest.mark.timeout(280)
@pytest.mark.parametrize("workers", ["cpu", "local:1"])
def test_nothing_grows(workers):
    """local:1 exercises sockets and a process with fewer operations: they cost more."""
    operations = OPERATIONS if workers == "cpu" else OPERATIONS // 5
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 64))
    layer = model[0]
    with tempo.Session(workers) as session:
        session.protect(model, unsafe_offload=["0"])
        seen = []
        for step in range(-(-operations // PER_STEP)):
            x = torch.randn(64, 64, generator=generator, requires_grad=True)
            model(x).square().mean().backward()
            with torch.no_grad():
                layer.weight -= 0.01 * layer.weight.grad  # a fresh W' each time
            model.zero_grad()
            if step % 20 == 0:
                seen.append(usage())
        report = session.report()
    assert report.checks >= operations
    assert report.checks_failed == report.local_fallbacks == 0
    gc.collect()
    warm = seen[len(seen) // 4 :]
    for column, allowed in ((0, 0.5), (1, 0.5), (2, 4.0)):  # threads, descriptors, MiB
        middle = medians([row[column] for row in warm])
        assert slope(middle) * len(middle) <= allowed, (column, middle)
