"""`torchrun masters_broken.py PKI`: the ring breaks in a backward of DistributedDataParallel."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tempo.errors import OutsideError
from tempo.masters import UnsafeUnattested, join
from tempo.wire import TlsFiles

pki, rank = Path(sys.argv[1]), int(os.environ["RANK"])
tls, peer = (TlsFiles(pki / f"{n}{rank}.pem", pki / f"{n}{rank}.key", pki / "ca.pem") for n in "mp")
join(tls, peer, "127.0.0.1:0", UnsafeUnattested(), seconds=20)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 64))
model(torch.randn(8, 64)).sum().backward()
dist.distributed_c10d._get_default_group().abort()  # as if the network were cut
try:
    model(torch.randn(8, 64)).sum().backward()
except (OutsideError, RuntimeError) as error:
    print(f"rank {rank} was told: {type(error).__name__}: {error}", flush=True)
    os._exit(7)
os._exit(0)
