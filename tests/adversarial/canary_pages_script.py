"""Pages and JSON objects of every verb that looks at a run, a model or a machine, with planted secrets about.

argv: the folder of the TLS files. Weights and data are those of canary_model.py. All runs in one process, so
that what a verb holds in memory is there to be leaked.
"""

import contextlib
import sys
import types
from pathlib import Path

import canary_model
import torch.nn.functional as F

import tempo
import tempo.secrecy.keys
from tempo.bench import layers
from tempo.bench.calibrate import SMALL
from tempo.bench.crew import Crew
from tempo.bench.layers import LinearCase
from tempo.bench.timing import Repeats
from tempo.bench.variant import variants
from tempo.cli import run
from tempo.trust.ledger import Ledger, Signer

here, tls = Path.cwd(), Path(sys.argv[1])
secrets = canary_model.secrets()
session_key = bytes.fromhex(secrets["session_key"])
tempo.secrecy.keys.os = types.SimpleNamespace(urandom=lambda n: session_key[:n])

signer = Signer.generate("example.org/run")
ledger = Ledger.create(here / "audit", signer)
net, x = canary_model.make()
labels = canary_model.torch.tensor(secrets["labels"] * 6)
with tempo.Session("cpu", ledger=ledger) as session:
    model = session.protect(net)
    with session.trace(here / "step.json"):
        F.cross_entropy(model(x), labels).backward()
    session.report().save(here / "run.json", title="a run")
ledger.close()
layers.FAST = layers.Settings(
    cases=(LinearCase(256, 96, 96),),
    crews=(Crew.parse("cpu"),),
    variants=variants("mixing"),
    repeats=Repeats(1, 1, 0.0),
    sizes=SMALL,
)
certificates = ["--cert", tls / "m.pem", "--key", tls / "m.key", "--ca", tls / "ca.pem"]
log = ["--log", "audit", "--key", str(signer.verifier)]
plan = ["plan", f"{canary_model.__file__}:make", "--workers", "cpu"]
measured = ["--measure", "--steps", "1", "--save", "figures.json", "--page", "plan.html", "--json"]
for name, arguments, expected in (
    ("report", ["report", "run.json", "--trace", "step.json", *log, "--save", "whole.json", "--json"], 0),
    (
        "plan",
        [*plan, *measured],
        0,
    ),
    ("plan-text", [*plan, "--calibration", "figures.json"], 0),
    ("doctor", ["doctor", *certificates, "--json"], None),
    ("doctor-text", ["doctor", *certificates], None),
    ("bench", ["bench", "layers", "--fast", "--out", "bench", "--trace", "layer.json", "--json"], 0),
    ("bench-text", ["bench", "layers", "--fast"], 0),
    ("log", ["log", "show", "audit", "--key", str(signer.verifier)], 0),
):
    with (here / f"{name}.out").open("w") as out, contextlib.redirect_stdout(out):
        code = run([str(each) for each in arguments])
    assert expected is None or code == expected, (name, code)
