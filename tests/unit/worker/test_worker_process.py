"""The worker as a process: bounded, deaf to Ctrl-C, gone with its master."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tempo.fleet.client import Client
from tempo.ops import Job, Op, Operand
from tempo.worker.__main__ import main

MB = 1 << 20


@pytest.fixture
def process():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tempo.worker", "--fd", str(theirs.fileno()), "--memory", str(32 * MB)]
    with theirs:
        child = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE)
    client = Client(ours, "w")
    client.handshake(time.monotonic() + 60)
    yield child, client
    client.close()
    child.kill()
    child.communicate()


def rss(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.security
def test_memory_is_bounded_and_ctrl_c_and_the_end_of_the_master_are_handled(process):
    child, client = process
    child.send_signal(signal.SIGINT)  # Ctrl-C in a terminal is for the master
    x = torch.randn(MB, 1)
    w = Operand(0, (1, 1, 1), torch.float32, torch.ones(1, 1, 1))

    def job(number):
        return Job(Op.PRODUCT, Operand(number, (MB, 1), torch.float32, x, keep=True), w, (MB,))

    for number in range(1, 5):
        client.run(job(number), frozenset({0, number}), time.monotonic() + 20)
    before = rss(child.pid)
    for number in range(5, 100):
        client.run(job(number), frozenset({0, number}), time.monotonic() + 20)
    assert rss(child.pid) - before < 64 * MB  # 95 operands of 4 MB were to be kept

    client.close()
    _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, b"")


@pytest.mark.security
def test_half_a_frame_and_then_nothing_ends_the_worker_without_a_word(process):
    child, client = process
    client._channel.send_raw(b"\0\0\0", deadline=time.monotonic() + 5)
    client._channel.close()
    _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fd", "0", "--threads", "0"],
        ["--fd", "0", "--device", "cuda:99"],
        ["--fd", "0", "--unsafe-lie", "fib:0:1"],
        ["--fd", "0", "--unsafe-lie", "scale:x:1"],
    ],
)
def test_a_bad_command_line_is_said_and_not_traced(arguments, capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_worker_imports_nothing_that_knows_a_key():
    code = (
        "import sys, tempo.worker\n"
        "known = {'tempo', 'tempo.errors', 'tempo.memory', 'tempo.ops', 'tempo.wire', 'tempo.worker'}\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'tempo'"
        " and '.'.join(m.split('.')[:2]) not in known])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr
