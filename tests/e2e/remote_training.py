"""Trains a small model plainly and on remote workers; prints both, as JSON. Used by test_remote.py.

python remote_training.py MASTER.pem MASTER.key CA.pem ENDPOINT...
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch import nn

import tempo
from tempo.fleet import RemoteWorker, TlsFiles

STEPS = 8


def steps(model):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = []
    for _ in range(STEPS):
        x = torch.randn(128, 96, generator=generator)
        y = x[:, :10].argmax(1)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 10))


def train(endpoints, tls):
    """Losses without and with Tempo, and what the session reports."""
    plain = steps(model())
    workers = [RemoteWorker(endpoint, name=f"w{i}", tls=tls) for i, endpoint in enumerate(endpoints)]
    with tempo.Session(workers=workers) as session:
        protected = session.protect(model())
        losses = steps(protected)
        report = session.report()
    return {
        "plain": plain,
        "tempo": losses,
        "bytes_sent": report.bytes_sent,
        "bytes_received": report.bytes_received,
        "checks": report.checks,
        "checks_failed": report.checks_failed,
        "local_fallbacks": report.local_fallbacks,
        "events": [[event.kind.value, event.worker, event.detail] for event in report.events],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(train(sys.argv[4:], TlsFiles(*sys.argv[1:4]))))
