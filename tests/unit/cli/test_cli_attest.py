"""`tempo attest`: from a policy that is signed to evidence that is admitted, or refused at a step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

import tempo.cli as cli
from tempo.trust.evidence import Evidence, Kind, machine

pytestmark = pytest.mark.security

OPTIONS = {
    "produce": [
        *(
            "--nonce",
            "--out",
            "--kind",
            "--public-key",
            "--context",
            "--tcti",
            "--unsafe-measurement",
            "--json",
        ),
    ],
    "verify": [
        *("--policy", "--signer", "--nonce", "--public-key", "--context", "--collateral", "--at", "--json"),
    ],
    "draft": [
        *("--nonce", "--name", "--out", "--public-key", "--context", "--collateral", "--at", "--json"),
    ],
    "sign": ["--key", "--create-key", "--json"],
}
NONCE, CODE = "ab" * 32, "11" * 48
POLICY = f"""
tempo-policy = 1
name = "test [of the command line]"
allow-unsafe = true

[unsafe-simulated]
measurements = [{{ measurement = "{CODE}" }}]
"""


@pytest.fixture
def story(tmp_path: Path) -> dict[str, str]:
    """A signed policy, a key, and evidence for it; the arguments of `verify`."""
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "key").write_bytes(b"public key")
    names = {
        name: str(tmp_path / name) for name in ("policy.toml", "engineer", "engineer.pub", "key", "out.json")
    }
    assert cli.run(["attest", "sign", names["policy.toml"], "--key", names["engineer"], "--create-key"]) == 0
    assert produce(names) == 0
    return names


def produce(names: dict[str, str], code: str = CODE, nonce: str = NONCE) -> int:
    simulated = ["--kind", "unsafe-simulated", "--unsafe-measurement", code]
    bound = ["--nonce", nonce, "--public-key", names["key"], "--context", "vault"]
    return cli.run(["attest", "produce", *simulated, *bound, "--out", names["out.json"]])


def verify(names: dict[str, str], *more: str, nonce: str = NONCE, context: str = "vault") -> int:
    demanded = ["--policy", names["policy.toml"], "--signer", names["engineer.pub"]]
    bound = ["--nonce", nonce, "--public-key", names["key"], "--context", context]
    return cli.run(["attest", "verify", names["out.json"], *demanded, *bound, *more])


def test_options_are_frozen() -> None:
    group = typer.main.get_command(cli.app).commands["attest"]
    found = {
        name: [o for p in command.params for o in p.opts if o.startswith("-")]
        for name, command in group.commands.items()
    }
    assert found == OPTIONS


def test_admitted(story, capsys) -> None:
    assert verify(story) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "measurements.measurement" in out
    assert "admitted by the policy test [of the command line]" in out


def test_admitted_json(story, capsys) -> None:
    capsys.readouterr()
    assert verify(story, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"][0]["admitted"] is True
    assert printed["rows"][0]["measurements"] == {"measurement": CODE}
    assert printed["policy"] == "test [of the command line]"


@pytest.mark.parametrize(
    ("step", "given"),
    [("verifier 3 binding", {"nonce": "cd" * 32}), ("verifier 3 binding", {"context": "other"})],
)
def test_another_question(story, capsys, step, given) -> None:
    capsys.readouterr()
    assert verify(story, "--json", **given) == 1
    printed = capsys.readouterr()
    row = json.loads(printed.out)["rows"][0]
    assert (row["admitted"], row["step"]) == (False, step)
    assert row["found"]
    assert row["expected"]
    assert f"refused at step {step}" in printed.err


def test_another_key(story, capsys) -> None:
    Path(story["key"]).write_bytes(b"another key")
    assert verify(story) == 1
    assert "verifier 3 binding" in capsys.readouterr().err


def test_other_code(story, capsys) -> None:
    assert produce(story, code="22" * 48) == 0
    assert verify(story) == 1
    assert "policy 4 code" in capsys.readouterr().err


def test_what_was_altered(story, capsys) -> None:
    out = Path(story["out.json"])
    whole = out.read_bytes()
    out.write_bytes(whole[:-30])
    assert verify(story) == 1
    assert "envelope 1 form" in capsys.readouterr().err
    out.write_bytes(whole)
    policy = Path(story["policy.toml"])
    policy.write_text(POLICY.replace(CODE, "22" * 48))
    assert verify(story) == 1
    assert "does not fit the policy" in capsys.readouterr().err


def test_a_policy_that_does_not_admit_the_simulator(story, capsys) -> None:
    Path(story["policy.toml"]).write_text(POLICY.replace("allow-unsafe = true", ""))
    assert cli.run(["attest", "sign", story["policy.toml"], "--key", story["engineer"]]) == 2
    assert "proves nothing" in capsys.readouterr().err
    real = POLICY.replace("unsafe-simulated", "sev-snp").replace("allow-unsafe = true", "")
    Path(story["policy.toml"]).write_text(real)
    assert cli.run(["attest", "sign", story["policy.toml"], "--key", story["engineer"]]) == 0
    assert verify(story) == 1
    assert "policy 2 kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("says", "more"),
    [
        ("--at", ["--at", "yesterday"]),
        ("--at", ["--at", "2026-01-31T12:00:00"]),
        ("no folder", ["--collateral", "/nowhere"]),
    ],
)
def test_bad_usage(story, capsys, says, more) -> None:
    assert verify(story, *more) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("hexadecimal", ["--nonce", "xyz"]),
        ("32 bytes", ["--nonce", "ab"]),
        ("there are auto", ["--nonce", NONCE, "--kind", "sev"]),
        ("needs --unsafe-measurement", ["--nonce", NONCE, "--kind", "unsafe-simulated"]),
        ("alone", ["--nonce", NONCE, "--kind", "tdx", "--unsafe-measurement", CODE]),
        ("/dev/nsm", ["--nonce", NONCE, "--kind", "nitro"]),
    ],
)
def test_bad_usage_of_produce(tmp_path, capsys, says, arguments) -> None:
    assert cli.run(["attest", "produce", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_machine_without_evidence(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(machine, "available", lambda root=None: [])
    assert cli.run(["attest", "produce", "--nonce", NONCE, "--out", str(tmp_path / "out")]) == 3
    assert "no evidence" in capsys.readouterr().err


def test_the_best_is_taken(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(machine, "available", lambda root=None: [Kind.TDX, Kind.TPM])
    monkeypatch.setattr(machine, "produce", lambda kind, data, tcti: Evidence(kind, {"quote": data}))
    assert cli.run(["attest", "produce", "--nonce", NONCE, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    row = printed["rows"][0]
    assert row["kind"] == "tdx"
    assert row["bytes"] == {"quote": 64}
    assert Evidence.from_json((tmp_path / "out").read_bytes()).parts["quote"].hex() == row["report_data"]


def test_a_draft_admits_the_machine_that_it_is_of(story: dict[str, str], capsys) -> None:
    policy = str(Path(story["policy.toml"]).with_name("draft.toml"))
    asked = ["--nonce", NONCE, "--public-key", story["key"], "--context", "vault"]
    draft = ["attest", "draft", story["out.json"], *asked, "--name", "of the new image", "--out", policy]
    assert cli.run(draft) == 0
    assert "tempo attest sign" in capsys.readouterr().out
    assert CODE in Path(policy).read_text()
    assert cli.run(draft) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert cli.run(["attest", "sign", policy, "--key", story["engineer"]]) == 0
    verify = ["attest", "verify", story["out.json"], "--policy", policy, "--signer", story["engineer.pub"]]
    assert cli.run([*verify, *asked]) == 0
    assert produce(story, code="22" * 48) == 0
    assert cli.run([*verify, *asked]) == 1
    assert "policy 4 code" in capsys.readouterr().err
    wrong = ["attest", "draft", story["out.json"], "--nonce", "cd" * 32, "--name", "x", "--out", policy + "2"]
    assert cli.run(wrong) == 1
    assert not Path(policy + "2").exists()
