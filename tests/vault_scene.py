"""A vault in-house, a master elsewhere: what the tests of `tempo.trust.vault` have in common.

The machines are those of the unsafe simulator, under a policy that says so; all else is production code.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tempo.trust.ledger import Kind, VerifierKey, read_verified
from tempo.trust.sealed import DataKey
from tempo.trust.vault import (
    KeyRefused,
    Machines,
    PassphraseRoot,
    Rate,
    Server,
    ServeSettings,
    Store,
    UnsafeSimulated,
    fetch,
)
from tempo.wire import Endpoint, TlsFiles
from tempo.wire.authority import issue, make_authority

MEASUREMENT = bytes(range(48))
OTHER = bytes(48)
PLENTY = Rate(600_000, 10_000)


def policy(measurement: bytes = MEASUREMENT, head: str = "") -> bytes:
    return (
        f'tempo-policy = 1\nname = "test"\nallow-unsafe = true\n{head}\n[unsafe-simulated]\n'
        f'measurements = [{{ measurement = "{measurement.hex()}" }}]\n'
    ).encode()


def machine(measurement: bytes = MEASUREMENT) -> UnsafeSimulated:
    return UnsafeSimulated(measurement)


def make_pki(folder: Path, masters: tuple[str, ...] = ("trainer", "other")) -> dict[str, TlsFiles]:
    make_authority(folder)
    hosts = ["127.0.0.1", "localhost"]
    files = {"vault": issue(folder, "vault", "vault", hosts), "gpu": issue(folder, "gpu", "worker", hosts)}
    return files | {name: issue(folder, name, "master") for name in masters}


def make_store(folder: Path, **options) -> Store:
    """With a root key that is in memory only: Argon2id takes its time, and has tests of its own."""
    folder.mkdir(exist_ok=True)
    return Store.create(folder, "example.org/vault", PassphraseRoot(AESGCM.generate_key(256)), **options)


def entries(folder: Path, *kinds: Kind):
    """What the vault's log has, verified with its public key alone."""
    key = VerifierKey.parse((folder / "log.pub").read_text())
    found = read_verified(folder / "log", key).entries
    return [entry for entry in found if entry.kind in kinds] if kinds else list(found)


class Scene:
    """A store with the key "photos", granted to `machine()`; serve it with `serving`."""

    def __init__(self, folder: Path, pki: dict[str, TlsFiles], **options) -> None:
        self.folder = folder
        self.pki = pki
        self.store = make_store(folder, **options)
        self.key = DataKey.generate()
        self.store.add("photos", self.key)
        self.grant = self.store.grant("photos", policy())
        self.log: list[str] = []

    def settings(self, **options) -> ServeSettings:
        options = {"client_rate": PLENTY, "rate": PLENTY, **options}
        return ServeSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=self.pki["vault"], **options)

    @contextlib.contextmanager
    def serving(self, appraiser=None, **options):
        """The endpoint of a server in a thread. Errors that end it are raised at the end."""
        failed: list[BaseException] = []
        with Server(self.store, appraiser or Machines(), self.settings(**options), self.log.append) as server:

            def run() -> None:
                try:
                    server.serve()
                except BaseException as error:
                    failed.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield server.endpoint
            finally:
                server.stop()
                thread.join(30)
                assert not thread.is_alive()
        if failed:
            raise failed[0]

    def fetched_when_free(self, where, master: str) -> DataKey:
        """The key, once a connection is free."""
        until = time.monotonic() + 10
        while True:
            try:
                return fetch(where, self.pki[master], machine(), "photos")
            except KeyRefused as error:
                if error.code != "busy" or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def refusals(self):
        return [entry.fields for entry in entries(self.folder, Kind.KEY_REFUSED)]
