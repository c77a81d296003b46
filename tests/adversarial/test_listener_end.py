"""How a listening worker ends, whoever is connected, and what it logs."""

import contextlib
import threading
import time

import pytest
import torch
from listener_script import assert_served, greeted, job, soon

from tempo.errors import WorkerLost
from tempo.wire.tls import handshake, wrap

pytestmark = pytest.mark.security


def test_an_orderly_end_finishes_the_job_under_way(run, master, tmp_path):
    running = run()
    busy, idle = master(running), master(running)
    assert_served(idle)
    x, w = torch.randn(2048, 2048), torch.randn(1, 2048, 2048)
    got = []
    thread = threading.Thread(
        target=lambda: got.append(busy.run(job(x, w), frozenset({1, 2}), soon(30)).open_for_check())
    )
    thread.start()
    time.sleep(0.05)
    running.stop()
    thread.join(10)
    assert got[0].shape == (2048, 2048)
    with pytest.raises(WorkerLost):
        idle.run(job(), frozenset({1, 2}), soon())
    with pytest.raises(WorkerLost, match="no such file"):
        running.connect()  # its socket is gone from the file system


def test_nobody_keeps_a_worker_from_ending(run, monkeypatch):
    running = run(grace_s=0.3)
    _, half = greeted(running)
    half.send_raw(b"\0\0\0", deadline=soon())
    unheard = running.connect()
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < 3
    half.close()
    unheard.close()


def test_the_log_holds_words_of_ours_only(run, pki):
    running = run("127.0.0.1:0", tls=pki[0])
    sock = wrap(running.connect(), pki[1].context("master"), "master", "127.0.0.1")
    handshake(sock, "master", deadline=soon())
    sock.sendall(b"\x1b[2Jpwned\n" * 10)
    sock.settimeout(5)
    with contextlib.suppress(OSError):
        while sock.recv(1000):
            pass
    sock.close()
    running.until("closed")
    assert not any("pwned" in line or "\x1b" in line for line in running.log)
