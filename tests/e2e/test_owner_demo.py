"""`tempo demo --owner` as its user runs it: every step, no secret in what is left, no process, no folder.

A hook in every process of it (sitecustomize) notes the secrets that are drawn, for the search; and a mark in
their environment finds those that were left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from vault_scene import Scene, make_pki, policy

import tempo.cli as cli
from tempo.demo.owner import canaries, masters, measure, story
from tempo.demo.owner.acts_home import PROGRAM
from tempo.demo.owner.interrupts import Interrupts
from tempo.demo.owner.machine import UnsafeSimulator
from tempo.demo.owner.orders import LOG_CONTEXT, Orders, Refused, Released
from tempo.demo.owner.stage import Stage

TEMPO = [sys.executable, "-c", "from tempo.cli import main; main()"]

HOOK = """
import os, sys

_drawn = os.urandom

def urandom(count):
    found = _drawn(count)
    where = sys._getframe(1).f_code.co_filename
    ours = ("trust/sealed/keys.py", "secrecy/keys.py", "vault/store.py", "owner/home.py")
    if count >= 24 and where.endswith(ours):  # salts and nonces, which are no secrets, are shorter
        with open(os.environ["TEMPO_TEST_CANARIES"], "a") as file:
            file.write(f"{'/'.join(where.split('/')[-2:])} {found.hex()}\\n")
    return found

os.urandom = urandom
"""


class Run:
    """The command under watch. folder: results in `out`, temporary files in `tmp`."""

    def __init__(self, folder: Path, *options: str, path: str | None = None) -> None:
        self.out, self.tmp = folder / "out", folder / "t"
        self.tmp.mkdir()
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        self._canaries = folder / "canaries"
        self._mark = f"TEMPO_TEST_MARK={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        project = str(Path(cli.__file__).resolve().parents[2])
        self.environment = {
            **os.environ,
            name: value,
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), project]),
            "TEMPO_TEST_CANARIES": str(self._canaries),
            "OMP_NUM_THREADS": "1",
            **({} if path is None else {"PATH": path}),
        }
        self.process = subprocess.Popen(
            [*TEMPO, "demo", "--owner", "--json", "--fast", "--out", str(self.out), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def finished(self) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=280)
        return self.process.returncode, out, errors

    def secrets(self) -> dict[str, bytes]:
        lines = self._canaries.read_text().split()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {f"{number}: {where}": bytes.fromhex(drawn) for number, (where, drawn) in enumerate(pairs)}

    def processes(self) -> list[int]:
        """That bear the mark, zombies apart."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if self._mark.encode() in (folder / "environ").read_bytes():
                        found.append(int(folder.name))
                except OSError:
                    pass
        return found

    def assert_nothing_is_left(self) -> None:
        until = time.monotonic() + 5
        while self.processes() and time.monotonic() < until:
            time.sleep(0.1)
        assert self.processes() == []
        # PyTorch makes an empty folder for a compiler that nobody asked for.
        assert [path.name for path in self.tmp.iterdir() if not path.name.startswith("torchinductor_")] == []


def tell(folder: Path, *options: str) -> tuple[Run, dict]:
    run = Run(folder, *options)
    code, out, errors = run.finished()
    assert code == 0, errors
    assert "Traceback" not in errors
    (folder / "out" / "stdout").write_text(out)
    (folder / "out" / "stderr").write_text(errors)
    return run, json.loads(out)


def check(run: Run, fields: dict, kind: str) -> None:
    rows = {row["name"]: row for row in fields["rows"]}
    assert list(rows) == list(story.TITLES)
    assert [row["step"] for row in fields["rows"]] == list(range(1, len(rows) + 1))
    assert all(row["kept"] and row["broken"] == [] for row in fields["rows"])
    assert fields["broken_promises"] == []
    assert (fields["verb"], fields["story"], fields["attested_by"]) == ("demo", "owner", kind)
    facts = {name: row["facts"] for name, row in rows.items()}

    assert facts["seal"]["records"] == 1437
    assert facts["policy"]["kind"] == kind
    assert "another role" in rows["worker-refused"]["message"]
    refused = facts["master-refused"]
    assert (refused["code"], refused["step"]) == ("evidence", "policy 4 code")
    assert refused["found"].split()[1] != refused["expected"].split()[1]
    assert "unsafe_bytes" in refused["line"]
    assert "step policy 4 code" in rows["master-refused"]["message"]
    assert facts["key-released"]["key_id"] == facts["seal"]["key_id"]
    train = facts["train"]
    assert len(train["losses"]) == len(fields["plain_losses"]) == fields["steps"]
    assert train["losses"] == fields["tempo_losses"]
    assert 0 <= train["max_difference"] <= max(fields["allowed_differences"]) < 1e-3
    assert train["checks"] >= 10 * fields["steps"]
    assert (train["checks_failed"], train["local_fallbacks"]) == (0, 0)
    assert facts["model"]["accuracy"] == pytest.approx(facts["model"]["plain_accuracy"], abs=0.02)
    assert facts["model"]["tensors"] == 32
    assert facts["logs"]["vault"] == ["log_opened", *["key_changed"] * 2, "key_refused", "key_released"]
    assert facts["logs"]["master"] == [
        *("log_opened", "attestation", "session_opened", "configuration", "session_closed"),
        "checkpoint_written",
    ]

    altered = {name: rows[name] for name in rows if name.endswith("-altered")}
    messages = [row["message"] for row in altered.values()]
    assert len(set(messages)) == len(messages) == 5
    assert "data.tempo: segment" in altered["data-altered"]["message"]
    assert "model.tempo: segment" in altered["model-altered"]["message"]
    assert "step 3: entry 3 (line 4" in altered["log-altered"]["message"]
    step = "tpm 3 signature" if kind == "tpm" else "unsafe-simulated"
    assert f"refused at step {step}" in altered["evidence-altered"]["message"]
    assert "does not fit the policy" in altered["policy-altered"]["message"]
    for row in altered.values():
        assert row["facts"]["caught"] == row["facts"]["tried"] >= 64
        assert row["facts"]["missed"] == []
    assert facts["nothing-left"]["processes"] == 5 + 3 * (kind == "tpm")

    run.assert_nothing_is_left()
    secrets = run.secrets()
    homes = {name.split(": ")[1] for name in secrets}
    assert homes == {"sealed/keys.py", "secrecy/keys.py", "vault/store.py", "owner/home.py"}
    files, found = canaries.search(run.out, secrets)
    assert found == []
    assert files >= 13
    assert json.loads((run.out / "owner.json").read_text()) == fields


