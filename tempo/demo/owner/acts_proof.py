"""Afterwards: what the logs prove, what becomes of an altered byte, and what is left."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tempo.demo.owner import audit, canaries, tamper
from tempo.demo.owner.acts_home import House
from tempo.demo.owner.acts_master import Work
from tempo.demo.owner.stage import Stage
from tempo.demo.owner.telling import Shown, Telling
from tempo.trust.ledger import Kind, VerifierKey
from tempo.trust.ledger.files import CHECKPOINT, ENTRIES, HASHES
from tempo.trust.policy_key import signature_path
from tempo.trust.vault.store import LOG, LOG_PUBLIC

_LOG_FILES: Final = (ENTRIES, HASHES, CHECKPOINT)
#: Of the model, which are looked for on the disks.
_WEIGHT_BYTES: Final = 4096


def tell(telling: Telling, stage: Stage, house: House, work: Work) -> dict[str, bytes]:
    """Steps 10 to 15, and the papers that an auditor may keep. Raises Stopped."""
    home, log = house.home, work.orders.log
    with telling.step("logs") as shown:
        vault_key, ours = audit.vault_log(home.vault, since=work.seen)
        master_key, theirs, evidence, expected = audit.master_log(
            log, work.done, work.orders.nonce, house.policy
        )
        story = audit.Story(home.data_key.name, work.released, work.done, house.policy_sha256)
        shown.broken = audit.missing(ours.entries, theirs.entries, story)
        shown.says = [
            f"The vault's, {len(ours.entries)} entries: the key added, granted, refused, released.",
            f"The master's, {len(theirs.entries)} entries: attested, its session begun and ended, the model.",
            "They agree on the evidence and the model. The key of the master's log was made inside: a last "
            "piece of evidence says so.",
        ]
        shown.facts = {
            "vault": [entry.kind.value for entry in ours.entries],
            "master": [entry.kind.value for entry in theirs.entries],
            "vault_root": ours.checkpoint.root.hex(),
            "master_root": theirs.checkpoint.root.hex(),
        }
    papers = _papers(house, work, vault_key, master_key)
    with TemporaryDirectory(dir=stage.folder) as folder:
        scratch = Path(folder)
        with telling.step("data-altered") as shown:
            caught = tamper.data(house.sealed, home.data_key, scratch)
            _show(shown, caught, "in the middle of the images", scratch)
        with telling.step("model-altered") as shown:
            caught = tamper.data(work.orders.model, home.owner, scratch)
            _show(shown, caught, "in the middle of the weights", scratch)
        with telling.step("log-altered") as shown:
            caught = tamper.log(home.vault / LOG, vault_key, scratch, Kind.KEY_REFUSED.value)
            _show(shown, caught, "in the entry of the refusal", scratch)
        with telling.step("evidence-altered") as shown:
            caught = tamper.evidence(evidence, expected, house.policy)
            _show(shown, caught, "in the middle of what was signed", scratch)
        with telling.step("policy-altered") as shown:
            signature = signature_path(home.policy).read_text()
            caught = tamper.policy(home.policy.read_bytes(), signature, home.signer.public)
            _show(shown, caught, "a digit of what it demands", scratch)
    return papers


def leave(telling: Telling, stage: Stage, house: House, work: Work) -> None:
    """Step 16: ends all processes, looks for secrets, removes the folder. Raises Stopped."""
    with telling.step("nothing-left") as shown:
        codes = {child.name: child.end() for child in [house.vault, *house.workers]}
        house.store.close()
        for name, code in codes.items():
            shown.promise(code == 0, f"{name} ended with exit code {code}")
        secrets = {
            "the data key": house.home.data_key.unsafe_bytes(),
            "the vault's passphrase": house.home.passphrase,
            "a training image": house.images.train_x[0].numpy().tobytes(),
            "a weight of the model": _largest(work),
        }
        for child in stage.children:
            (stage.folder / f"{child.name}.{child.pid}.out").write_bytes(child.said)
        files, found = canaries.search(stage.folder, secrets)
        shown.broken += found
        stage.close()
        alive = [child.name for child in stage.children if child.alive]
        shown.promise(not alive, f"still running: {', '.join(alive)}")
        shown.promise(not stage.folder.exists(), f"{stage.folder} is still there")
        shown.says = [
            f"{files} files, with all that any process printed, were searched for the data key, the "
            "passphrase, an image and a weight: nothing.",
            f"{len(stage.children)} processes have ended; the folder of all this is gone.",
        ]
        shown.facts = {"files": files, "searched_for": sorted(secrets), "processes": len(stage.children)}


def _largest(work: Work) -> bytes:
    weight = max(work.weights.values(), key=lambda each: each.numel())
    return bytes(weight.contiguous().numpy().tobytes()[:_WEIGHT_BYTES])


def _show(shown: Shown, caught: tamper.Caught, what: str, scratch: Path) -> None:
    """what: the byte whose alteration is quoted."""
    shown.message = caught.message.replace(f"{scratch}/", "")
    missed = len(caught.missed)
    shown.promise(not missed, f"{missed} of {caught.tried} altered bytes were not noticed")
    tried = (
        f"Each of its {caught.size:,} bytes in turn"
        if caught.tried == caught.size
        else f"{caught.tried} of its {caught.size:,} bytes, one at a time"
    )
    shown.says = [
        f"{tried}: {caught.tried - missed} caught.",
        f"What is said of byte {caught.place:,}, {what}:",
    ]
    shown.facts = {
        "bytes": caught.size,
        "tried": caught.tried,
        "caught": caught.tried - missed,
        "missed": caught.missed,
        "byte": caught.place,
    }


def _papers(house: House, work: Work, vault_key: VerifierKey, master_key: VerifierKey) -> dict[str, bytes]:
    home = house.home
    signature = signature_path(home.policy)
    engineer = home.folder / "engineer.pub"
    home.signer.public.save(engineer)
    found = {
        "policy.toml": home.policy.read_bytes(),
        signature.name: signature.read_bytes(),
        engineer.name: engineer.read_bytes(),
        "evidence.json": work.done.evidence,
        "nonce": work.orders.nonce.hex().encode(),
        # To the byte what the evidence is bound to.
        f"master-{LOG_PUBLIC}": str(master_key).encode(),
        f"vault-{LOG_PUBLIC}": str(vault_key).encode(),
    }
    for name, folder in (("vault-log", home.vault / LOG), ("master-log", work.orders.log)):
        found |= {f"{name}/{file}": (folder / file).read_bytes() for file in _LOG_FILES}
    return found
