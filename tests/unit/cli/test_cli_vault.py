"""`tempo vault`: its options, frozen; what it prints, refuses and exits with."""

import json
import shlex
from pathlib import Path

import pytest
import typer
from vault_scene import entries, policy

import tempo.cli as cli
from tempo.cli import vault_options
from tempo.trust.ledger import Kind
from tempo.trust.policy_key import PolicySigner
from tempo.trust.sealed import DataKey
from tempo.trust.vault import root

pytestmark = pytest.mark.security

COMMON = {"--passphrase-file", "--pkcs11-module", "--kms-key", "--json"}
OPTIONS = {
    "init": COMMON | {"--name", "--pkcs11-token", "--pkcs11-key"},
    "add": COMMON | {"--from", "--expires"},
    "rotate": COMMON | {"--from", "--expires"},
    "grant": COMMON | {"--policy", "--signer", "--client", "--expires"},
    "revoke": COMMON | {"--version", "--grant"},
    "list": COMMON,
    "passphrase": {"--passphrase-file", "--new-passphrase-file", "--json"},
    "reseal": COMMON | {"--to"},
    "sealed": COMMON,
    "serve": COMMON
    | {"--listen", "--cert", "--key", "--ca", "--crl", "--collateral", "--max-connections", "--client-rate"}
    | {"--rate", "--nonce-seconds"},
}
WORDS = "correct horse battery staple"


def test_the_options_are_frozen():
    group = typer.main.get_command(cli.app).commands["vault"]
    found = {
        verb: {o for p in command.params for o in p.opts if o.startswith("-")}
        for verb, command in group.commands.items()
    }
    assert found == OPTIONS
    assert not any("passphrase" in o and "file" not in o for options in found.values() for o in options)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An owner's folder, with a cheap Argon2id: its cost is tested with the root key."""
    monkeypatch.setattr(root, "COST", root._Cost(iterations=1, lanes=1, memory_kib=8192))
    (tmp_path / "words").write_text(WORDS + "\n")
    (tmp_path / "words").chmod(0o600)
    signer = PolicySigner.generate()
    signer.public.save(tmp_path / "engineer.pub")
    (tmp_path / "policy.toml").write_bytes(policy())
    (tmp_path / "policy.toml.sig").write_text(signer.sign(policy()))
    return tmp_path


def vault(home, verb, *words, passphrase="words"):
    return cli.run(["vault", verb, *map(str, words), "--passphrase-file", str(home / passphrase)])


def rows(capsys):
    out = capsys.readouterr().out
    return json.loads(out)


def make(home, capsys):
    where = home / "vault"
    assert vault(home, "init", where, "--name", "example.org/vault") == 0
    capsys.readouterr()
    return where


def grant(home, where, name, *more):
    signed = ("--policy", home / "policy.toml", "--signer", home / "engineer.pub")
    return vault(home, "grant", where, name, *signed, *more)


