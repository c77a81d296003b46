"""Papers in a folder, and all of it together: a made machine from its report to the command line's answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import snp_maker as snp
from authorities import NOW, revoke
from cryptography.hazmat.primitives.serialization import Encoding

import tempo.cli as cli
from tempo.errors import UsageError
from tempo.trust.evidence import Collateral, Expected
from tempo.trust.evidence.chain import fingerprint

pytestmark = pytest.mark.security
NONCE = "5c" * 32


@pytest.fixture
def made() -> snp.Platform:
    return snp.platform()


def fill(folder: Path, made: snp.Platform) -> Path:
    folder.mkdir()
    (folder / "vcek.der").write_bytes(made.vcek.certificate.public_bytes(Encoding.DER))
    chain = (made.ask.certificate, made.ark.certificate)
    (folder / "chain.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in chain))
    (folder / "ark.crl").write_bytes(revoke(made.ark).public_bytes(Encoding.DER))
    (folder / "ask.crl").write_bytes(revoke(made.ask).public_bytes(Encoding.PEM))
    (folder / "platform.json").write_text("{}")
    (folder / "README.txt").write_text("left alone")
    return folder


def test_a_folder(tmp_path, made) -> None:
    found = Collateral.load(fill(tmp_path / "papers", made))
    assert set(found.certificates) == {h.certificate for h in (made.vcek, made.ask, made.ark)}
    assert len(found.crls) == 2
    assert found.dcap == ("{}",)


@pytest.mark.parametrize("name", ["bad.pem", "bad.der", "bad.crl", "bad.json"])
def test_a_file_that_is_not_what_it_says(tmp_path, made, name) -> None:
    folder = fill(tmp_path / "papers", made)
    (folder / name).write_bytes(b"\xff\xff" + b"\0" * 100)
    with pytest.raises(UsageError, match=name):
        Collateral.load(folder)


def test_too_much(tmp_path, made) -> None:
    folder = fill(tmp_path / "papers", made)
    (folder / "huge.json").write_bytes(b" " * ((4 << 20) + 1))
    with pytest.raises(UsageError, match="huge.json"):
        Collateral.load(folder)
    (folder / "huge.json").unlink()
    for number in range(260):
        (folder / f"{number}.txt").touch()
    with pytest.raises(UsageError, match="more than 256"):
        Collateral.load(folder)


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (None, {}),
        ("sev-snp 7 debug", {"policy": snp.SMT_AND_ONE | snp.DEBUG}),
        ("policy 4 code", {"measurement": b"\x12" * 48}),
        ("policy 8 detail", {"vmpl": 1}),
        ("verifier 3 binding", {"data": bytes(64)}),
    ],
)
def test_a_machine_before_the_command_line(tmp_path, made, capsys, step, change) -> None:
    policy, key, out = tmp_path / "policy.toml", tmp_path / "key", tmp_path / "evidence.json"
    policy.write_text(
        f'tempo-policy = 1\nname = "made"\n[sev-snp]\nrevocation = true\ndetails = {{ vmpl = 0 }}\n'
        f'measurements = [{{ measurement = "{snp.MEASUREMENT.hex()}" }}]\n'
        f'minimum-tcb = {{ snp = 8 }}\nroots = ["{fingerprint(made.ark.certificate)}"]\n'
    )
    assert cli.run(["attest", "sign", str(policy), "--key", str(key), "--create-key"]) == 0
    bound = {"data": Expected.answer(bytes.fromhex(NONCE), b"", b"").report_data}
    out.write_bytes(snp.evidence(snp.report(made.vcek.key, **bound | change)).to_json())
    arguments = ["--policy", str(policy), "--signer", f"{key}.pub", "--nonce", NONCE, "--at", NOW.isoformat()]
    papers = fill(tmp_path / "papers", made)
    capsys.readouterr()
    code = cli.run(["attest", "verify", str(out), *arguments, "--collateral", str(papers), "--json"])
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert code == (0 if step is None else 1)
    assert row.get("step") == step
    assert row["admitted"] is (step is None)
