"""Training on workers behind real TCP with TLS: on loopback, and on another host, that is another network
namespace. The same losses as plain PyTorch, and a worker that is restarted in the middle comes back."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from remote_training import model, steps, train

import tempo
from tempo.fleet import EventKind, RemoteWorker
from tempo.wire import Compute, Endpoint
from tempo.wire.authority import issue, make_authority
from tempo.worker.listener import Listener, ListenSettings
from tempo.worker.recording import read

TEMPO = [sys.executable, "-c", "from tempo.cli import main; main()"]
SCRIPT = Path(__file__).with_name("remote_training.py")
ADDRESSES = ("10.231.7.1", "10.231.7.2")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_authority(folder)
    return issue(folder, "gpu-a", "worker", ["127.0.0.1", ADDRESSES[1]]), issue(folder, "m", "master")


@contextlib.contextmanager
def listening(tls, endpoint="127.0.0.1:0", **settings):
    listener = Listener(ListenSettings(endpoint=Endpoint.parse(endpoint), tls=tls, **settings))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        yield listener.endpoint
    finally:
        listener.stop()
        thread.join(20)
        assert not thread.is_alive()


def assert_trained(result, names=("w0",)):
    assert result["tempo"] == pytest.approx(result["plain"], rel=1e-4)
    assert result["plain"][-1] < result["plain"][0]
    assert result["events"] == []
    assert (result["checks_failed"], result["local_fallbacks"]) == (0, 0)
    assert result["checks"] >= 3 * 8
    assert min(result["bytes_sent"], result["bytes_received"]) > 100_000


@pytest.mark.security
def test_training_over_tcp_and_tls(pki, tmp_path):
    worker, master = pki
    with listening(worker, record=tmp_path) as endpoint:
        # Named twice: two connections to one worker, each with operands of its own.
        assert_trained(train([str(endpoint), str(endpoint)], master))
    records = list(read(tmp_path))
    assert len({record.connection for record in records}) == 2
    jobs = [record for record in records if isinstance(record.message, Compute)]
    assert len(jobs) >= 3 * 8
    assert all(len(job.operands) == len(job.message.sent) for job in jobs)
    # What the worker saw of the weights is not the weights.
    secret = model()[0].weight.detach()
    seen = [tensor for job in jobs for tensor in job.operands.values() if tensor.numel() == secret.numel()]
    assert seen
    assert not any(torch.allclose(tensor.reshape(secret.shape), secret, atol=1e-3) for tensor in seen)


@pytest.mark.security
def test_a_worker_that_is_restarted_in_the_middle_comes_back(pki):
    worker, master = pki
    plain = steps(model())
    with contextlib.ExitStack() as first:
        endpoint = first.enter_context(listening(worker))
        far = RemoteWorker(endpoint, name="far", tls=master, reconnect_s=0.05, reconnect_most_s=0.2)
        with tempo.Session(workers=[far]) as session:
            protected = session.protect(model())
            assert steps(protected) == pytest.approx(plain, rel=1e-4)
            first.close()
            session.unprotect(protected)
            protected = session.protect(model())
            assert steps(protected) == pytest.approx(plain, rel=1e-4)  # in the master
            with listening(worker, str(endpoint)):
                end = time.monotonic() + 10
                while not session._fleet.width:
                    assert time.monotonic() < end
                    time.sleep(0.02)
                before = far.bytes_sent
                session.unprotect(protected)
                assert steps(session.protect(model())) == pytest.approx(plain, rel=1e-4)
                assert far.bytes_sent - before > 100_000
                kinds = [event.kind for event in session.report().events]
    assert EventKind.LOST in kinds
    assert EventKind.REJOINED in kinds


# ---- two hosts ------------------------------------------------------------------------------------


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


@pytest.fixture
def hosts():
    """Two network namespaces with one cable between them, and no other network."""
    names = [f"tempo-{os.getpid()}-{side}" for side in ("m", "w")]
    made = []
    try:
        try:
            if shutil.which("ip") is None:
                raise OSError("no ip here (iproute2)")
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns", names[1])
        except (OSError, subprocess.SubprocessError) as error:
            words = (getattr(error, "stderr", None) or str(error)).strip()
            if os.environ.get("CI") == "true":
                pytest.fail(f"network namespaces are required in CI: {words}")
            pytest.skip(f"the kernel refuses network namespaces: {words}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


def test_training_on_another_host(pki, hosts):
    worker, master = pki
    inside = [["ip", "netns", "exec", name] for name in hosts]
    where = f"{ADDRESSES[1]}:7443"
    serving = ["worker", "--listen", where, "--threads", "1", "--json"]
    serving += ["--cert", str(worker.cert), "--key", str(worker.key), "--ca", str(worker.ca)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*inside[1], *TEMPO, *serving],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            text += line
        assert json.loads(text)["rows"][0]["listening"] == where

        def on_the_other_host(what):
            keys = map(str, (master.cert, master.key, master.ca))
            done = subprocess.run(
                [*inside[0], sys.executable, str(SCRIPT), what, *keys, where],
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
                env=environment,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert_trained(on_the_other_host("small"))
        demo = on_the_other_host("demo")
        for ours, plain, allowed in zip(demo["tempo"], demo["plain"], demo["allowed"], strict=True):
            assert abs(ours - plain) <= allowed
        assert demo["plain"][-1] < demo["plain"][0]
        assert (demo["checks_failed"], demo["local_fallbacks"]) == (0, 0)
        assert demo["encodings"][1] > 1.9 * demo["encodings"][0], "key shift halves the encodings"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert f"from {ADDRESSES[0]}: serves m" in errors
    finally:
        process.kill()
        process.communicate()
