"""Mutual TLS: each refusal by its name, on both sides, over the production listener and worker."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import timedelta

import pytest

from tempo.errors import ProtocolError, UsageError
from tempo.fleet import RemoteWorker, TlsFiles
from tempo.wire import (
    Endpoint,
    TlsRefused,
    Why,
    authority,
    limits,
)
from tempo.wire.authority import issue, make_authority
from tempo.worker.listener import Listener, ListenSettings

pytestmark = pytest.mark.security

HOSTS = ["127.0.0.1", "localhost"]


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A good pair, and certificates that each have one defect."""
    folder, other = tmp_path_factory.mktemp("pki"), tmp_path_factory.mktemp("other")
    make_authority(folder)
    make_authority(other)
    files = {"worker": issue(folder, "gpu-a", "worker", HOSTS), "master": issue(folder, "m", "master")}
    for role, hosts in (("worker", HOSTS), ("master", ())):
        foreign = issue(other, f"foreign-{role}", role, hosts)
        files[f"foreign-{role}"] = TlsFiles(foreign.cert, foreign.key, folder / "ca.pem")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority, "_CLOCK_SKEW", timedelta(days=10))
            files[f"expired-{role}"] = issue(folder, f"expired-{role}", role, hosts, days=-1)
            patch.setattr(authority, "_CLOCK_SKEW", timedelta(days=-1))
            files[f"early-{role}"] = issue(folder, f"early-{role}", role, hosts, days=9)
        with pytest.MonkeyPatch.context() as patch:
            usage = authority._USAGE
            patch.setattr(authority, "_USAGE", {"worker": usage["master"], "master": usage["worker"]})
            files[f"usage-{role}"] = issue(folder, f"usage-{role}", role, hosts)
        files[f"self-{role}"] = self_signed(folder, role, hosts)
    files["elsewhere"] = issue(folder, "gpu-b", "worker", ["gpu-b.example.org", "10.9.8.7"])
    return files