def check_papers(papers: Path, capsys) -> None:
    """The auditor's own commands, as docs/owner.md has them."""
    capsys.readouterr()
    for whose in ("vault", "master"):
        log = [str(papers / f"{whose}-log"), "--key", str(papers / f"{whose}-log.pub")]
        assert cli.run(["log", "verify", *log]) == 0
    nonce = (papers / "nonce").read_text()
    words = ["attest", "verify", str(papers / "evidence.json"), "--policy", str(papers / "policy.toml")]
    words += ["--signer", str(papers / "engineer.pub"), "--context", LOG_CONTEXT.decode()]
    words += ["--public-key", str(papers / "master-log.pub")]
    assert cli.run([*words, "--nonce", nonce]) == 0
    assert cli.run([*words, "--nonce", "00" * 32]) == 1
    capsys.readouterr()


@pytest.mark.security
def test_the_whole_story_with_the_simulator(tmp_path, capsys) -> None:
    run, fields = tell(tmp_path, "--unsafe-simulator")
    assert fields["unsafe_simulator"] is True
    check(run, fields, "unsafe-simulated")
    check_papers(run.out / "owner-papers", capsys)


def test_the_whole_story_with_a_software_tpm(tmp_path, capsys) -> None:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is not installed (pip extra tpm)")
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed (apt-get install swtpm libtss2-dev)")
    run, fields = tell(tmp_path)
    assert fields["unsafe_simulator"] is False
    check(run, fields, "tpm")
    check_papers(run.out / "owner-papers", capsys)


@pytest.mark.security
def test_without_a_software_tpm_nothing_is_shown(tmp_path) -> None:
    """The simulator is never chosen by itself."""
    run = Run(tmp_path, path=str(tmp_path))
    code, out, errors = run.finished()
    assert (code, list(json.loads(out))) == (2, ["tempo", "verb", "error"])
    assert "swtpm" in errors
    assert "--unsafe-simulator" in errors
    assert "Traceback" not in errors
    run.assert_nothing_is_left()


@pytest.mark.security
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(tmp_path, number) -> None:
    run = Run(tmp_path, "--unsafe-simulator")
    until = time.monotonic() + 120
    while len(run.processes()) < 4:  # itself, the vault and both workers
        assert run.process.poll() is None, run.finished()[2]
        assert time.monotonic() < until
        time.sleep(0.1)
    assert list(run.tmp.glob("tempo-owner-*"))
    run.process.send_signal(number)
    code, out, errors = run.finished()
    assert (code, json.loads(out)["error"]["kind"]) == (130, "Interrupted")
    assert "Traceback" not in errors
    run.assert_nothing_is_left()


@pytest.mark.security
def test_the_altered_program_would_steal_the_key(tmp_path) -> None:
    """What the refusal is worth: where the policy lets it, the program with one line more takes the key."""
    pki = make_pki(tmp_path / "pki")
    scene = Scene(tmp_path / "vault", pki)
    machine = UnsafeSimulator()
    with Interrupts() as interrupts, Stage(interrupts) as stage, scene.store:
        program = stage.folder / "altered.py"
        measure.altered(PROGRAM, program)
        how = machine.boot(program)
        with scene.serving() as endpoint:

            def orders(folder: Path) -> Orders:
                tls = pki["trainer"]
                return Orders(
                    folder=str(folder),
                    machine=how,
                    vault=str(endpoint),
                    workers=[],
                    cert=str(tls.cert),
                    tls_key=str(tls.key),
                    ca=str(tls.ca),
                    key="photos",
                    sealed="none",
                    recipient="none",
                    nonce=bytes(32),
                    scheme="mixing",
                    steps=1,
                    batch=1,
                    seed=0,
                    channels=1,
                    classes=10,
                )

            refused = masters.start(stage, program, "refused", orders)
            assert isinstance(refused.answer, Refused)
            assert not Path(refused.orders.folder, "stolen").exists()
            scene.store.grant("photos", policy(how.measurement))
            admitted = masters.start(stage, program, "admitted", orders)
            assert isinstance(admitted.answer, Released)
            assert Path(admitted.orders.folder, "stolen").read_bytes() == scene.key.unsafe_bytes()
            _, found = canaries.search(stage.folder, {"the key": scene.key.unsafe_bytes()})
            assert found == [f"the key lies in {Path('admitted', 'stolen')}"]
