"""The vault as a process of its own: many masters at once, and SIGKILL while it writes.

TEMPO_VAULT_CYCLES and TEMPO_VAULT_KILLS ask for more than a quick run has: 1000 and 100, say.
TEMPO_VAULT_REPORT names a file for the figures.
"""

import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from vault_scene import OTHER, entries, machine, make_pki, policy

from tempo.trust.ledger import Kind
from tempo.trust.sealed import DataKey
from tempo.trust.vault import KeyRefused, PassphraseRoot, Store, fetch
from tempo.trust.vault.root import ROOT_FILE

pytestmark = pytest.mark.security

CYCLES = int(os.environ.get("TEMPO_VAULT_CYCLES", "100"))
KILLS = int(os.environ.get("TEMPO_VAULT_KILLS", "3"))
AT_ONCE = 50
TEMPO = [sys.executable, "-c", "from tempo.cli import main; main()"]
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What an owner has in-house: certificates and a passphrase file."""
    folder = tmp_path_factory.mktemp("home")
    masters = tuple(f"master-{i}" for i in range(AT_ONCE))
    pki = make_pki(folder / "pki", masters)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    (folder / "passphrase").chmod(0o600)
    return folder, pki


@contextmanager
def serving(home, where, *options):
    """A server in a process of its own: its endpoint and the process. Ended by SIGTERM unless it is gone."""
    folder, pki = home
    tls = pki["vault"]
    words = ["vault", "serve", where, "--listen", "127.0.0.1:0", "--cert", tls.cert, "--key", tls.key]
    words += ["--ca", tls.ca, "--passphrase-file", folder / "passphrase", "--json", *options]
    with (where.parent / "serve.err").open("a") as errors:
        process = subprocess.Popen(
            [*TEMPO, *map(str, words)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, (where.parent / "serve.err").read_text()
            text += line
        yield json.loads(text)["rows"][0]["listening"], process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (where.parent / "serve.err").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def test_masters_at_once_lose_nothing_and_get_nothing_twice(home, tmp_path):
    folder, pki = home
    where = tmp_path / "vault"
    keys = [DataKey.generate() for _ in range(2)]
    store = Store.open(where, make_vault(where, keys[0]))
    store.grant("photos", policy())
    rates = ("--rate", 10**6, "--client-rate", 10**6, "--max-connections", AT_ONCE)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(CYCLES):
        todo.put(number)
    got, refused, failed, seconds = [], [], [], []

    def master(name):
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            wrong = number % 10 == 9
            began = time.monotonic()
            try:
                shown = machine(OTHER) if wrong else machine()
                got.append((wrong, fetch(endpoint, pki[name], shown, "photos").name))
            except KeyRefused as error:
                refused.append((wrong, error.code))
            except Exception as error:
                failed.append(error)
            seconds.append(time.monotonic() - began)

    with serving(home, where, *rates) as (endpoint, process):
        threads = [threading.Thread(target=master, args=(f"master-{i}",)) for i in range(AT_ONCE)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        # The owner works on meanwhile.
        store.rotate("photos", keys[1])
        for thread in threads:
            thread.join(280)
        took = time.monotonic() - began
        before = len(entries(where, Kind.KEY_RELEASED))
        store.revoke("photos")
        with pytest.raises(KeyRefused) as caught:
            fetch(endpoint, pki["master-0"], machine(), "photos")
        assert caught.value.code == "key"
    store.close()
    assert failed == []
    assert len(got) == CYCLES - CYCLES // 10
    assert {name for _, name in got} <= {key.name for key in keys}
    assert not any(wrong for wrong, _ in got)
    assert refused == [(True, "evidence")] * (CYCLES // 10)
    # The log has each release once, and nothing else.
    released = entries(where, Kind.KEY_RELEASED)
    assert len(released) == before == len(got)
    assert len({entry.fields["nonce"] for entry in released}) == len(got)
    assert len({entry.fields["recipient"] for entry in released}) == len(got)
    assert len(entries(where, Kind.KEY_REFUSED)) == len(refused) + 1
    errors = (tmp_path / "serve.err").read_bytes()
    for path in [*where.rglob("*"), tmp_path / "serve.err"]:
        if path.is_file():
            assert not any(key.unsafe_bytes() in path.read_bytes() for key in keys)
    assert b"Traceback" not in errors
    if report := os.environ.get("TEMPO_VAULT_REPORT"):
        seconds.sort()
        figures = {"cycles": CYCLES, "at_once": AT_ONCE, "seconds": round(took, 2)}
        figures |= {"per_second": round(CYCLES / took, 1), "median_s": round(statistics.median(seconds), 3)}
        figures |= {"p99_s": round(seconds[int(0.99 * len(seconds))], 3), "released": len(got)}
        Path(report).write_text(json.dumps(figures | {"refused": len(refused), "lost": len(failed)}) + "\n")


WRITER = """
import sys
from pathlib import Path
from tempo.trust.sealed import DataKey
from tempo.trust.vault import PassphraseRoot, Store
folder = Path(sys.argv[1])
store = Store.open(folder, PassphraseRoot.open(folder / "root.json", sys.argv[2].encode()))
print("ready", flush=True)
sys.stdin.readline()
while True:
    made = store.grant("photos", b"policy")
    print(made.number, flush=True)
    if made.number % 5 == 0:
        store.revoke_grant(made.number)
        print(-made.number, flush=True)