def test_a_vault_from_beginning_to_end(home, capsys):
    where = make(home, capsys)
    assert where.stat().st_mode & 0o077 == 0
    DataKey.generate().save(home / "photos.key")
    key = DataKey.load(home / "photos.key")
    assert vault(home, "add", where, "photos", "--from", home / "photos.key", "--expires", "30d") == 0
    said = capsys.readouterr().out
    assert key.name in said
    assert "in the clear" in said
    assert vault(home, "add", where, "letters", "--json") == 0
    assert rows(capsys)["rows"][0]["version"] == 1
    assert vault(home, "rotate", where, "photos") == 0
    assert grant(home, where, "photos", "--client", "trainer", "--expires", "2999-01-01T00:00Z") == 0
    assert "Grant 1" in capsys.readouterr().out
    assert grant(home, where, "photos", "--json") == 0
    assert rows(capsys)["rows"][0]["grant"] == 2
    assert vault(home, "revoke", where, "photos", "--version", "1") == 0
    assert vault(home, "revoke", where, "--grant", "1") == 0
    capsys.readouterr()
    assert vault(home, "list", where, "--json") == 0
    shown = rows(capsys)
    assert shown["verb"] == "vault list"
    assert [(r["key"], r["version"], r["state"]) for r in shown["rows"]] == [
        ("letters", 1, "active"),
        ("photos", 1, "revoked"),
        ("photos", 2, "active"),
    ]
    assert shown["rows"][1]["key_id"] == key.name
    assert [(g["grant"], g["client"], g["state"]) for g in shown["grants"]] == [
        (1, "trainer", "revoked"),
        (2, None, "active"),
    ]
    assert shown["change"] == 7
    assert vault(home, "list", where) == 0
    assert "photos" in capsys.readouterr().out
    assert [e.fields["action"] for e in entries(where, Kind.KEY_CHANGED)] == [
        *("added", "added", "rotated", "granted", "granted", "revoked", "grant_revoked")
    ]
    # The log is one that `tempo log verify` takes, with the key that lies beside it.
    assert cli.run(["log", "verify", str(where / "log"), "--key", str(where / "log.pub")]) == 0
    public = key.unsafe_bytes()
    assert not any(public in path.read_bytes() for path in where.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("add", "photos"), 2, "rotate"),
        (("add", "a b"), 2, "a name has"),
        (("add", "more", "--expires", "soon"), 2, "is no time"),
        (("add", "more", "--expires", "2999-01-01"), 2, "no time zone"),
        (("add", "more", "--expires", "2001-01-01T00:00Z"), 2, "expired already"),
        (("add", "more", "--from", "/nowhere"), 2, "cannot be read"),
        (("rotate", "nowhere"), 2, "there is no key"),
        (("revoke",), 2, "name a key"),
        (("revoke", "photos", "--grant", "1"), 2, "name a key"),
        (("revoke", "--grant", "9"), 2, "no grant 9"),
    ],
)
def test_what_it_refuses(home, capsys, words, code, says):
    where = make(home, capsys)
    vault(home, "add", where, "photos")
    capsys.readouterr()
    assert vault(home, words[0], where, *words[1:]) == code
    assert says in capsys.readouterr().err


def test_only_signed_policies_are_granted(home, capsys):
    where = make(home, capsys)
    vault(home, "add", where, "photos")
    (home / "policy.toml").write_bytes(policy() + b"\n# more")
    assert grant(home, where, "photos") == 1
    assert "signature" in capsys.readouterr().err
    (home / "policy.toml.sig").unlink()
    assert grant(home, where, "photos") == 2
    PolicySigner.generate().public.save(home / "stranger.pub")
    (home / "engineer.pub").unlink()
    (home / "stranger.pub").rename(home / "engineer.pub")
    assert grant(home, where, "photos") == 2
    assert "granted" not in [e.fields["action"] for e in entries(where, Kind.KEY_CHANGED)]


def at_a_terminal(monkeypatch, prompt):
    monkeypatch.setattr(vault_options, "_has_terminal", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)


def test_passphrases(home, capsys, monkeypatch):
    where = make(home, capsys)
    (home / "wrong").write_text("another passphrase\n")
    (home / "wrong").chmod(0o600)
    assert vault(home, "list", where, passphrase="wrong") == 2
    assert "does not open" in capsys.readouterr().err
    (home / "words").chmod(0o644)
    assert vault(home, "list", where) == 2
    assert "chmod 600" in capsys.readouterr().err
    (home / "words").chmod(0o600)
    (home / "words").write_text("two\nlines\n")
    assert vault(home, "list", where) == 2
    asked = []

    def prompt(text, **options):
        asked.append(options)
        return WORDS

    at_a_terminal(monkeypatch, prompt)
    assert cli.run(["vault", "list", str(where)]) == 0
    assert asked[0]["hide_input"] is True
    assert WORDS not in "".join(capsys.readouterr())


