"""In-house: an authority, the vault, sealed data, a signed policy."""

from __future__ import annotations

import hashlib
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from tempo.demo.data import ImageSet
from tempo.demo.owner import master
from tempo.demo.owner.home import HOST, KEY_NAME, MASTER, Home, worker_names
from tempo.demo.owner.machine import Machine
from tempo.demo.owner.settings import Settings
from tempo.demo.owner.stage import Child, Stage
from tempo.demo.owner.telling import Telling
from tempo.trust.policy import Policy
from tempo.trust.vault import Store
from tempo.wire import TlsFiles

#: The program that is signed for.
PROGRAM: Final = Path(master.__file__)
_TEMPO: Final = (sys.executable, "-c", "from tempo.cli import main; main()")
_START_S: Final = 120.0


@final
@dataclass(frozen=True, slots=True)
class House:
    """What stands once the owner is ready. endpoint: the vault's. sealed: the file in the cloud."""

    home: Home
    images: ImageSet
    tls: dict[str, TlsFiles]
    store: Store
    vault: Child
    endpoint: str
    workers: list[Child]
    sealed: Path
    policy: Policy

    @property
    def policy_sha256(self) -> str:
        return hashlib.sha256(self.home.policy.read_bytes()).hexdigest()


def prepare(
    telling: Telling, stage: Stage, machine: Machine, settings: Settings, images: ImageSet, stack: ExitStack
) -> House:
    """Steps 1 to 4. stack: closes what is not a process. Raises Stopped."""
    home, cloud = Home(stage.folder / "home"), stage.folder / "cloud"
    cloud.mkdir(mode=0o700)
    with telling.step("authority") as shown:
        tls = home.authority(settings.workers)
        shown.says = [
            f"One certificate each for the vault, the master and {settings.workers} workers, for one role.",
            "Whatever is said from here on is said under mutual TLS 1.3.",
        ]
        shown.facts = {"certificates": sorted(tls)}

    with telling.step("vault") as shown:
        store = stack.enter_context(home.make_vault())
        vault = _serve_vault(stage, home, tls["vault"])
        workers = [_serve_worker(stage, name, tls[name]) for name in worker_names(settings.workers)]
        endpoint = vault.document(_START_S)["rows"][0]["listening"]
        shown.says = [
            f"A process of its own (pid {vault.pid}), the only one that the owner's keys are asked of.",
            "On its disk they lie wrapped under a root key, and that under a passphrase (Argon2id).",
        ]
        shown.facts = {"pid": vault.pid, "listening": endpoint, "name": store.name}

    with telling.step("seal") as shown:
        sealed = cloud / "data.tempo"
        watch = telling.progress
        count = home.seal(images, sealed, lambda done, total: watch(done, total, "records"))
        store.add(KEY_NAME, home.data_key)
        size = sealed.stat().st_size
        shown.says = [
            f"{count:,} images and labels ({images.name}), {size / 1e6:.1f} MB, under AES-256-GCM.",
            f"Their key, {home.data_key.name} by name, is in the vault. The file may lie in any cloud.",
        ]
        shown.facts = {"records": count, "bytes": size, "key_id": home.data_key.name, "images": images.name}

    with telling.step("policy") as shown:
        machine.boot(PROGRAM)
        home.set_policy(machine.demands(PROGRAM), unsafe=machine.unsafe)
        policy = home.signer.public.open_file(home.policy)
        grant = home.grant(store)
        demands = policy.kinds[machine.kind]
        shown.says = [
            f"The master runs on {machine.words}. The policy names {machine.measured}.",
            f"It is signed with the security engineer's key {home.signer.public.name}, and good for a day.",
        ]
        shown.facts = {
            "kind": machine.kind.value,
            "measurements": [dict(each) for each in demands.measurements],
            "attestation_keys": sorted(demands.keys),
            "signer": home.signer.public.name,
            "grant": grant.number,
        }
    return House(home, images, tls, store, vault, endpoint, workers, sealed, policy)


def _serve_vault(stage: Stage, home: Home, tls: TlsFiles) -> Child:
    command = [*_TEMPO, "vault", "serve", str(home.vault), "--listen", f"{HOST}:0", "--json"]
    # The passphrase comes by a pipe: it is in no file and in no list of processes.
    command += [*_certificates(tls), "--passphrase-file", "/dev/stdin"]
    return stage.start("vault", command, home.passphrase + b"\n")


def _serve_worker(stage: Stage, name: str, tls: TlsFiles) -> Child:
    command = [*_TEMPO, "worker", "--listen", f"{HOST}:0", "--threads", "1", "--memory", "1G", "--json"]
    return stage.start(name, [*command, *_certificates(tls)])


def _certificates(tls: TlsFiles) -> list[str]:
    return ["--cert", str(tls.cert), "--key", str(tls.key), "--ca", str(tls.ca)]


def listening(workers: list[Child]) -> list[str]:
    """Where they listen, once they all do."""
    return [worker.document(_START_S)["rows"][0]["listening"] for worker in workers]


__all__ = ["MASTER", "PROGRAM", "House", "listening", "prepare"]