"""


def make_vault(where, key=None):
    where.mkdir()
    root = PassphraseRoot.create(where / ROOT_FILE, PASSPHRASE.encode())
    with Store.create(where, "example.org/vault", root) as store:
        store.add("photos", key or DataKey.generate())
    return root


def killed_while_writing(where, seconds):
    """Grants (numbers) and revocations (negative) that a writer acknowledged before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(where), PASSPHRASE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.kill()
        return [int(line) for line in process.stdout.read().split("\n")[:-1]]


def all_there(where, root, acknowledged):
    """Opens the vault as the next process would; compares it with what was acknowledged and with the log."""
    with Store.open(where, root) as store:
        store.journal().close()  # raises where log and database disagree
        state = store.state()
    grants = {grant.number: grant for grant in state.grants}
    assert [n for n in acknowledged if n > 0 and n not in grants] == []
    assert [n for n in acknowledged if n < 0 and grants[-n].revoked is None] == []
    changed = [entry.fields for entry in entries(where, Kind.KEY_CHANGED)]
    assert [fields["change"] for fields in changed] == list(range(1, state.change + 1))
    assert sorted(f["grant"] for f in changed if f["action"] == "granted") == sorted(grants)
    # One that was under way may be there as well, whole: no more.
    assert len(grants) - len([n for n in acknowledged if n > 0]) <= KILLS


def test_sigkill_while_it_writes(tmp_path):
    where = tmp_path / "vault"
    root = make_vault(where)
    acknowledged = []
    for _ in range(KILLS):
        acknowledged += killed_while_writing(where, random.uniform(0.02, 0.5))
        all_there(where, root, acknowledged)
    assert len(acknowledged) >= KILLS


def test_sigkill_of_the_server_that_holds_the_log(home, tmp_path):
    """A command waits for the server to enter its change; that is killed: the command enters it itself."""
    folder, pki = home
    where = tmp_path / "vault"
    root = make_vault(where)
    with Store.open(where, root) as store:
        store.grant("photos", policy())
        with serving(home, where, "--client-rate", 10**6, "--rate", 10**6) as (endpoint, process):
            stop = threading.Event()
            done = []

            def work(stop=stop, done=done):
                while not stop.is_set():
                    done.append(store.grant("photos", b"policy", client="nobody").number)

            released = []
            writer = threading.Thread(target=work)
            writer.start()
            for _ in range(5):
                released.append(fetch(endpoint, pki["master-0"], machine(), "photos"))
            process.kill()
            process.wait()
            time.sleep(0.3)
            stop.set()
            writer.join(60)
            assert done
            assert set(done) <= {grant.number for grant in store.state().grants}
            changes = [entry.fields["change"] for entry in entries(where, Kind.KEY_CHANGED)]
            assert changes == list(range(1, store.state().change + 1))
        assert len(entries(where, Kind.KEY_RELEASED)) == 5
