"""The example service: the same answers as plain, batches, clear errors, and an orderly end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

EXAMPLES = Path(__file__).parents[2] / "examples" / "service"


def load(name):
    names = {"__name__": "service", "__file__": str(EXAMPLES / name)}
    exec(compile((EXAMPLES / name).read_text(), name, "exec"), names)
    return names


def images(count, seed=0):
    return torch.rand(count, 64, generator=torch.Generator().manual_seed(seed)).tolist()


def test_answers_batches_errors_and_the_end():
    from starlette.testclient import TestClient

    plain, protected = load("plain.py"), load("protected.py")
    with TestClient(protected["app"], raise_server_exceptions=False) as client:
        with ThreadPoolExecutor(8) as pool:
            asked = [images(16 + i, seed=i) for i in range(8)]
            replies = list(pool.map(lambda each: client.post("/classify", json={"images": each}), asked))
        batcher = protected["app"].state.batcher
        assert batcher.requests == 8
        assert batcher.batches < 8, "requests that arrived together ran together"
        for each, reply in zip(asked, replies, strict=True):
            assert reply.status_code == 200
            want = torch.tensor(plain["classify"]([torch.tensor(each)])[0])
            torch.testing.assert_close(torch.tensor(reply.json()["probabilities"]), want)
        assert client.get("/health").json() == {"ok": True}
        for body in (b"", b"{", b"[]", b'{"images": 3}', b'{"images": [[1, 2]]}', b'{"images": [["a"]]}'):
            refused = client.post("/classify", content=body)
            assert refused.status_code == 400
            assert "1 to 256 images of 64 numbers" in refused.json()["error"]
        for value in ("1e9", "-1", "16.5", "NaN", "Infinity", "1" + "0" * 400, "1" + "0" * 9000):
            body = '{"images": [[' + ", ".join(["0"] * 63 + [value]) + "]]}"
            refused = client.post("/classify", content=body)
            assert refused.status_code == 400, value
            assert "from 0 to 16" in refused.json()["error"]
        assert client.post("/classify", content=b"[" * 100_000).status_code == 400
        assert client.post("/classify", content=b" " * ((1 << 20) + 1)).status_code == 413
        assert client.post("/classify", json={"images": images(257)}).status_code == 400
        assert client.get("/classify").status_code == 405
        # Those above ran in batches of whatever size the moment gave; this one is large enough to be sent.
        assert client.post("/classify", json={"images": images(128)}).status_code == 200
        protected["session"].close()  # as where no worker is left and the master may not compute
        failed = client.post("/classify", json={"images": images(64)})
        assert failed.status_code == 500
        assert "see the service's log" in failed.json()["error"]
    report = protected["session"].report()
    assert any(row.offloaded for row in report.rows), "batches of 64 rows and more leave the TEE"
    assert report.checks_failed == 0


def test_a_term_signal_ends_it_in_order():
    """A request that is being computed is answered; the service ends, and its workers with it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "protected.py"), "--port", str(port)]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert service.poll() is None, service.stderr.read()
                time.sleep(0.1)
        workers = children(service.pid)
        assert len(workers) == 2
        body = json.dumps({"images": images(256)}).encode()
        urllib.request.urlopen(f"{url}/classify", body, timeout=120).close()  # the first waits for workers
        head = f"POST /classify HTTP/1.1\r\nHost: us\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as asking:
            asking.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert asking.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the service has the request
            asking.sendall(body)
            service.send_signal(signal.SIGTERM)
            reply = http.client.HTTPResponse(asking)
            reply.begin()
            assert len(json.loads(reply.read())["probabilities"]) == 256
        said = service.communicate(timeout=60)[1]
    finally:
        service.kill()
        service.wait()
    assert "Application shutdown complete" in said
    assert "Traceback" not in said
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}/cmdline") and alive(pid) for pid in workers):
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"workers {workers} outlived their master")


def children(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    """Not gone, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