def test_init_makes_no_vault_over_another(home, capsys):
    where = make(home, capsys)
    assert vault(home, "init", where, "--name", "x") == 2
    assert "not empty" in capsys.readouterr().err
    (home / "short").write_text("short\n")
    (home / "short").chmod(0o600)
    assert vault(home, "init", home / "new", "--name", "x", passphrase="short") == 2
    assert vault(home, "init", home / "new", "--name", "x", "--pkcs11-token", "t") == 2
    assert vault(home, "list", home / "new") == 2
    assert "tempo vault init" in capsys.readouterr().err


def test_the_commands_of_the_document(home, capsys, monkeypatch):
    """docs/vault.md, from `init` to the certificates, as they stand there; `serve` has its tests in e2e."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "vault.md").read_text()
    lines = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    monkeypatch.chdir(home)
    at_a_terminal(monkeypatch, lambda *text, **options: WORDS)
    (home / "policy.toml.sig").unlink()
    (home / "photos").mkdir()
    (home / "photos" / "one.txt").write_text("data")
    served = [line for line in lines if "vault serve" in line]
    for line in lines:
        if line not in served:
            assert cli.run(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    assert len(served) == 1
    assert (home / "pki" / "vault.pem").is_file()
    assert [e.fields["action"] for e in entries(home / "keys", Kind.KEY_CHANGED)] == ["added", "granted"]


def test_an_altered_vault_is_exit_1(home, capsys):
    import sqlite3

    where = make(home, capsys)
    vault(home, "add", where, "photos")
    with sqlite3.connect(where / "vault.db") as db:
        db.execute("UPDATE keys SET expires = 1")
    db.close()
    assert vault(home, "list", where) == 1
    assert "not as the vault wrote it" in capsys.readouterr().err


def test_another_passphrase(home, capsys):
    where = make(home, capsys)
    (home / "new").write_text("purple elephants dance at noon\n")
    (home / "new").chmod(0o600)
    assert vault(home, "passphrase", where, "--new-passphrase-file", home / "new") == 0
    assert "Destroy old copies" in capsys.readouterr().out
    assert vault(home, "list", where) == 2
    assert vault(home, "list", where, passphrase="new") == 0
    assert [e.fields["action"] for e in entries(where, Kind.KEY_CHANGED)] == ["passphrase_changed"]
    assert vault(home, "passphrase", where, "--new-passphrase-file", home / "new", passphrase="new") == 2
    assert "the old one" in capsys.readouterr().err
    assert vault(home, "passphrase", home / "nowhere", "--new-passphrase-file", home / "new") == 2


def test_files_under_a_retired_key(home, capsys):
    where = make(home, capsys)
    (home / "data").mkdir()
    (home / "data" / "x").write_text("data")
    photos = str(home / "photos.tempo")
    seal = ["seal", str(home / "data"), photos, "--key", str(home / "k"), "--create-key"]
    assert cli.run(seal) == 0
    assert vault(home, "add", where, "photos", "--from", home / "k") == 0
    assert vault(home, "rotate", where, "photos") == 0
    assert vault(home, "revoke", where, "photos", "--version", "1") == 0
    capsys.readouterr()
    assert vault(home, "sealed", where, photos, "--json") == 0
    (row,) = rows(capsys)["rows"]
    assert (row["key"], row["version"], row["state"]) == ("photos", 1, "revoked")
    assert vault(home, "reseal", where, photos, home / "new.tempo") == 0
    assert "photos version 1" in capsys.readouterr().out
    assert vault(home, "sealed", where, home, "--json") == 0
    assert [r["state"] for r in rows(capsys)["rows"]] == ["active", "revoked"]
    assert vault(home, "sealed", where, home) == 0
    assert "revoked" in capsys.readouterr().out
    assert vault(home, "reseal", where, photos, home / "new.tempo") == 2
    assert vault(home, "reseal", where, home / "k", home / "other.tempo") == 2
    assert "no sealed file" in capsys.readouterr().err