def self_signed(folder, role, hosts):
    """What someone makes who has no authority: issuer, subject and key are its own."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    name = authority._subject("self")
    names = [x509.UniformResourceIdentifier(f"tempo:{role}/self"), *(authority._host(h) for h in hosts)]
    cert = (
        authority._builder(name, name, key.public_key(), 9)
        .add_extension(x509.ExtendedKeyUsage([authority._USAGE[role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, None)
    )
    authority._write(folder, f"self-{role}", key, cert, force=True)
    return TlsFiles(folder / f"self-{role}.pem", folder / f"self-{role}.key", folder / "ca.pem")


@contextlib.contextmanager
def listening(tls, **settings):
    """A listener of these files, and its log."""
    log = []
    settings = ListenSettings(endpoint=Endpoint.parse("127.0.0.1:0"), tls=tls, **settings)
    listener = Listener(settings, log.append)
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        yield listener, log
    finally:
        listener.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(log, words, seconds=3.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(words in line for line in log):
            return
        time.sleep(0.01)
    raise AssertionError(f"no line with {words!r} in {log}")


def refused(listener, tls, host="127.0.0.1", **options):
    worker = RemoteWorker(
        Endpoint("tcp", host, listener.endpoint.port), name="gpu", tls=tls, connect_s=5, **options
    )
    with pytest.raises(ProtocolError) as caught:
        worker.connect()
    worker.close()
    return str(caught.value)


def test_both_sides_with_good_certificates(pki):
    with listening(pki["worker"]) as (listener, log):
        for host in HOSTS:
            worker = RemoteWorker(f"{host}:{listener.endpoint.port}", tls=pki["master"])
            worker.connect()
            sock = worker._client._channel._sock
            assert sock.version() == "TLSv1.3"
            worker.close()
        until(log, "serves m")


@pytest.mark.parametrize(
    ("files", "master_reads", "worker_logs"),
    [
        ("foreign-master", "this side has a certificate of another authority", "of another authority"),
        ("expired-master", "this side has an expired certificate", "has an expired certificate"),
        ("early-master", "certificate that cannot be accepted", "not valid yet"),
        ("self-master", "this side has a certificate of another authority", "has a self-signed certificate"),
        ("usage-master", "this side has a certificate for another role", "for another role"),
        ("worker", "this side has a certificate for another role", "for another role"),
    ],
)
def test_a_master_that_is_refused(pki, files, master_reads, worker_logs):
    with listening(pki["worker"]) as (listener, log):
        message = refused(listener, pki[files])
        assert master_reads in message
        assert "worker gpu says" in message
        until(log, worker_logs)
        worker = RemoteWorker(listener.endpoint, tls=pki["master"])
        worker.connect()  # nobody else is harmed
        worker.close()


@pytest.mark.parametrize(
    ("files", "master_reads", "worker_logs"),
    [
        ("foreign-worker", "has a certificate of another authority", "of another authority"),
        ("expired-worker", "has an expired certificate", "has an expired certificate"),
        ("early-worker", "not valid yet", "cannot be accepted"),
        ("self-worker", "has a self-signed certificate", "of another authority"),
        ("usage-worker", "for another role", "for another role"),
        ("master", "for another role", "for another role"),
        ("elsewhere", "for another name", "that cannot be accepted"),
    ],
)
def test_a_worker_that_is_refused(pki, files, master_reads, worker_logs):
    with listening(pki[files]) as (listener, log):
        message = refused(listener, pki["master"])
        assert message.startswith("worker gpu ")
        assert master_reads in message
        assert "says" not in message  # it is we who refuse
        until(log, worker_logs)


def test_a_role_is_read_from_the_name_too(pki, tmp_path, monkeypatch):
    """Key usage alone would let a certificate of both usages, or of none, serve on either side."""
    folder = pki["worker"].ca.parent
    usage = authority._USAGE
    monkeypatch.setattr(authority, "_USAGE", {"worker": usage["master"], "master": usage["worker"]})
    as_worker = issue(folder, "m-as-worker", "master", force=True)  # serverAuth, and tempo:master/
    as_master = issue(folder, "w-as-master", "worker", force=True)  # clientAuth, and tempo:worker/
    with listening(pki["worker"]) as (listener, log):
        assert "it is not a master's" in refused(listener, as_master)
        until(log, "for another role")
    monkeypatch.setattr(Endpoint, "tls_name", property(lambda self: None))  # it has no host name either
    monkeypatch.setattr(ssl.SSLContext, "check_hostname", False)
    with listening(as_worker) as (listener, _):
        worker = RemoteWorker(listener.endpoint, name="gpu", tls=pki["master"])
        worker._context.check_hostname = False
        with pytest.raises(TlsRefused) as caught:
            worker.connect()
        assert caught.value.why is Why.WRONG_ROLE


def test_a_master_without_a_certificate(pki):
    with listening(pki["worker"]) as (listener, log):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki["worker"].ca)
        worker = RemoteWorker(listener.endpoint, name="gpu", tls=pki["master"])
        worker._context = context
        with pytest.raises(TlsRefused) as caught:
            worker.connect()
        assert (caught.value.why, caught.value.by_peer) == (Why.MISSING, True)
        until(log, "the peer has no certificate")


def test_plaintext_and_tls_tell_each_other_apart(pki):
    with listening(pki["worker"]) as (listener, log):
        message = refused(listener, None, unsafe_plaintext=True)
        assert "speaks TLS" in message
        until(log, "the peer does not speak TLS")
        with socket.create_connection(("127.0.0.1", listener.endpoint.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.settimeout(5)
            while sock.recv(100):
                pass
        until(log, "connection 2 from 127.0.0.1: refused: the peer does not speak TLS")
    with listening(None, unsafe_plaintext=True) as (listener, log):
        assert "does not speak TLS" in refused(listener, pki["master"])


def test_old_versions_of_tls_are_refused(pki):
    with listening(pki["worker"]) as (listener, log):
        context = pki["master"].context("master")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        worker = RemoteWorker(listener.endpoint, name="gpu", tls=pki["master"])
        worker._context = context
        with pytest.raises(TlsRefused) as caught:
            worker.connect()
        assert caught.value.why is Why.VERSION
        until(log, "offers no TLS 1.3")


@pytest.mark.parametrize("text", ["127.0.0.1:0", "vsock:3:7443"])
def test_plaintext_exists_under_its_name_only(text):
    endpoint = Endpoint.parse(text)
    with pytest.raises(UsageError, match="--unsafe-plaintext"):
        ListenSettings(endpoint=endpoint)
    with pytest.raises(UsageError, match="needs certificates"):
        RemoteWorker(endpoint)
    ListenSettings(endpoint=endpoint, unsafe_plaintext=True)
    RemoteWorker(endpoint, unsafe_plaintext=True)
    ListenSettings(endpoint=Endpoint.parse("unix:/x"))
    RemoteWorker("unix:/x")


def test_the_limits_of_the_handshake_are_what_the_document_says():
    assert (limits.HANDSHAKE_SECONDS, limits.MAX_HANDSHAKES) == (10.0, 16)
