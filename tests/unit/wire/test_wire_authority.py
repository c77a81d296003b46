"""The development authority: what its certificates carry, and how its files are written."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from tempo.errors import OutsideError, UsageError
from tempo.wire import TlsFiles
from tempo.wire.authority import issue, make_authority


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki") / "new"
    make_authority(folder)
    return folder


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(cert):
    return cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_workers_certificate(pki):
    files = issue(
        pki, "gpu-a", "worker", ["gpu-a.example.org", "10.0.0.7", "[2001:db8::1]", "vsock-3"], days=7
    )
    assert files == TlsFiles(pki / "gpu-a.pem", pki / "gpu-a.key", pki / "ca.pem")
    cert = certificate(files.cert)
    assert names(cert).get_values_for_type(x509.UniformResourceIdentifier) == ["tempo:worker/gpu-a"]
    assert names(cert).get_values_for_type(x509.DNSName) == ["gpu-a.example.org", "vsock-3"]
    assert [str(ip) for ip in names(cert).get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "2001:db8::1"]
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    now = datetime.now(UTC)
    assert cert.not_valid_before_utc < now < cert.not_valid_after_utc <= now + timedelta(days=7)
    cert.verify_directly_issued_by(certificate(pki / "ca.pem"))


def test_a_masters_certificate(pki):
    cert = certificate(issue(pki, "m", "master").cert)
    assert names(cert).get_values_for_type(x509.UniformResourceIdentifier) == ["tempo:master/m"]
    assert names(cert).get_values_for_type(x509.DNSName) == []
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_workers_own_name_is_its_host_by_default(pki):
    cert = certificate(issue(pki, "gpu-b", "worker").cert)
    assert names(cert).get_values_for_type(x509.DNSName) == ["gpu-b"]


@pytest.mark.security
def test_files_are_the_owners_alone_and_never_overwritten(pki):
    before = os.umask(0)
    try:
        issue(pki, "once", "worker")
    finally:
        os.umask(before)
    for path in pki.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert not [path for path in pki.iterdir() if path.name.startswith(".")]
    key = (pki / "once.key").read_bytes()
    for role in ("worker", "master"):
        with pytest.raises(UsageError, match="--force"):
            issue(pki, "once", role)
    (pki / "once.pem").unlink()
    with pytest.raises(UsageError, match="--force"):
        issue(pki, "once", "worker")
    assert (pki / "once.key").read_bytes() == key
    assert not (pki / "once.pem").exists()
    issue(pki, "once", "worker", force=True)
    assert (pki / "once.key").read_bytes() != key
    assert (pki / "once.key").stat().st_mode & 0o777 == 0o600
    ca = (pki / "ca.key").read_bytes()
    with pytest.raises(UsageError, match="--force"):
        make_authority(pki)
    assert (pki / "ca.key").read_bytes() == ca


@pytest.mark.security
def test_a_link_in_the_way_is_not_followed(pki, tmp_path):
    (pki / "link.key").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError, match="--force"):
        issue(pki, "link", "worker")
    issue(pki, "link", "worker", force=True)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["", "ca", "../x", "a/b", ".hidden", "-rf", "a b", "a\n", "x" * 64])
def test_names_that_are_no_file_names_are_refused(pki, name):
    with pytest.raises(UsageError, match="a name has"):
        issue(pki, name, "worker")


@pytest.mark.parametrize("host", ["", "a b", "*.example.org", "gpu-a:7443", "tempo:worker/x", "a\0b"])
def test_hosts_that_are_none_are_refused(pki, host):
    with pytest.raises(UsageError, match="no host name"):
        issue(pki, "w", "worker", [host])
    assert not (pki / "w.key").exists()


def test_what_is_missing_is_said(pki, tmp_path):
    with pytest.raises(UsageError, match="tempo worker ca"):
        issue(tmp_path, "w", "worker")
    with pytest.raises(UsageError, match="nobody dials a master"):
        issue(pki, "m2", "master", ["m"])
    make_authority(tmp_path / "other")
    (tmp_path / "other" / "ca.pem").write_bytes((pki / "ca.pem").read_bytes())
    with pytest.raises(UsageError, match="no authority of"):
        issue(tmp_path / "other", "w", "worker")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="cannot be written"):
        make_authority(tmp_path / "file" / "below")


@pytest.mark.security
@pytest.mark.parametrize("role", ["worker", "master"])
def test_files_at_fault_are_named_and_nothing_of_them_is_quoted(pki, tmp_path, role):
    good = issue(pki, "tls", "worker", force=True)
    junk = tmp_path / "junk"
    junk.write_text("SECRET")
    other = issue(pki, "tls2", "worker", force=True)
    for files, fault in [
        (TlsFiles(tmp_path / "none", good.key, good.ca), "none"),
        (TlsFiles(good.cert, tmp_path / "none", good.ca), "none"),
        (TlsFiles(good.cert, good.key, tmp_path / "none"), "none"),
        (TlsFiles(junk, good.key, good.ca), "junk"),
        (TlsFiles(good.cert, junk, good.ca), "junk"),
        (TlsFiles(good.cert, good.key, junk), "junk"),
        (TlsFiles(good.cert, other.key, good.ca), r"tls2\.key"),
    ]:
        with pytest.raises(UsageError, match=fault) as caught:
            files.context(role)
        assert "SECRET" not in str(caught.value)


def test_an_encrypted_key_asks_nobody(pki, tmp_path):
    from cryptography.hazmat.primitives import serialization

    good = issue(pki, "enc", "worker")
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match="unencrypted"):
        TlsFiles(good.cert, locked, good.ca).context("worker")
