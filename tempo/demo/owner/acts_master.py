"""Elsewhere: who is refused the key, who gets it, and what is done with it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from torch import Tensor, nn

from tempo.data import SealedDataset
from tempo.demo.model import resnet
from tempo.demo.owner import audit, masters, measure
from tempo.demo.owner.acts_home import PROGRAM, House, listening
from tempo.demo.owner.home import KEY_NAME, MASTER, worker_names
from tempo.demo.owner.machine import Machine
from tempo.demo.owner.orders import Done, Orders, Refused, Released, SimulatedMachine, TpmMachine
from tempo.demo.owner.settings import Settings
from tempo.demo.owner.stage import Stage
from tempo.demo.owner.telling import Stopped, Telling
from tempo.demo.owner.training import Curve, batches, compared
from tempo.demo.promises import ACCURACY_BOUND
from tempo.demo.train import accuracy
from tempo.errors import UsageError
from tempo.trust.evidence import NONCE_BYTES
from tempo.trust.ledger import Checkpoint, Kind
from tempo.trust.policy import Step as PolicyStep
from tempo.trust.sealed import SealedFile
from tempo.trust.vault import KeyRefused, fetch
from tempo.wire import TlsRefused

_TEST_COUNT: Final = 500
_LONG_HEX: Final = re.compile(r"[0-9a-f]{24,}")


@final
@dataclass(frozen=True, slots=True)
class Work:
    """What came of it. seen: the vault's log as it stood before the release."""

    orders: Orders
    released: Released
    done: Done
    curve: Curve
    seen: Checkpoint
    weights: dict[str, Tensor]


def tell(telling: Telling, stage: Stage, machine: Machine, settings: Settings, house: House) -> Work:
    """Steps 5 to 9. Raises Stopped."""
    home = house.home
    _refused_worker(telling, house)
    endpoints: list[str] = []

    def orders(folder: Path, how: TpmMachine | SimulatedMachine) -> Orders:
        tls = house.tls[MASTER]
        return Orders(
            folder=str(folder),
            machine=how,
            vault=house.endpoint,
            workers=endpoints,
            cert=str(tls.cert),
            tls_key=str(tls.key),
            ca=str(tls.ca),
            key=KEY_NAME,
            sealed=str(house.sealed),
            recipient=str(home.recipient),
            nonce=os.urandom(NONCE_BYTES),
            scheme=settings.scheme,
            steps=settings.steps,
            batch=settings.batch,
            seed=settings.seed,
            channels=house.images.train_x.shape[1],
            classes=house.images.classes,
        )

    seen = _refused_master(telling, stage, machine, house, orders)
    home.owner.recipient.save(home.recipient)
    endpoints += listening(house.workers)
    master, released = _released(telling, stage, machine, house, orders)
    done, curve, plain = _trained(telling, settings, house, master)
    weights = _home_again(telling, settings, house, master, done, plain)
    return Work(master.orders, released, done, curve, seen, weights)


_MakeOrders = Callable[[Path, TpmMachine | SimulatedMachine], Orders]


def _refused_worker(telling: Telling, house: House) -> None:
    def none(nonce: bytes, public_key: bytes, context: bytes) -> bytes:
        raise UsageError("a worker has no evidence")

    with telling.step("worker-refused") as shown:
        name = worker_names(1)[0]
        try:
            fetch(house.endpoint, house.tls[name], none, KEY_NAME)
        except (TlsRefused, KeyRefused) as error:
            shown.message = str(error)
        shown.promise(bool(shown.message), f"{name} was not refused")
        shown.says = [f"{name} has a certificate, but not a master's. It gets no question to answer."]
        shown.facts = {"who": name}


def _refused_master(
    telling: Telling, stage: Stage, machine: Machine, house: House, orders: _MakeOrders
) -> Checkpoint:
    """The vault's log as it stands then."""
    with telling.step("master-refused") as shown:
        program = stage.folder / "altered.py"
        line = measure.altered(PROGRAM, program)
        how = machine.boot(program)
        master = masters.start(stage, program, "altered-master", lambda folder: orders(folder, how))
        shown.says = [f"The same machine runs the program with one line more: {line}"]
        shown.facts = {"line": line}
        if isinstance(master.answer, Refused):
            master.end()
            shown.message = master.answer.message
            shown.facts |= {"code": master.answer.code, "step": master.answer.step}
        step = shown.facts.get("step")
        shown.promise(step == PolicyStep.CODE, f"refused at {step or 'no step'}, expected {PolicyStep.CODE}")
        stolen = Path(master.orders.folder, "stolen").exists()
        shown.promise(not stolen, "the altered program has the key")
        seen = audit.vault_log(house.home.vault)[1]
        entry = next((e for e in reversed(seen.entries) if e.kind is Kind.KEY_REFUSED), None)
        shown.promise(entry is not None, "the refusal is not in the vault's log")
        if entry is not None:
            found, expected = str(entry.fields.get("found")), str(entry.fields.get("expected"))
            shown.says += [
                f"Found: {_short(found)}",
                f"Expected: {_short(expected.partition(' (')[0])}",
                "The master is told the step alone; what was found is in the vault's log.",
            ]
            shown.facts |= {"found": found, "expected": expected}
        if stolen:
            raise Stopped
    return seen.checkpoint


