"""Revoked certificates: the list, what it is made from, and both sides that read it."""

import os
import ssl
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from test_wire_tls import HOSTS, listening, refused, until
from vault_scene import machine, make_store, policy

from tempo.errors import UsageError, WorkerLost
from tempo.fleet import RemoteWorker
from tempo.trust.sealed import DataKey
from tempo.trust.vault import Machines, Server, ServeSettings, fetch
from tempo.wire import Endpoint, TlsRefused, Why, authority, revocation
from tempo.wire.authority import issue, make_authority
from tempo.wire.revocation import revoke

pytestmark = pytest.mark.security


@pytest.fixture
def pki(tmp_path):
    """A worker, two masters and a list with nobody on it, which all of them read."""
    make_authority(tmp_path / "pki")
    revoke(tmp_path / "pki")
    return {name: with_list(tmp_path / "pki", name) for name in ("gpu-a", "gpu-b", "m", "other")}


def with_list(folder: Path, name: str):
    worker = name.startswith("gpu")
    made = issue(folder, name, "worker" if worker else "master", HOSTS if worker else (), force=True)
    return replace(made, crl=folder / revocation.CRL)


def folder_of(pki) -> Path:
    return Path(pki["m"].ca).parent


def connect(listener, tls) -> None:
    worker = RemoteWorker(f"127.0.0.1:{listener.endpoint.port}", name="gpu", tls=tls, connect_s=5)
    try:
        worker.connect()
    finally:
        worker.close()


def test_a_revoked_master_is_refused_without_a_restart(pki):
    with listening(pki["gpu-a"]) as (listener, log):
        connect(listener, pki["m"])
        revoke(folder_of(pki), ["m"])
        assert "says that this side has a revoked certificate" in refused(listener, pki["m"])
        until(log, "refused: the peer has a revoked certificate")
        connect(listener, pki["other"])  # nobody else is harmed


def test_a_revoked_worker_is_refused_by_a_master_that_connects_again(pki):
    with listening(pki["gpu-a"]) as (listener, _):
        worker = RemoteWorker(f"127.0.0.1:{listener.endpoint.port}", name="gpu", tls=pki["m"], connect_s=5)
        worker.connect()
        worker.drop()
        worker.connect()
        worker.drop()
        revoke(folder_of(pki), ["gpu-a"])
        with pytest.raises(TlsRefused) as caught:
            worker.connect()
        assert (caught.value.why, caught.value.by_peer) == (Why.REVOKED, False)
        worker.close()


def test_who_reads_no_list_refuses_nobody_by_it(pki):
    revoke(folder_of(pki), ["m", "gpu-a"])
    with listening(replace(pki["gpu-a"], crl=None)) as (listener, _):
        connect(listener, replace(pki["m"], crl=None))


def test_all_certificates_of_a_name_are_revoked_and_later_ones_are_not(pki):
    folder = folder_of(pki)
    first = x509.load_pem_x509_certificate(Path(pki["m"].cert).read_bytes())
    second = with_list(folder, "m")  # in its place
    number = x509.load_pem_x509_certificate(Path(second.cert).read_bytes()).serial_number
    found = revoke(folder, ["m"])
    assert set(found.added) == {f"{first.serial_number:x}", f"{number:x}"}
    third = with_list(folder, "m")
    with listening(pki["gpu-a"]) as (listener, _):
        connect(listener, third)


def test_a_list_only_grows(pki):
    folder = folder_of(pki)
    one = revoke(folder, ["m"]).serials
    two = revoke(folder, ["gpu-b"], days=7)
    assert set(one) < set(two.serials)
    assert set(one) & set(two.added) == set()
    assert revoke(folder).serials == two.serials
    assert revoke(folder, ["m"]).added == ()


def test_two_that_revoke_at_once_both_do(pki, monkeypatch):
    """The first is held between reading the list and writing it until the second has had its chance."""
    folder, write, second = folder_of(pki), revocation.write_file, []

    def slow(*arguments, **options):
        if not second:
            second.append(threading.Thread(target=revoke, args=(folder, ["gpu-b"])))
            second[0].start()
            second[0].join(0.5)
            assert second[0].is_alive(), "it waits"
        write(*arguments, **options)

    monkeypatch.setattr(revocation, "write_file", slow)
    one = revoke(folder, ["m"])
    second[0].join(20)
    both = revoke(folder).serials
    assert len(both) == 2
    assert set(one.serials) < set(both)


