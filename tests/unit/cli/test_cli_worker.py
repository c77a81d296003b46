"""`tempo worker`: certificates, what it prints, how it ends, what it refuses to start with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import tempo.cli as cli
from tempo.errors import UsageError
from tempo.fleet import RemoteWorker, TlsFiles

TEMPO = [sys.executable, "-c", "from tempo.cli import main; main()"]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    for command in (
        ["ca", str(folder)],
        ["issue", str(folder), "--name", "gpu", "--role", "worker", "--host", "127.0.0.1"],
        ["issue", str(folder), "--name", "m", "--role", "master", "--days", "2"],
    ):
        assert cli.run(["worker", *command]) == 0
    return folder


def files(pki: Path, name: str) -> TlsFiles:
    return TlsFiles(pki / f"{name}.pem", pki / f"{name}.key", pki / "ca.pem")


def options(pki: Path) -> list[str]:
    return ["--cert", str(pki / "gpu.pem"), "--key", str(pki / "gpu.key"), "--ca", str(pki / "ca.pem")]


def test_options_of_the_authority_are_frozen() -> None:
    group = typer.main.get_command(cli.app).commands["worker"]
    found = {name: [p.opts[-1] for p in command.params] for name, command in group.commands.items()}
    assert found == {
        "ca": ["folder", "--days", "--force", "--json"],
        "issue": ["folder", "--name", "--role", "--host", "--days", "--force", "--json"],
        "revoke": ["folder", "names", "--serial", "--days", "--json"],
    }


def test_files_are_not_overwritten(pki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["worker", "ca", str(pki)]) == 2
    assert cli.run(["worker", "issue", str(pki), "--name", "gpu", "--role", "worker"]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.run(["worker", "issue", str(pki), "--name", "x", "--role", "worker"]) == 0
    printed = capsys.readouterr().out
    assert "x.pem" in printed
    assert "PRIVATE" not in printed


def test_a_list_of_revoked_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "pki")
    assert cli.run(["worker", "ca", folder]) == 0
    assert cli.run(["worker", "issue", folder, "--name", "gpu", "--role", "worker"]) == 0
    assert cli.run(["worker", "revoke", folder]) == 0
    assert "0 certificates" in capsys.readouterr().out
    assert cli.run(["worker", "revoke", folder, "gpu", "--days", "7"]) == 0
    assert "Revoked now: 1" in capsys.readouterr().out
    assert cli.run(["worker", "revoke", folder, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verb"] == "worker revoke"
    assert [row["added"] for row in printed["rows"]] == [False]
    assert cli.run(["worker", "revoke", folder, "nobody"]) == 2
    assert "issued no certificate" in capsys.readouterr().err
    assert cli.run(["worker", "--listen", "unix:/tmp/x", "--crl", f"{folder}/ca.crl"]) == 2
    assert "--crl goes with" in capsys.readouterr().err


@pytest.mark.security
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--listen"),
        (["--listen", "127.0.0.1:0"], "--unsafe-plaintext"),
        (["--listen", "nonsense"], "no endpoint"),
        (["--listen", "127.0.0.1:0", "--cert", "x"], "given together"),
        (["--listen", "unix:/tmp/x", "--memory", "lots"], "expected bytes"),
        (["--listen", "unix:/tmp/x", "--device", "cuda:99"], "no device"),
        (["--listen", "127.0.0.1:0", "--cert", "x", "--key", "y", "--ca", "z"], "x cannot be read"),
        (
            ["--listen", "127.0.0.1:0", "--cert", "x", "--key", "y", "--ca", "z", "--unsafe-plaintext"],
            "exclude",
        ),
    ],
)
def test_what_it_does_not_start_with(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["worker", *arguments]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_an_address_that_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["worker", "--listen", "192.0.2.1:7443", "--unsafe-plaintext"]) == 3
    assert "cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1", "512", "512M", "3g", "2GiB", "7KB", "1T"])
def test_memory(text: str) -> None:
    from tempo.cli.worker import _nbytes

    expected = {"1": 1, "512": 512, "512M": 512 << 20, "3g": 3 << 30, "2GiB": 2 << 30, "7KB": 7 << 10}
    assert _nbytes(text) == expected.get(text, 1 << 40)
    for wrong in ("0", "-1", "1.5G", "M", "1X", ""):
        with pytest.raises(UsageError):
            _nbytes(wrong)


@pytest.mark.security
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_where_it_listens_serves_and_ends_in_order(
    pki: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = ["worker", "--listen", "127.0.0.1:0", *options(pki), "--json", "--threads", "1"]
    command += ["--record", str(tmp_path / "seen"), "--memory", "64M"]
    process = subprocess.Popen(
        [*TEMPO, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()
    fields = json.loads(text)
    assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"]
    assert fields["verb"] == "worker"
    (row,) = fields["rows"]
    assert row.keys() == {"listening", "device", "tls", "memory_bytes", "max_connections"}
    assert (row["tls"], row["memory_bytes"], row["max_connections"]) == (True, 64 << 20, 4)
    worker = RemoteWorker(row["listening"], tls=files(pki, "m"))
    worker.connect()
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch" in loaded
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "serves m" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "seen").iterdir())) == 1
    worker.close()


@pytest.mark.security
def test_the_listening_worker_loads_nothing_that_knows_keys() -> None:
    code = (
        "import sys, tempo.cli, tempo.cli.worker, tempo.worker.listener\n"
        "bad = ('secrecy', 'integrity', 'engine', 'session', 'nn', 'fleet', 'lowering', 'kernels')\n"
        "print([m for m in sys.modules if m.startswith('tempo.') and m.split('.')[1] in bad],\n"
        "      'tempo.wire.authority' in sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["[]", "False"], (done.stderr, time.monotonic() - started)
