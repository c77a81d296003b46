"""The program in a rough world: pipes that close, full disks, plain locales, narrow terminals, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tempo
import tempo.cli as cli

PROJECT = Path(tempo.__file__).parents[1]
TEMPO = [sys.executable, "-m", "tempo"]
#: No help from Python: neither UTF-8 mode nor a better locale than was asked for.
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def ran(words: str, **settings: str) -> subprocess.CompletedProcess[bytes]:
    """`tempo WORDS` in a shell, where redirections stand in `words`."""
    line = words.replace("tempo", " ".join(TEMPO), 1)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**os.environ, "PYTHONPATH": str(PROJECT), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("verb", ["vault --help", "completion bash", "log show log --key log.pub"])
def test_a_reader_that_goes_away(verb: str, log: Path) -> None:
    """As `| head -1` does, once the pipe is full or closed; here it is closed from the start."""
    done = ran(f"tempo {verb} | true", PYTHONUNBUFFERED="1")
    assert done.returncode in (0, cli.CLOSED)
    assert done.stderr == b""


def test_closed_pipes_have_a_code_of_their_own() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*TEMPO, "completion", "bash"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (cli.CLOSED, b"")


def test_another_pipe_that_breaks_is_a_failure(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """Of a process that died as it was started, say: nobody may take that for `| head -1`."""

    def broken(*_: object) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            os.write(writing, b"x")
        finally:
            os.close(writing)

    monkeypatch.setattr("tempo.doctor.examine_host", broken)
    assert cli.run(["doctor"]) == 3
    assert capfd.readouterr().err.startswith("Error: Broken pipe.")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tempo.trust.ledger import Kind, Ledger, Signer

    monkeypatch.chdir(tmp_path)
    signer = Signer.generate("example.org/x")
    with Ledger.create(tmp_path / "log", signer) as ledger:
        ledger.append(Kind.SESSION_OPENED, version="0", scheme="mixing", workers=["プロバイダ"])
    (tmp_path / "log.pub").write_text(str(signer.verifier))
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    ["--help", "--version", "completion zsh", "attack --list", "log show log --key log.pub --json"],
)
def test_a_full_disk(verb: str, log: Path) -> None:
    done = ran(f"tempo {verb} >/dev/full")
    assert done.returncode == 3
    assert done.stderr.decode().strip() == "Error: No space left on device. Make room, or write elsewhere"


def test_a_full_disk_under_a_file(log: Path) -> None:
    done = ran("tempo log export log --key log.pub --entry 0 --out /dev/full/x")
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


def test_standard_output_is_closed() -> None:
    done = ran("tempo --version >&-")
    assert done.returncode == 3
    assert b"standard output is closed" in done.stderr
    assert ran("tempo --version 2>&-").returncode == 0


@pytest.mark.parametrize("settings", [PLAIN, {"PYTHONIOENCODING": "ascii"}], ids=["C", "ascii"])
def test_a_locale_without_these_characters(settings: dict[str, str], log: Path) -> None:
    done = ran("tempo log show log --key log.pub", **settings)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u30d7" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    "settings", [{"COLUMNS": "40"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}]
)
def test_narrow_plain_and_dumb_terminals(settings: dict[str, str], log: Path) -> None:
    done = ran("tempo log show log --key log.pub", **settings)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b[3" not in done.stdout
    if "COLUMNS" in settings:
        assert max(map(len, done.stdout.decode().splitlines())) <= 40


def test_no_terminal_to_ask_on(tmp_path: Path) -> None:
    """A passphrase is asked on a terminal; without one the option is named."""
    done = subprocess.run(
        [*TEMPO, "vault", "init", str(tmp_path / "vault"), "--name", "example.org/vault"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 2
    assert b"--passphrase-file" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    "text", ["workers = [", "workers = 7\n", "[session]\nfrobnicate = 1\n", "\x00", "[prices]\nx = 1"]
)
@pytest.mark.parametrize(
    "verb", [["doctor"], ["run", "train.py"], ["plan", "mlp:64x1"]], ids=lambda verb: verb[0]
)
def test_bad_settings(
    text: str, verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tempo.toml").write_text(text)
    Path("train.py").write_text("import tempo\ntempo.session()\n")
    if verb == ["plan", "mlp:64x1"] and not ("prices" in text or text[-1] == "[" or text == "\x00"):
        return  # it reads the prices alone
    code = cli.run(verb)
    printed = capsys.readouterr()
    assert code == (1 if verb == ["doctor"] else 2)  # to the doctor a bad file is a finding
    assert "Traceback" not in printed.err
    assert "tempo.toml" in printed.err + printed.out


@pytest.mark.parametrize("path", ["nowhere/x", "folder", "text/x"])
def test_files_that_cannot_be_had(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text").write_text("a,b\n1,2\n")
    Path("key").write_text("x")
    for words in (
        ["report", path],
        ["seal", "text", path, "--key", "new.key", "--create-key"],
        ["log", "verify", path, "--key", path],
        ["attest", "sign", path, "--key", path],
        ["attest", "produce", "--nonce", "00" * 32, "--out", path, "--kind", "unsafe-simulated"],
        ["plan", "mlp:64x1", "--calibration", path],
        ["plan", "mlp:64x1", "--prices", path],
        ["vault", "list", path],
        ["worker", "issue", path, "--name", "a", "--role", "worker"],
        ["doctor", "--config", path],
    ):
        code = cli.run(words)
        printed = capsys.readouterr()
        assert code in (1, 2, 3), (words, printed.err)
        assert "Traceback" not in printed.err
        assert (Path(path).name in printed.err + printed.out) or words[0] in ("doctor", "seal", "attest")


def test_ctrl_c() -> None:
    process = subprocess.Popen(
        [*TEMPO, "plan", "mlp:1024x3", "--workers", "cpu"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert b"operations of" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert out == b""
    assert b"Traceback" not in err
    assert err.decode().strip().endswith("Interrupted.")
