"""A root key under AWS KMS: botocore as it is, against a service of this machine.

Not marked `security`: without botocore these tests skip, and docs/vault.md says what was run.
"""

import base64
import json
import logging

import pytest
from kms_service import ARN, KmsService

import tempo.cli as cli
from tempo.errors import OutsideError, TamperedError, UsageError
from tempo.trust.sealed import DataKey
from tempo.trust.vault import Store
from tempo.trust.vault.root import ROOT_FILE

pytest.importorskip("botocore")
from tempo.trust.vault.kms import KmsRoot

KEY = ARN + "one"


@pytest.fixture
def service(monkeypatch, tmp_path):
    service = KmsService()
    with service.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the test")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield service


def test_a_vault_under_kms(service, tmp_path):
    folder = tmp_path / "vault"
    folder.mkdir()
    key = DataKey.generate()
    with Store.create(folder, "example.org/vault", KmsRoot.create(folder / ROOT_FILE, KEY)) as store:
        store.add("photos", key)
    with Store.open(folder, KmsRoot.open(folder / ROOT_FILE, KEY)) as store:
        (found,) = store.state().keys
        assert store.unwrap(found).unsafe_bytes() == key.unsafe_bytes()
    # It was asked twice, for the root key alone, and the requests were signed for the region of the ARN.
    assert [call for call, _ in service.asked] == ["Encrypt", "Decrypt"]
    assert all("eu-central-1/kms/aws4_request" in each for each in service.signed)
    root = base64.b64decode(service.asked[0][1]["Plaintext"])
    sent = json.dumps(service.asked)
    assert base64.b64encode(key.unsafe_bytes()).decode() not in sent
    assert "photos" not in sent
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert root not in data
            assert base64.b64encode(root) not in data
            assert key.unsafe_bytes() not in data


def test_wrapping_is_bound_to_what_it_is_for(service, tmp_path):
    root = KmsRoot.create(tmp_path / "r", KEY)
    wrapped = root.wrap(b"secret", b"about")
    assert KmsRoot.open(tmp_path / "r", KEY).unwrap(wrapped, b"about") == b"secret"
    for other, about in ((wrapped, b"else"), (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"about")):
        with pytest.raises(TamperedError):
            root.unwrap(other, about)
    with pytest.raises(TamperedError):
        KmsRoot.create(tmp_path / "other", KEY).unwrap(wrapped, b"about")


@pytest.mark.parametrize("field", ["salt", "sealed"])
def test_an_altered_file_does_not_open(service, tmp_path, field):
    path = tmp_path / "r"
    KmsRoot.create(path, KEY)
    fields = json.loads(path.read_text())
    raw = bytearray(base64.b64decode(fields[field]))
    raw[-1] ^= 1
    path.write_text(json.dumps(fields | {field: base64.b64encode(raw).decode()}))
    with pytest.raises(UsageError, match=r"was root\.json altered"):
        KmsRoot.open(path, KEY)


def test_the_file_does_not_choose_the_key(service, tmp_path):
    """An attacker's file under the attacker's key, which this vault's credentials may use as well."""
    KmsRoot.create(tmp_path / "r", ARN + "two")
    asked = len(service.asked)
    with pytest.raises(UsageError, match="names " + KEY):
        KmsRoot.open(tmp_path / "r", KEY)
    assert len(service.asked) == asked
    text = (tmp_path / "r").read_text().replace(ARN + "two", KEY)
    (tmp_path / "r").write_text(text)
    with pytest.raises(UsageError, match="altered"):
        KmsRoot.open(tmp_path / "r", KEY)


def test_a_service_that_says_no(service, tmp_path):
    with pytest.raises(UsageError, match="has no key"):
        KmsRoot.create(tmp_path / "r", ARN + "three")
    with pytest.raises(UsageError, match="names no key"):
        KmsRoot.create(tmp_path / "r", "key with blanks")
    KmsRoot.create(tmp_path / "r", KEY)
    with pytest.raises(UsageError, match="exists"):
        KmsRoot.create(tmp_path / "r", KEY)
    service.broken = (400, "AccessDeniedException")
    with pytest.raises(OutsideError, match="AccessDeniedException"):
        KmsRoot.open(tmp_path / "r", KEY)


def test_no_service_and_no_credentials(service, tmp_path, monkeypatch):
    KmsRoot.create(tmp_path / "r", KEY)
    with monkeypatch.context() as m:
        m.delenv("AWS_ACCESS_KEY_ID")
        m.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(OutsideError, match="NoCredentialsError"):
            KmsRoot.open(tmp_path / "r", KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example.org")
    with pytest.raises(UsageError, match="https alone"):
        KmsRoot.open(tmp_path / "r", KEY)


def test_botocore_logs_no_root_key_at_any_level(service, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    loud = [logging.getLogger(name) for name in ("botocore", "botocore.endpoint", "botocore.parsers")]
    for logger in loud:
        caplog.set_level(logging.DEBUG, logger.name)
    KmsRoot.create(tmp_path / "r", KEY)
    KmsRoot.open(tmp_path / "r", KEY)
    assert "botocore" in caplog.text, "the capture works"
    root = base64.b64decode(service.asked[0][1]["Plaintext"])
    for form in (root.hex(), base64.b64encode(root).decode(), repr(root), repr(root)[2:-1]):
        assert form not in caplog.text
    for logger in loud:
        assert logger.filters == [], "as it was"
        logger.debug("heard again")
    assert caplog.text.count("heard again") == len(loud)


def test_the_command_line(service, tmp_path, capsys):
    where = str(tmp_path / "vault")
    assert cli.run(["vault", "init", where, "--name", "example.org/vault", "--kms-key", KEY]) == 0
    assert cli.run(["vault", "add", where, "photos", "--kms-key", KEY]) == 0
    capsys.readouterr()
    assert cli.run(["vault", "list", where, "--kms-key", KEY, "--json"]) == 0
    assert '"photos"' in capsys.readouterr().out
    assert cli.run(["vault", "list", where, "--kms-key", ARN + "two"]) == 2
    assert cli.run(["vault", "list", where, "--kms-key", KEY, "--pkcs11-module", "x"]) == 2
