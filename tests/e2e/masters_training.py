"""`torchrun masters_training.py PKI POLICY OUT` on each master: the same training, data-parallel.

One process alone (no torchrun) is the one master to compare with.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import tempo
from tempo.masters import Attested, join
from tempo.trust.vault import UnsafeSimulated
from tempo.wire import TlsFiles

STEPS, ROWS, WIDTH = 6, 256, 96


def files(folder, name):
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")


def main(pki, policy, out):
    torch.set_num_threads(1)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        machine = Attested(UnsafeSimulated(bytes([7]) * 48), policy)
        join(files(pki, f"m{rank}"), files(pki, f"p{rank}"), "127.0.0.1:0", machine, seconds=60)
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(WIDTH, 128), nn.SiLU(), nn.Linear(128, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 10)
    ).double()
    losses = []
    with tempo.Session("local:2") as session:
        session.protect(model)
        whole = DistributedDataParallel(model) if size > 1 else model
        optimizer = torch.optim.SGD(whole.parameters(), lr=0.05, momentum=0.9)
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64).chunk(size)[rank]
            y = torch.randint(0, 10, (ROWS,), generator=generator).chunk(size)[rank]
            loss = nn.functional.cross_entropy(whole(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = loss.detach().clone()
            if size > 1:
                torch.distributed.all_reduce(mean, torch.distributed.ReduceOp.AVG)
            losses.append(mean.item())
        report = session.report()
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
    figures = {
        "losses": losses,
        "parameters": parameters,
        "checks": report.checks,
        "failed": report.checks_failed,
    }
    Path(out, f"{size}-{rank}.json").write_text(json.dumps(figures))
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
