"""`tempo.session()` and `tempo.data_key()`: from a file, one at a time, closed at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vault_scene import MEASUREMENT, Scene, make_pki

import tempo
from tempo.errors import OutsideError, UsageError
from tempo.run.current import settings
from tempo.run.vault import VaultSettings
from tempo.trust.vault import KeyRefused

TOML = 'workers = "cpu"\n[session]\nprobes = 3\n'


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tempo.toml"
    path.write_text(TOML)
    return path


def test_without_a_file_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for asks in (tempo.session, tempo.data_key):
        with pytest.raises(UsageError, match=r"no tempo\.toml in .*: write one .*tempo run --config FILE"):
            asks()


def test_one_session_until_it_is_closed(toml: Path) -> None:
    with settings(toml, lambda _: None):
        first = tempo.session(min_size=128)
        assert (first._config.probes, first._config.min_size) == (3, 128)
        assert tempo.session() is first
        with pytest.raises(UsageError, match="too late for min_size"):
            tempo.session(min_size=64)
        first.close()
        second = tempo.session()
        assert second is not first
        with pytest.raises(UsageError, match="already"), settings(toml, lambda _: None):
            pytest.fail("two runs")
    assert second.closed


def test_what_is_given_wins_over_the_file(toml: Path) -> None:
    toml.write_text(TOML + '[tls]\ncert = "c"\nkey = "k"\nca = "a"\n')
    tls = tempo.TlsFiles("x", "y", "z")
    with settings(toml, lambda _: None):
        with tempo.session(workers=["cpu", "cpu"]) as session:
            assert list(session.report().jobs) == ["cpu-0", "cpu-1"]
            assert session._config.probes == 3
        with tempo.session(config=tempo.Config(min_size=128), tls=tls, probes=2) as session:
            assert (session._config.probes, session._config.min_size) == (2, 128)
            assert session._tls is tls
        with tempo.session() as session:
            assert (list(session.report().jobs), session._config.probes) == (["cpu-0"], 3)
            assert session._tls is not None
            assert Path(session._tls.cert) == toml.parent / "c"


def test_the_file_of_the_run_is_used_wherever_the_script_goes(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tempo.Session] = []
    (tmp_path / "elsewhere").mkdir()
    with settings(toml, opened.append):
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert opened == [tempo.session()]


def test_under_plain_python_it_is_closed_at_exit(toml: Path, tmp_path: Path) -> None:
    liar = (
        "import tempo, torch\nfrom torch import nn\n"
        "from tempo.fleet import ProcessWorker\nfrom tempo.worker import Lie\n"
        "session = tempo.session()\n"
        "session.add_workers(ProcessWorker('liar', unsafe_lie=Lie.parse('flip_entry:0:9')))\n"
        "session.remove_worker('cpu-0')\n"
        "layer = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))\n"
        "layer(torch.randn(96, 64))\nprint('done')\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(tempo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", liar], capture_output=True, text=True, env=environ, timeout=120, check=True
    )
    assert done.stdout == "done\n"
    assert "INTEGRITY: 1 of 1 checks failed. Workers: liar." in done.stderr


# ---- the vault -------------------------------------------------------------------------------------


def test_a_key_from_the_vault_that_the_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki = make_pki(tmp_path / "pki")
    scene = Scene(tmp_path / "vault", pki)
    monkeypatch.chdir(tmp_path)
    with scene.serving() as where:
        head = f'[vault]\naddress = "{where}"\nunsafe_measurement = "{MEASUREMENT.hex()}"\n'
        tls = '[vault.tls]\ncert = "pki/trainer.pem"\nkey = "pki/trainer.key"\nca = "pki/ca.pem"\n'
        Path("tempo.toml").write_text(head + 'key = "photos"\n' + tls)
        assert tempo.data_key().name == scene.key.name
        assert tempo.data_key("photos", 1).name == scene.key.name
        with pytest.raises(KeyRefused):
            tempo.data_key("letters")
        Path("tempo.toml").write_text(head + tls)
        with pytest.raises(UsageError, match="which key"):
            tempo.data_key()
        Path("tempo.toml").write_text(head.partition("unsafe")[0] + 'key = "photos"\n' + tls)
        with pytest.raises(OutsideError, match="can produce no evidence"):
            tempo.data_key()
        Path("tempo.toml").write_text("")
        with pytest.raises(UsageError, match="names no vault"):
            tempo.data_key()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("address", None, "vault.address"),
        ("key", 3, "vault.key = 3"),
        ("evidence", "sworn", "expected one of sev-snp"),
        ("unsafe_measurement", "00ff", "96 hex digits"),
        ("unsafe_measurement", "zz" * 48, "96 hex digits"),
    ],
)
def test_vault_settings_that_are_wrong(field: str, value: object, says: str) -> None:
    given = {"address": "v.example:7444", "tls": tempo.TlsFiles("a", "b", "c"), field: value}
    with pytest.raises(UsageError, match=says):
        VaultSettings(**given)
