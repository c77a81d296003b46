"""`python master.py ORDERS`: the master, on the machine that was rented. It is measured before it starts.

1. ask the vault for the data key, with evidence of this machine
2. open the sealed data, train on untrusted workers, keep an audit log
3. seal the model to the owner's key, and note its digest in the log
4. show evidence that the key of that log was made in here
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import closing
from pathlib import Path
from typing import final

import torch
from torch import nn

import tempo
from tempo.demo.model import resnet
from tempo.demo.owner.orders import (
    LOG_CONTEXT,
    Done,
    Line,
    Orders,
    Refused,
    Released,
    SimulatedMachine,
    Step,
    TpmMachine,
    encode,
)
from tempo.demo.owner.training import batches, learn
from tempo.report import Report
from tempo.trust.evidence import report_data, tpm_device
from tempo.trust.ledger import Kind, Ledger, Signer
from tempo.trust.sealed import DataKey, Recipient, SealedWriter
from tempo.trust.sealed.sources import Tensors
from tempo.trust.vault import KeyRefused, UnsafeSimulated, fetch
from tempo.wire import TlsFiles

_FIGURES = (
    "checks",
    "checks_failed",
    "retries",
    "local_fallbacks",
    "bytes_sent",
    "bytes_received",
    "encodings",
)


@final
class Witness:
    """Evidence of this machine. last: what it said last."""

    def __init__(self, machine: TpmMachine | SimulatedMachine) -> None:
        self._machine = machine
        self.last = b""

    def __call__(self, nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        if isinstance(self._machine, SimulatedMachine):
            self.last = UnsafeSimulated(self._machine.measurement)(nonce, public_key, context)
        else:
            bound = report_data(nonce, public_key, context)
            self.last = tpm_device.produce(bound, self._machine.tcti).to_json()
        return self.last


def run(orders: Orders) -> None:
    try:
        work(orders, Witness(orders.machine))
    except KeyRefused as refused:
        say(Refused(refused.code, refused.step, str(refused)))


def work(orders: Orders, witness: Witness) -> None:
    key = asked_for(orders, witness)
    shown = hashlib.sha256(witness.last).hexdigest()
    say(Released(key.name, shown))
    signer = Signer.generate("rented/master")
    with Ledger.create(orders.log, signer) as ledger:
        ledger.append(Kind.ATTESTATION, key=orders.key, key_id=key.name, evidence_sha256=shown)
        model, report = trained(orders, key, ledger)
        digest = sealed(orders, model, ledger)
    log_key = str(signer.verifier)
    evidence = witness(orders.nonce, log_key.encode(), LOG_CONTEXT)
    figures = {name: getattr(report, name) for name in _FIGURES}
    say(Done(figures, list(report.quarantined), log_key, evidence, digest))


def asked_for(orders: Orders, witness: Witness) -> DataKey:
    return fetch(orders.vault, tls_of(orders), witness, orders.key)


def tls_of(orders: Orders) -> TlsFiles:
    return TlsFiles(Path(orders.cert), Path(orders.tls_key), Path(orders.ca))


def trained(orders: Orders, key: DataKey, ledger: Ledger) -> tuple[nn.Module, Report]:
    """The owner's own loop; `protect` is all that is Tempo's."""
    model = resnet(orders.channels, orders.classes, seed=orders.seed)
    drawn = batches(Path(orders.sealed), key, orders.batch, orders.seed)
    with (
        closing(drawn),
        tempo.Session(orders.workers, tls=tls_of(orders), scheme=orders.scheme, ledger=ledger) as session,
    ):
        session.protect(model)
        learn(model, drawn, orders.steps, lambda step, loss: say(Step(step, loss)))
        report = session.report()
        session.unprotect(model)
    return model, report


def sealed(orders: Orders, model: nn.Module, ledger: Ledger) -> str:
    """The model, for the owner alone: SHA-256 of the file."""
    recipient = Recipient.load(Path(orders.recipient))
    source = Tensors(dict(model.state_dict()))
    with SealedWriter(
        orders.model, recipient, kind=source.kind, name="model", fields=source.fields, sequence=orders.steps
    ) as out:
        source.fill(out)
    digest = hashlib.sha256(orders.model.read_bytes()).hexdigest()
    ledger.append(
        Kind.CHECKPOINT_WRITTEN,
        name=orders.model.name,
        step=orders.steps,
        sha256=digest,
        recipient=recipient.name,
    )
    return digest


def say(line: Line) -> None:
    sys.stdout.buffer.write(encode(line))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Orders.read(Path(sys.argv[1])))