def test_a_list_that_is_gone_is_not_begun_from_nothing(pki, tmp_path):
    folder = folder_of(pki)
    empty = (folder / revocation.CRL).read_bytes()
    assert not (folder / revocation.REVOKED).read_bytes(), "a list with nobody on it may be made anew"
    (folder / revocation.CRL).unlink()
    first = revoke(folder, ["m"])
    (folder / revocation.CRL).unlink()
    for names in ([], ["gpu-b"]):
        with pytest.raises(UsageError, match=r"ca\.crl is gone, and .*ca\.revoked knows of 1 revoked"):
            revoke(folder, names)
    assert not (folder / revocation.CRL).exists()
    (folder / revocation.CRL).write_bytes(empty)  # an older copy
    mended = revoke(folder)
    assert mended.added == mended.serials == first.serials
    (folder / revocation.REVOKED).write_text("{}\n")
    with pytest.raises(UsageError, match=r"ca\.revoked is damaged"):
        revoke(folder)


def test_a_list_from_before_the_record_is_put_on_record(pki):
    folder = folder_of(pki)
    revoke(folder, ["m"])
    (folder / revocation.REVOKED).unlink()
    revoke(folder)
    assert os.stat(folder / revocation.REVOKED).st_mode & 0o077 == 0
    (folder / revocation.CRL).unlink()
    with pytest.raises(UsageError, match="is gone"):
        revoke(folder)


def test_by_serial_number(pki):
    number = x509.load_pem_x509_certificate(Path(pki["m"].cert).read_bytes()).serial_number
    assert revoke(folder_of(pki), serials=[f"{number:X}"]).added == (f"{number:x}",)
    with listening(pki["gpu-a"]) as (listener, _):
        assert "revoked" in refused(listener, pki["m"])


def test_an_authority_without_a_record_revokes_what_lies_there(pki):
    folder = folder_of(pki)
    (folder / revocation.ISSUED).unlink()
    assert len(revoke(folder, ["m"]).added) == 1
    (folder / revocation.ISSUED).write_text("{}\n")
    with pytest.raises(UsageError, match="--serial"):
        revoke(folder, ["m"])


def test_a_list_out_of_date_lets_nobody_in(pki, monkeypatch):
    monkeypatch.setattr(revocation, "_CLOCK_SKEW", timedelta(days=3))
    now = revocation.datetime.now(revocation.UTC)

    class Yesterday(revocation.datetime):
        @classmethod
        def now(cls, zone=None):
            return now - timedelta(days=2)

    monkeypatch.setattr(revocation, "datetime", Yesterday)
    revoke(folder_of(pki), days=1)
    with listening(pki["gpu-a"]) as (listener, log):
        refused(listener, replace(pki["m"], crl=None))
        until(log, "list of revoked certificates here is out of date")
    with listening(replace(pki["gpu-a"], crl=None)) as (listener, _):
        assert "list of revoked certificates here is out of date" in refused(listener, pki["m"])


def test_a_list_of_another_authority_lets_nobody_in(pki, tmp_path):
    make_authority(tmp_path / "foreign")
    foreign = revoke(tmp_path / "foreign").path
    with listening(replace(pki["gpu-a"], crl=foreign)) as (listener, log):
        refused(listener, replace(pki["m"], crl=None))
        until(log, "another authority's")


def test_a_list_that_is_damaged_later_lets_nobody_in_until_it_is_mended(pki):
    crl = folder_of(pki) / revocation.CRL
    good = crl.read_bytes()
    with listening(pki["gpu-a"]) as (listener, log):
        for bad in (b"", b"nonsense", Path(pki["m"].ca).read_bytes()):
            crl.write_bytes(bad)
            with pytest.raises(WorkerLost):
                connect(listener, replace(pki["m"], crl=None))
            until(log, "nobody is let in")
            log.clear()
        crl.unlink()
        with pytest.raises(WorkerLost):
            connect(listener, replace(pki["m"], crl=None))
        crl.write_bytes(good)
        connect(listener, pki["m"])


def test_a_master_whose_list_is_damaged_later_tries_again(pki):
    crl = folder_of(pki) / revocation.CRL
    good = crl.read_bytes()
    with listening(replace(pki["gpu-a"], crl=None)) as (listener, _):
        worker = RemoteWorker(f"127.0.0.1:{listener.endpoint.port}", name="gpu", tls=pki["m"], connect_s=5)
        crl.write_bytes(b"nonsense")
        with pytest.raises(WorkerLost, match="nobody is let in"):
            worker.connect()
        crl.write_bytes(good)
        worker.connect()
        worker.close()


