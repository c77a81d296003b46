"""A run as the runbooks know it: two workers under mutual TLS, an audit log, and what it says at its end.

    python training.py WORKER WORKER [STEPS]      the log is made in log/, its public key is log.pub

The signing key of the log lives and dies with the run here. Where several runs share a log: Signer.to_pem.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import tempo
from tempo.trust.ledger import Ledger, Signer

first, second, *steps = sys.argv[1:]
signer = Signer.generate("example.org/training")
Path("log.pub").write_text(f"{signer.verifier}\n")
tls = tempo.TlsFiles("pki/trainer.pem", "pki/trainer.key", "pki/ca.pem", "pki/ca.crl")
layers = [nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 8)]
with (
    Ledger.create(Path("log"), signer) as ledger,
    tempo.Session([first, second], tls=tls, ledger=ledger) as session,
):
    model = session.protect(nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(int(steps[0]) if steps else 4):
        loss = F.cross_entropy(model(torch.randn(256, 64)), torch.randint(0, 8, (256,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    report = session.report()
print(f"checks that failed: {report.checks_failed}")
