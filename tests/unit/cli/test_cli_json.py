"""`--json`: on every verb, one object on standard output, for what went well and for what did not."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_walk import Verb, verbs

import tempo.cli as cli
from tempo.cli.failures import wants_json
from tempo.errors import TamperedError

VERBS = [verb for verb in verbs() if verb.words and verb.runs]
NONCE = "11" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With what the verbs below take: a file, a passphrase, a script, wrong settings."""
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("a,b\n1,2\n")
    Path("words").write_text("correct horse\n")
    Path("words").chmod(0o600)
    Path("text").write_text("this is no result")
    return tmp_path


def one_object(text: str) -> dict[str, Any]:
    fields, end = json.JSONDecoder().raw_decode(text)
    assert text[end:].strip() == ""
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_every_verb_has_it_and_fails_in_it(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--json" in verb.options
    assert cli.run([*verb.words, "--json", "--frobnicate"]) == 2
    printed = capsys.readouterr()
    fields = one_object(printed.out)
    assert list(fields) == ["tempo", "verb", "error"]
    assert fields["verb"] == str(verb)
    assert fields["error"]["exit_code"] == 2
    assert "frobnicate" in fields["error"]["message"]
    assert "frobnicate" in printed.err


@pytest.mark.security
def test_verbs_that_are_done_soon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, each with what the one before left."""
    secret = ("--passphrase-file", "words")
    vault = ("vault", *secret)
    for words in (
        ("attack", "--list"),
        ("completion", "bash"),
        ("doctor",),
        ("worker", "ca", "pki"),
        ("worker", "issue", "pki", "--name", "gpu-a", "--role", "worker"),
        ("worker", "revoke", "pki", "gpu-a"),
        ("seal", "data.csv", "data.tempo", "--key", "data.key", "--create-key"),
        ("unseal", "data.tempo", "back.csv", "--key", "data.key"),
        ("vault", "init", *vault, "--name", "example.org/vault"),
        ("vault", "add", vault[0], "data", *secret, "--from", "data.key"),
        ("vault", "rotate", vault[0], "data", *secret),
        ("vault", "sealed", vault[0], "data.tempo", *secret),
        ("vault", "reseal", vault[0], "data.tempo", "data-2.tempo", *secret),
        ("vault", "revoke", vault[0], "data", "--version", "1", *secret),
        ("vault", "list", *vault),
        ("log", "verify", "vault/log", "--key", "vault/log.pub"),
        ("log", "show", "vault/log", "--key", "vault/log.pub"),
        ("log", "export", "vault/log", "--key", "vault/log.pub", "--entry", "0", "--out", "proof.json"),
        ("log", "verify", "proof.json", "--key", "vault/log.pub"),
        (
            *("attest", "produce", "--kind", "unsafe-simulated", "--unsafe-measurement", "00" * 48),
            *("--nonce", NONCE, "--out", "evidence.json"),
        ),
    ):
        assert cli.run([*words, "--json"]) == 0, words
        fields = one_object(capsys.readouterr().out)
        assert list(fields)[:5] == ["tempo", "verb", "machine", "commit", "rows"], words
        assert fields["rows"], words
        assert " ".join(words).startswith(fields["verb"])


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["report", "nowhere"], 3, "OutsideError"),
        (["report", "text"], 2, "UsageError"),
        (["report", "data.csv", "--key", "k"], 2, "UsageError"),
        (["run", "nowhere.py"], 3, "OutsideError"),
        (["plan", "nowhere.py:build"], 3, "OutsideError"),
        (["plan", "alexnet"], 2, "UsageError"),
        (["demo", "--out", "text"], 3, "OutsideError"),
        (["bench", "seal", "--workers", "1"], 2, "UsageError"),
        (["attack", "--truth", "text"], 2, "UsageError"),
        (["doctor", "--crl", "text"], 2, "UsageError"),
        (["seal", "nowhere", "out", "--key", "k", "--create-key"], 3, "DataError"),
        (["unseal", "text", "out", "--key", "text"], 2, "UsageError"),
        (["vault", "list", "nowhere"], 2, "UsageError"),
        (["log", "verify", "nowhere", "--key", "nowhere"], 2, "UsageError"),
        (["attest", "sign", "text", "--key", "k"], 2, "UsageError"),
        (["worker", "--listen", "nowhere"], 2, "UsageError"),
        (["worker", "--listen", "127.0.0.1:0"], 2, "UsageError"),
    ],
    ids=lambda each: " ".join(each[:2]) if isinstance(each, list) else str(each),
)
def test_what_fails(
    words: list[str], code: int, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.run([words[0], *words[1:], "--json"] if words[0] != "run" else ["run", "--json", words[1]])
        == code
    )
    printed = capsys.readouterr()
    error = one_object(printed.out)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert "Traceback" not in printed.err
    assert " ".join(error["message"].split()) in " ".join(printed.err.split())


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ("log verify x --json", True),
        ("log verify x", False),
        ("run --json train.py", True),
        ("run --config a.toml --json train.py", True),
        ("run train.py --json", False),
        ("run --config --json train.py", False),
        ("seal -- --json x", False),
    ],
)
def test_who_asked_for_it(argv: str, wanted: bool) -> None:
    assert wants_json(argv.split()) == wanted


def test_interrupted_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tempo.doctor.examine_host", stop)
    assert cli.run(["doctor", "--json"]) == 130
    printed = capsys.readouterr()
    assert one_object(printed.out)["error"] == {
        "kind": "Interrupted",
        "message": "interrupted",
        "exit_code": 130,
    }
    assert printed.err.strip() == "Interrupted."


@pytest.mark.security
def test_a_vault_that_cannot_go_on_prints_no_second_object(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it listens was printed long ago; why it ended is on standard error and in the exit code."""

    from tempo.trust.vault.journal import Journal

    drain, calls = Journal.drain, list[int]()

    def taken_back(self: Journal) -> None:
        calls.append(1)
        if len(calls) > 1:  # once when it is opened; then while the vault serves
            raise TamperedError("the database was taken back")
        drain(self)

    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    secret = ("--passphrase-file", "words")
    assert cli.run(["worker", "ca", "pki"]) == 0
    assert cli.run(["worker", "issue", "pki", "--name", "v", "--role", "vault", "--host", "localhost"]) == 0
    assert cli.run(["vault", "init", "vault", *secret, "--name", "example.org/vault"]) == 0
    monkeypatch.setattr(Journal, "drain", taken_back)
    capsys.readouterr()
    certificates = ("--cert", "pki/v.pem", "--key", "pki/v.key", "--ca", "pki/ca.pem")
    serve = ("vault", "serve", "vault", "--listen", "127.0.0.1:0", *certificates, *secret, "--json")
    try:
        assert cli.run(list(serve)) == 1
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    printed = capsys.readouterr()
    assert one_object(printed.out)["rows"][0]["name"] == "example.org/vault"
    assert "taken back" in printed.err