def _released(
    telling: Telling, stage: Stage, machine: Machine, house: House, orders: _MakeOrders
) -> tuple[masters.Master, Released]:
    with telling.step("key-released") as shown:
        how = machine.boot(PROGRAM)
        master = masters.start(stage, PROGRAM, "master", lambda folder: orders(folder, how))
        answer = master.answer
        if isinstance(answer, Refused):
            shown.message = answer.message
            shown.promise(False, "the vault refused the master that it should trust")
        else:
            shown.promise(answer.key_id == house.home.data_key.name, "another key was released")
            shown.says = [
                "The same machine, started again with the program that was signed for.",
                "Its evidence answers this vault's question and names a public key made for this answer.",
                "The key left sealed to that one (HPKE: ML-KEM-768 with X25519), and was opened inside.",
            ]
            shown.facts = {"key_id": answer.key_id, "evidence_sha256": answer.evidence_sha256}
    if isinstance(answer, Refused):
        raise Stopped
    return master, answer


def _trained(
    telling: Telling, settings: Settings, house: House, master: masters.Master
) -> tuple[Done, Curve, nn.Module]:
    steps = settings.steps
    with telling.step("train") as shown:
        losses: list[float] = []

        def on_step(number: int, loss: float) -> None:
            losses.append(loss)
            telling.progress(number + 1, steps, f"steps, loss {loss:.3f}")

        done = master.train(on_step)
        figures = done.figures
        # The owner has the key, and can do the same without anybody: that is what training should give.
        curve, plain = compared(
            losses,
            lambda: resnet(house.images.train_x.shape[1], house.images.classes, seed=settings.seed),
            lambda: batches(house.sealed, house.home.data_key, settings.batch, settings.seed),
            lambda n, total: telling.progress(n, total, "in-house, to compare"),
        )
        shown.promise(len(losses) == steps, f"{len(losses)} of {steps} steps were done")
        shown.promise(curve.kept, f"losses differ by {max(curve.differences):.2g}, more than is allowed")
        shown.promise(figures["checks"] > 0 and figures["bytes_sent"] > 0, "no worker was asked for anything")
        failed = figures["checks_failed"] + len(done.quarantined)
        shown.promise(not failed, f"{failed} checks failed, though no worker was told to lie")
        sent, received = figures["bytes_sent"] / 1e6, figures["bytes_received"] / 1e6
        shown.says = [
            f"{steps} steps of a ResNet through SealedDataset; loss {losses[0]:.3f}, then {losses[-1]:.3f}.",
            f"Workers were sent {sent:,.0f} MB in secret bases and sent {received:,.0f} MB back, "
            f"{figures['checks']:,} checks, all passed.",
            f"The same training without workers: losses differ by {max(curve.differences):.1g} at most, "
            f"rounding ({max(curve.allowed):.1g} allowed).",
        ]
        shown.facts = {"losses": losses, "max_difference": max(curve.differences), **figures}
    return done, curve, plain


def _home_again(
    telling: Telling,
    settings: Settings,
    house: House,
    master: masters.Master,
    done: Done,
    plain: nn.Module,
) -> dict[str, Tensor]:
    with telling.step("model") as shown:
        path, images, home = master.orders.model, house.images, house.home
        model = resnet(images.train_x.shape[1], images.classes, seed=settings.seed)
        with closing(SealedDataset(path, home.owner)) as opened:
            weights: dict[str, Tensor] = dict(opened[i] for i in range(len(opened)))
        model.load_state_dict(weights)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shown.promise(digest == done.model_sha256, "the file is not the one that the master sealed")
        try:
            SealedFile(path, home.data_key).close()
            shown.promise(False, "the data key opens it too")
        except UsageError as error:
            shown.message = str(error).replace(f"{path}", path.name)
        scores = [accuracy(each, images, _TEST_COUNT) for each in (model, plain)]
        shown.promise(
            abs(scores[0] - scores[1]) <= ACCURACY_BOUND,
            f"it names {scores[0]:.1%} right, plain training {scores[1]:.1%}",
        )
        shown.says = [
            f"{len(weights)} tensors, sealed inside to the owner's public key; its other half opens them.",
            f"After {settings.steps} steps it names {scores[0]:.1%} of the test images, which stayed here; "
            f"the same training without workers {scores[1]:.1%}.",
            "The key that opened the data does not open it:",
        ]
        shown.facts = {
            "sha256": digest,
            "bytes": path.stat().st_size,
            "tensors": len(weights),
            "accuracy": scores[0],
            "plain_accuracy": scores[1],
        }
    return weights


def _short(text: str) -> str:
    return _LONG_HEX.sub(lambda found: f"{found[0][:12]}...", text)
