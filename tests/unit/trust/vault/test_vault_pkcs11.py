"""A root key in a token, with SoftHSM where it is installed.

Not marked `security`: where there is no token these tests skip, and docs/vault.md says what was run.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from vault_scene import machine, make_pki, policy

from tempo.errors import TamperedError, UnsupportedError, UsageError
from tempo.trust.sealed import DataKey
from tempo.trust.vault import Store, fetch
from tempo.trust.vault.pkcs11 import Pkcs11Root
from tempo.trust.vault.root import ROOT_FILE

PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
MODULE = next(
    (Path(p) for p in (os.environ.get("SOFTHSM2_MODULE", ""), *PLACES) if p and Path(p).exists()), None
)
PIN = "1234-5678"


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """The module of a token called "vault"."""
    pytest.importorskip("pkcs11")
    tool = os.environ.get("SOFTHSM2_UTIL") or shutil.which("softhsm2-util")
    if MODULE is None or tool is None:
        pytest.skip("SoftHSM is not installed")
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    words = ["--init-token", "--free", "--label", "vault", "--so-pin", PIN, "--pin", PIN]
    subprocess.run([tool, "--module", str(MODULE), *words], check=True, capture_output=True)
    return MODULE, folder


def test_a_vault_on_a_token(token, tmp_path):
    module, hsm = token
    folder = tmp_path / "vault"
    folder.mkdir()
    key = DataKey.generate()
    root = Pkcs11Root.create(folder / ROOT_FILE, module, "vault", "one", PIN)
    with Store.create(folder, "example.org/vault", root) as store:
        store.add("photos", key)
    again = Pkcs11Root.open(folder / ROOT_FILE, module, PIN)
    with Store.open(folder, again) as store:
        (found,) = store.state().keys
        assert store.unwrap(found).unsafe_bytes() == key.unsafe_bytes()
        with pytest.raises(TamperedError):
            again.unwrap(found.wrapped, b"something else")
        with pytest.raises(TamperedError):
            again.unwrap(found.wrapped[:-1] + b"\0", b"")
    for path in [*folder.rglob("*"), *hsm.rglob("*")]:
        if path.is_file():
            assert key.unsafe_bytes() not in path.read_bytes()


def test_a_vault_on_a_token_serves(token, tmp_path):
    import threading

    from tempo.trust.vault import Machines, Rate, Server, ServeSettings
    from tempo.wire import Endpoint

    module, _ = token
    folder = tmp_path / "vault"
    folder.mkdir()
    pki = make_pki(tmp_path / "pki")
    root = Pkcs11Root.create(folder / ROOT_FILE, module, "vault", "two", PIN)
    key = DataKey.generate()
    with Store.create(folder, "example.org/vault", root) as store:
        store.add("photos", key)
        store.grant("photos", policy())
        settings = ServeSettings(
            endpoint=Endpoint.parse("127.0.0.1:0"), tls=pki["vault"], client_rate=Rate(6000, 100)
        )
        with Server(store, Machines(), settings) as server:
            thread = threading.Thread(target=server.serve)
            thread.start()
            found = []

            def ask():
                found.append(fetch(server.endpoint, pki["trainer"], machine(), "photos").name)

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join(30)
            server.stop()
            thread.join(30)
        assert found == [key.name] * 8


def test_what_a_token_refuses(token, tmp_path):
    module, _ = token
    path = tmp_path / ROOT_FILE
    Pkcs11Root.create(path, module, "vault", "three", PIN).close()
    with pytest.raises(UsageError, match="already"):
        Pkcs11Root.create(tmp_path / "other", module, "vault", "three", PIN)
    with pytest.raises(UsageError, match="PIN"):
        Pkcs11Root.open(path, module, "0000-0000")
    with pytest.raises(UsageError, match="no token"):
        Pkcs11Root.create(tmp_path / "other", module, "nowhere", "x", PIN)
    path.write_text(path.read_text().replace("three", "four"))
    with pytest.raises(UsageError, match="no key"):
        Pkcs11Root.open(path, module, PIN)
    path.write_text('{"tempo_vault_root":1,"kind":"passphrase"}')
    with pytest.raises(UsageError, match="no root key"):
        Pkcs11Root.open(path, module, PIN)


def test_without_the_package_it_says_so(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(UnsupportedError, match="python-pkcs11"):
        Pkcs11Root.create(tmp_path / ROOT_FILE, Path("/nowhere.so"), "vault", "one", PIN)