@pytest.mark.parametrize("role", ["worker", "master", "vault"])
def test_a_file_that_is_no_list_is_said_at_the_start(pki, tmp_path, role):
    for text in (b"", b"nonsense", Path(pki["m"].ca).read_bytes()):
        (tmp_path / "x.crl").write_bytes(text)
        with pytest.raises(UsageError, match=r"x\.crl"):
            replace(pki["m"], crl=tmp_path / "x.crl").context(role)
    with pytest.raises(UsageError, match="cannot be read"):
        replace(pki["m"], crl=tmp_path / "nowhere").context(role)
    context = pki["m"].context(role)
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.parametrize("later", [False, True])
def test_a_list_brings_no_authority_along(pki, tmp_path, later):
    """Planted: a list that is ours, with another authority's certificate and list behind it."""
    make_authority(tmp_path / "evil")
    revoke(tmp_path / "evil")
    crl = Path(pki["gpu-a"].crl)
    ours = crl.read_bytes()
    planted = ours + (tmp_path / "evil" / "ca.pem").read_bytes() + (tmp_path / "evil" / "ca.crl").read_bytes()
    if not later:
        crl.write_bytes(planted)
        with pytest.raises(UsageError, match="a certificate beside the list"):
            pki["gpu-a"].context("worker")
        return
    evil = issue(tmp_path / "evil", "m", "master")
    with listening(pki["gpu-a"]) as (listener, log):
        connect(listener, pki["m"])
        crl.write_bytes(planted)
        with pytest.raises(WorkerLost):
            connect(listener, replace(evil, ca=pki["m"].ca))
        until(log, "nobody is let in")


def test_the_vault_refuses_a_revoked_master(pki, tmp_path):
    folder = folder_of(pki)
    tls = replace(issue(folder, "vault", "vault", HOSTS), crl=folder / revocation.CRL)
    with make_store(tmp_path / "vault") as store:
        key = DataKey.generate()
        store.add("photos", key)
        store.grant("photos", policy())
        settings = ServeSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=tls)
        log: list[str] = []
        with serving(Server(store, Machines(), settings, log.append)) as where:
            assert fetch(where, pki["m"], machine(), "photos").name == key.name
            revoke(folder, ["m"])
            with pytest.raises(TlsRefused) as caught:
                fetch(where, pki["m"], machine(), "photos")
            assert (caught.value.why, caught.value.by_peer) == (Why.REVOKED, True)
            assert fetch(where, pki["other"], machine(), "photos").name == key.name
            revoke(folder, ["vault"])
            with pytest.raises(TlsRefused) as caught:
                fetch(where, pki["other"], machine(), "photos")
            assert (caught.value.why, caught.value.by_peer) == (Why.REVOKED, False)


class serving:
    """A server in a thread."""

    def __init__(self, server) -> None:
        import threading

        self.server = server
        self.thread = threading.Thread(target=server.serve)

    def __enter__(self):
        self.thread.start()
        return self.server.endpoint

    def __exit__(self, *error) -> None:
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.server.__exit__(*error)


@pytest.mark.parametrize(
    ("names", "serials", "days", "says"),
    [
        (["nobody"], [], 30, "issued no certificate to 'nobody'"),
        (["ca"], [], 30, "issued no certificate to 'ca'"),
        ([], ["xyz"], 30, "no serial number"),
        ([], [], 0, "lasts 1 to 365 days"),
    ],
)
def test_what_cannot_be_revoked(pki, names, serials, days, says):
    before = (folder_of(pki) / revocation.CRL).read_bytes()
    with pytest.raises(UsageError, match=says):
        revoke(folder_of(pki), names, serials=serials, days=days)
    assert (folder_of(pki) / revocation.CRL).read_bytes() == before


def test_the_authority_itself_is_not_revoked(pki):
    own = x509.load_pem_x509_certificate(Path(pki["m"].ca).read_bytes()).serial_number
    with pytest.raises(UsageError, match="make a new authority"):
        revoke(folder_of(pki), serials=[f"{own:x}"])


def test_a_list_that_is_not_ours_is_never_replaced(pki, tmp_path):
    folder = folder_of(pki)
    for bad, says in ((b"nonsense", "no list"), (b"", "no list")):
        (folder / revocation.CRL).write_bytes(bad)
        with pytest.raises(UsageError, match=says):
            revoke(folder, ["m"])
    make_authority(tmp_path / "foreign")
    (folder / revocation.CRL).write_bytes(revoke(tmp_path / "foreign").path.read_bytes())
    with pytest.raises(UsageError, match="not signed by the authority"):
        revoke(folder, ["m"])


def test_what_is_issued_is_on_record_before_it_exists(pki, monkeypatch):
    folder = folder_of(pki)

    def fails(*_: object) -> None:
        raise UsageError("no room")

    monkeypatch.setattr(authority, "_write", fails)
    with pytest.raises(UsageError, match="no room"):
        issue(folder, "late", "master")
    assert '"late"' in (folder / revocation.ISSUED).read_text()
    assert os.stat(folder / revocation.ISSUED).st_mode & 0o077 == 0
