"""What the doctor says of tempo.toml, of certificates, and of what this machine can prove."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tempo.doctor import Host, Status, described, own, trust
from tempo.doctor.certificates import Greeting, greet, mend
from tempo.errors import UsageError
from tempo.fleet import RemoteWorker
from tempo.wire import Endpoint, TlsFiles, TlsRefused
from tempo.wire.authority import issue, make_authority
from tempo.wire.tls import Why

OK, NOTE, PROBLEM = Status.OK, Status.NOTE, Status.PROBLEM


@pytest.mark.parametrize(
    ("text", "status", "says", "mend", "workers"),
    [
        ('workers = "local:2"', OK, "scheme mixing; vault none", "", ["local:2"]),
        (
            'workers = ["a:1", "b:2"]\n[session]\nprobes = 3',
            OK,
            "scheme mixing, probes 3",
            "",
            ["a:1", "b:2"],
        ),
        ("", NOTE, "names no workers", "two local ones", None),
        ("[session]\nscheme = 'unsafe_none'", NOTE, "unsafe_none", "trials only: scheme unsafe_none", None),
        ("[session]\nunsafe_small = true\nmin_size = 8", NOTE, "min_size 8", "only: unsafe_small", None),
        ("[session]\nscheme = 'magic'", PROBLEM, "expected one of mixing", "correct", None),
        ("[watch]\nevery = 0", PROBLEM, "watch.every", "correct", None),
        ("[prices]\ntee = 1", PROBLEM, "unknown price", "correct", None),
        (
            "[session]\nscheme = 'shares'\n[workers]\na = 'a:1'\nb = ['b:1', 'b:2']\nc = 'c:1'",
            OK,
            "scheme shares",
            "",
            ["a:1", "b:1", "b:2", "c:1"],
        ),
    ],
)
def test_settings(text: str, status: Status, says: str, mend: str, workers: object, tmp_path: Path) -> None:
    path = tmp_path / "tempo.toml"
    path.write_text(text)
    found = described(path)
    assert (found.finding.status, found.workers) == (status, workers)
    assert says in found.finding.found
    assert mend in found.finding.mend


def test_a_simulated_machine_is_for_trials(tmp_path: Path) -> None:
    path = tmp_path / "tempo.toml"
    tls = "[vault.tls]\ncert = 'a'\nkey = 'b'\nca = 'c'\n"
    path.write_text(f"[vault]\naddress = 'v:1'\nunsafe_measurement = '{'00' * 48}'\n{tls}")
    found = described(path).finding
    assert (found.status, "vault named" in found.found) == (NOTE, True)
    assert "vault.unsafe_measurement" in found.mend


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    make_authority(tmp_path / "pki")
    return tmp_path / "pki"


def test_certificates_of_this_side(pki: Path) -> None:
    assert own(issue(pki, "m", "master", days=90)).status is OK
    soon = own(issue(pki, "soon", "master", days=3))
    assert (soon.status, "tempo worker issue" in soon.mend) == (NOTE, True)
    files = issue(pki, "open", "master")
    os.chmod(files.key, 0o644)
    assert own(files).status is PROBLEM
    assert "chmod 600" in own(files).mend
    assert own(TlsFiles(pki / "none.pem", pki / "none.key", pki / "ca.pem")).status is PROBLEM


@pytest.mark.parametrize(("days", "says"), [(-1, "expired on"), (2, "valid from")])
def test_certificates_of_another_day(days: int, says: str, pki: Path, monkeypatch) -> None:
    import tempo.wire.authority as authority

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr(authority, "datetime", Then)
    files = issue(pki, "m", "master", days=1)
    if days < 0:
        monkeypatch.setattr(
            "tempo.doctor.certificates.datetime",
            type("Later", (datetime,), {"now": classmethod(lambda cls, tz: datetime.now(tz) + timedelta(3))}),
        )
    found = own(files)
    assert found.status is PROBLEM
    assert says in found.found
    assert found.mend


def test_each_refused_handshake_says_what_to_do() -> None:
    said = {(why, by): mend(TlsRefused(why, by_peer=by)) for why in Why for by in (False, True)}
    assert all(said.values())
    assert "clock" in said[Why.EXPIRED, True]
    assert "clock" in said[Why.NOT_YET_VALID, False]
    assert "--role worker" in said[Why.WRONG_ROLE, False]
    assert "--role master" in said[Why.WRONG_ROLE, True]
    assert said[Why.WRONG_CA, True] == said[Why.SELF_SIGNED, False]


def test_files_at_fault_are_said_before_the_worker_is_dialled(tmp_path: Path, monkeypatch) -> None:
    """Else the connection would stay open."""
    make_authority(tmp_path)
    tls = issue(tmp_path, "m", "master")
    worker = RemoteWorker("127.0.0.1:1", name="gpu", tls=tls)
    monkeypatch.setattr(Endpoint, "connect", lambda *_: pytest.fail("it was dialled"))
    with pytest.raises(UsageError, match="none cannot be read"):
        greet(worker, replace(tls, crl=tmp_path / "none"))


def test_a_greeting_in_words() -> None:
    now = datetime.now(UTC)
    told = Greeting("TLSv1.3", now + timedelta(days=3), now - timedelta(days=1), now + timedelta(days=80))
    assert told.soon
    assert f"its clock between {told.since:%Y-%m-%d} and {told.until:%Y-%m-%d}" in str(told)


def test_evidence(tmp_path: Path, monkeypatch) -> None:
    host = Host(tmp_path, {})
    assert trust.evidence(host).status is NOTE
    assert "releases no key" in trust.evidence(host).mend
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").touch()
    fails = trust.evidence(host)
    assert (fails.status, "tempo-confidential[tpm]" in fails.mend) == (PROBLEM, True)

    asked: list[bytes] = []

    def made(kind, data, root):
        from tempo.trust.evidence.simulated import produce

        asked.append(data)
        return produce(data, bytes(48))

    monkeypatch.setattr(trust, "produce", made)
    good = trust.evidence(host)
    trust.evidence(host)
    assert good.status is OK
    assert good.found.startswith("tpm, ")
    assert len(asked[0]) == 64
    assert asked[0] != asked[1], "a fresh nonce each time"
