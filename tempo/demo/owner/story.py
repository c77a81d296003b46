"""The story in its order. What each act does is in acts_home, acts_master and acts_proof."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final, final

from tempo.cli.output import document, to_json
from tempo.demo import plots
from tempo.demo.owner import acts_home, acts_master, acts_proof, home
from tempo.demo.owner.interrupts import Interrupts
from tempo.demo.owner.machine import Machine, SoftwareTpm, UnsafeSimulator, require_software_tpm
from tempo.demo.owner.settings import Settings
from tempo.demo.owner.stage import Stage
from tempo.demo.owner.telling import Row, Stopped, Telling, Watcher
from tempo.demo.owner.training import Curve
from tempo.trust.evidence import Kind

TITLES: Final = {
    "authority": "Make an authority for everybody's certificates",
    "vault": "Open the vault, in-house",
    "seal": "Seal the data",
    "policy": "Say what may have the key, and sign that",
    "worker-refused": "A worker asks for the key: refused",
    "master-refused": "A master with another program asks: refused",
    "key-released": "The master that was signed for asks: released",
    "train": "Train on the sealed data, on workers that nobody trusts",
    "model": "Bring the model home",
    "logs": "Verify the audit logs, with public keys alone",
    "data-altered": "Alter one byte of the data: caught",
    "model-altered": "Alter one byte of the model: caught",
    "log-altered": "Alter one byte of the log: caught",
    "evidence-altered": "Alter one byte of the evidence: caught",
    "policy-altered": "Alter one byte of the policy: caught",
    "nothing-left": "Leave nothing behind",
}


@final
@dataclass(slots=True)
class Outcome:
    """papers: what an auditor may keep, by path. curve: None where training was not reached."""

    settings: Settings
    kind: Kind
    rows: list[Row]
    broken: list[str]
    images: str
    seconds: float
    papers: dict[str, bytes] = field(default_factory=dict)
    curve: Curve | None = None

    def fields(self) -> dict[str, Any]:
        """What machines read."""
        settings, curve = self.settings, self.curve
        return document(
            "demo",
            [row.fields() for row in self.rows],
            story="owner",
            attested_by=self.kind.value,
            unsafe_simulator=settings.unsafe_simulator,
            images=self.images,
            steps=settings.steps,
            batch=settings.batch,
            workers=settings.workers,
            scheme=settings.scheme,
            seed=settings.seed,
            tempo_losses=None if curve is None else curve.tempo,
            plain_losses=None if curve is None else curve.plain,
            allowed_differences=None if curve is None else curve.allowed,
            seconds=round(self.seconds, 3),
            broken_promises=self.broken,
        )


def run(settings: Settings, watcher: Watcher) -> Outcome:
    """All of it. Broken promises are in the outcome; faults of the outside world are raised, and so is
    KeyboardInterrupt. Either way no process and no file of it is left.

    Raises UnsupportedError where there is no software TPM and the simulator was not asked for.
    """
    if not settings.unsafe_simulator:
        require_software_tpm()
    start = perf_counter()
    images = home.load(settings.data_dir)
    telling = Telling(TITLES, watcher)
    with Interrupts() as interrupts, ExitStack() as stack:
        with interrupts.held():
            stage = stack.enter_context(Stage(interrupts))
        machine: Machine = UnsafeSimulator() if settings.unsafe_simulator else SoftwareTpm(stage)
        outcome = Outcome(settings, machine.kind, telling.rows, [], images.name, 0.0)
        watcher.open(
            [
                "In-house: this process, which is the owner's, and the vault.",
                f"Elsewhere: a master on {machine.words}, and {settings.workers} workers that nobody trusts.",
            ]
        )
        try:
            house = acts_home.prepare(telling, stage, machine, settings, images, stack)
            work = acts_master.tell(telling, stage, machine, settings, house)
            outcome.curve = work.curve
            outcome.papers = acts_proof.tell(telling, stage, house, work)
            acts_proof.leave(telling, stage, house, work)
        except Stopped:
            pass
    outcome.broken = telling.broken
    outcome.seconds = perf_counter() - start
    return outcome


def write(outcome: Outcome, out: Path) -> list[Path]:
    """owner.json, the picture, and the papers in the place of older ones. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    made = [out / "owner.json"]
    made[0].write_text(to_json(outcome.fields()) + "\n")
    if (curve := outcome.curve) is not None:
        made.append(out / "owner-loss.png")
        plots.loss_curves(
            made[-1],
            curve.plain,
            curve.tempo,
            curve.allowed,
            lies=(),
            kill=None,
            subtitle=f"sealed data ({outcome.images}), {outcome.settings.workers} untrusted workers",
        )
    papers = out / "owner-papers"
    if papers.exists():
        shutil.rmtree(papers)
    for name, data in outcome.papers.items():
        path = papers / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return [*made, papers] if outcome.papers else made
