"""Trains plainly and on remote workers; prints both, as JSON. Used by test_remote.py.

python remote_training.py small|demo MASTER.pem MASTER.key CA.pem ENDPOINT...

small: an MLP on random numbers. demo: the network, loop and images of `tempo demo` (scikit-learn's digits,
which need no network), with the allowed differences of docs/numerics.md.
"""

import json
import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

import tempo
from tempo.demo.data import digits
from tempo.demo.model import resnet
from tempo.demo.train import train as demo_train
from tempo.fleet import RemoteWorker, TlsFiles
from tempo.numerics import loss_tolerance

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


def demo(endpoints, tls, count=16):
    images = digits()
    doubles = replace(images, train_x=images.train_x.double(), test_x=images.test_x.double())

    def losses(net, data):
        done = demo_train(net, data, steps=count, batch=64, seed=0, on_step=lambda *_: None, test_count=64)
        return done.losses

    plain = losses(resnet(1, images.classes), images)
    exact = losses(resnet(1, images.classes).double(), doubles)
    workers = [RemoteWorker(endpoint, name=f"w{i}", tls=tls) for i, endpoint in enumerate(endpoints)]
    with tempo.Session(workers=workers) as session:
        protected = losses(session.protect(resnet(1, images.classes)), images)
        report = session.report()
    return {
        "plain": plain,
        "tempo": protected,
        "allowed": loss_tolerance(plain, exact),
        "checks": report.checks,
        "checks_failed": report.checks_failed,
        "local_fallbacks": report.local_fallbacks,
        "encodings": [report.encodings, report.encodings_without_key_shift],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = {"small": train, "demo": demo}[sys.argv[1]]
    print(json.dumps(run(sys.argv[5:], TlsFiles(*sys.argv[2:5]))))
