"""The owner's own building: authority, vault, policy and keys, and the data before it is sealed."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

import torch

from tempo.demo.data import ImageSet, cifar10, digits
from tempo.kernels.hidden import Hidden
from tempo.trust.policy_key import PolicySigner, signature_path
from tempo.trust.sealed import DataKey, OwnerKey, SealedWriter
from tempo.trust.sealed.sources import Arrays
from tempo.trust.vault import Grant, PassphraseRoot, Store
from tempo.trust.vault.root import ROOT_FILE
from tempo.wire import TlsFiles
from tempo.wire.authority import issue, make_authority

#: Of the data key in the vault; and of the master in certificates, grants and logs.
KEY_NAME: Final = "training-data"
MASTER: Final = "trainer"
HOST: Final = "127.0.0.1"
#: The demo takes no more images of a data set: it shows how, not how much.
_MOST_IMAGES: Final = 2_000
_POLICY_DAYS: Final = 1


@final
class Home(Hidden):
    """Its secrets are in the memory of this process and of the vault. On the disk they lie wrapped or not at
    all, but for the keys of certificates."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.data_key = DataKey.generate()
        self.owner = OwnerKey.generate()
        self.signer = PolicySigner.generate()
        self.passphrase = base64.urlsafe_b64encode(os.urandom(24))

    @property
    def vault(self) -> Path:
        return self.folder / "vault"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.toml"

    @property
    def recipient(self) -> Path:
        """The public half of the owner's key, for whoever seals to it."""
        return self.folder / "owner.pub"

    def authority(self, workers: int) -> dict[str, TlsFiles]:
        """Certificates by name: of the vault, the master, and each worker."""
        folder = self.folder / "certificates"
        make_authority(folder, days=_POLICY_DAYS)
        made = {"vault": issue(folder, "vault", "vault", [HOST], days=_POLICY_DAYS)}
        made[MASTER] = issue(folder, MASTER, "master", days=_POLICY_DAYS)
        for name in worker_names(workers):
            made[name] = issue(folder, name, "worker", [HOST], days=_POLICY_DAYS)
        return made

    def make_vault(self) -> Store:
        """An empty one. To be closed."""
        self.vault.mkdir(mode=0o700)
        root = PassphraseRoot.create(self.vault / ROOT_FILE, self.passphrase)
        return Store.create(self.vault, "in-house/vault", root)

    def seal(self, images: ImageSet, path: Path, progress: Callable[[int, int], None]) -> int:
        """Training images and labels, under the data key: how many. The test images stay in-house."""
        source = Arrays({"x": images.train_x.numpy(), "y": images.train_y.numpy()})
        with SealedWriter(path, self.data_key, kind=source.kind, name=KEY_NAME, fields=source.fields) as out:
            source.fill(out, lambda done: progress(done, source.count))
        return source.count

    def set_policy(self, demands: str, *, unsafe: bool) -> None:
        """Written and signed. demands: a table for the machine's kind of evidence."""
        until = (datetime.now(UTC) + timedelta(days=_POLICY_DAYS)).strftime("%Y-%m-%dT%H:%M:%SZ")
        head = f'tempo-policy = 1\nname = "owner demo"\nexpires = {until}\n'
        if unsafe:
            head += "allow-unsafe = true\n"
        self.policy.write_text(f"{head}\n{demands}")
        signature_path(self.policy).write_text(self.signer.sign(self.policy.read_bytes()))

    def grant(self, store: Store) -> Grant:
        """The key, for the master alone, on machines that satisfy the signed policy. Raises TamperedError."""
        text = self.policy.read_bytes()
        by = self.signer.public
        by.open(text, signature_path(self.policy).read_text())
        return store.grant(KEY_NAME, text, MASTER, None, by.name)


def worker_names(count: int) -> list[str]:
    return [f"worker-{number}" for number in range(count)]


def load(data_dir: Path | None) -> ImageSet:
    """Images that need no network: CIFAR-10's from a folder, or scikit-learn's digits. Raises DataError."""
    if data_dir is None:
        return digits()
    found = cifar10(data_dir, lambda _: None)
    few = slice(None, _MOST_IMAGES)
    return ImageSet(
        name=f"the first {_MOST_IMAGES:,} of {found.name}",
        train_x=found.train_x[few].clone(),
        train_y=found.train_y[few].clone(),
        test_x=found.test_x[few].to(torch.float32),
        test_y=found.test_y[few],
        classes=found.classes,
    )
