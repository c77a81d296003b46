"""A user's script with planted secrets, run by `tempo run`; it also writes down what a user might print.

argv: the file with the secrets (JSON), which lies elsewhere.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import types
import urllib.request
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import tempo
import tempo.secrecy.keys
from tempo.errors import TempoError
from tempo.fleet import ProcessWorker
from tempo.report import JsonLines
from tempo.trust.ledger import Ledger, Signer
from tempo.trust.sealed import DataKey
from tempo.worker import Lie

secrets = json.loads(Path(sys.argv[1]).read_text())
here = Path.cwd()

session_key = bytes.fromhex(secrets["session_key"])
tempo.secrecy.keys.os = types.SimpleNamespace(urandom=lambda n: session_key[:n])


class Whole(logging.Formatter):
    def format(self, record):
        return f"{record.getMessage()} {record.__dict__!r}"


for name, formatter in (("json", JsonLines()), ("text", Whole())):
    handler = logging.FileHandler(here / f"run-{name}.log")
    handler.setFormatter(formatter)
    logging.getLogger("tempo").addHandler(handler)
logging.getLogger("tempo").setLevel(logging.DEBUG)
logging.captureWarnings(True)

signer = Signer.generate("example.org/run")
ledger = Ledger.create(here / "audit", signer)
key = DataKey.generate()
Path(secrets["key_file"]).write_text(key.unsafe_bytes().hex())

torch.manual_seed(1)
net = nn.Sequential(nn.Linear(64, 80), nn.SiLU(), nn.Linear(80, 64), nn.SiLU(), nn.Linear(64, 10))
with torch.no_grad():
    net[0].weight[3, 5:7] = torch.tensor(secrets["weights"])
    net[4].bias[2:4] = torch.tensor(secrets["weights"])
x = torch.randn(96, 64)
x[7, 9:11] = torch.tensor(secrets["data"])
labels = torch.tensor(secrets["labels"] * 6)

session = tempo.session(probes=1)
session.add_workers(ProcessWorker("liar", unsafe_lie=Lie.parse("flip_entry:2:1")))
session.remove_worker("local-0")  # so that the liar has all the work
# The same settings once more, with an audit log.
logged = tempo.Session("cpu", ledger=ledger)
model = session.protect(net)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(4):
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
with torch.no_grad():  # so that what is searched for is still there
    net[0].weight[3, 5:7] = torch.tensor(secrets["weights"])
session.checkpoint(here / "run.sealed", key, step=4, model=net, optimizer=optimizer, extra=[secrets["text"]])

printed = [repr(each) for each in (session, logged, key, ledger, signer, session.report(), tempo.Config())]
printed += [str(session.report()), json.dumps(session.report().to_dict()), session.metrics()]
printed += [json.dumps(session._config.chosen()), repr(session.__dict__)]
for broken in (
    lambda: session.protect(nn.Linear(64, 64).bfloat16()),
    lambda: session.resume(here / "run.sealed", DataKey.generate(), model=net, optimizer=optimizer, extra=[]),
    lambda: session.checkpoint(here / "nowhere" / "x", key, step=1, extra=[secrets["text"]]),
    lambda: tempo.Session("cpu", scheme="magic"),
    lambda: model(x.to(torch.complex64)),
    lambda: model(x[:, :3]),
    lambda: model(x.bfloat16()),
):
    try:
        broken()
    except TempoError as error:
        printed += [str(error), repr(error), repr(error.__dict__), repr(error.__cause__)]
    except Exception as error:  # PyTorch's own words about shapes and dtypes
        printed += [str(error)]
unverified = net[0].weight.grad
with contextlib.suppress(TempoError):
    session.unprotect(net)
    logged.protect(net)
    F.cross_entropy(net(x), labels).backward()
logged.close()
for child in Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError, ValueError, IndexError):
        if int((child / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
            (here / f"child-{child.name}").write_bytes(
                (child / "cmdline").read_bytes() + b"\n" + (child / "environ").read_bytes()
            )
with urllib.request.urlopen(f"http://{secrets['metrics']}/metrics", timeout=10) as answer:
    (here / "metrics.txt").write_bytes(answer.read())
(here / "printed.txt").write_text("\n".join(printed))
shutil.copytree(tempfile.gettempdir(), here / "temporary", ignore=shutil.ignore_patterns("torch*"))
session.protect(nn.Linear(64, 64).bfloat16())  # the run ends with an error of ours
