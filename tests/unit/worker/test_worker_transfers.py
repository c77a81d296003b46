"""Copies to and from a GPU: their order on streams, with a device that stands for one."""

import pytest
import torch

from tempo.worker import transfers
from tempo.worker.transfers import CudaTransfers, transfers_for


class Event:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def synchronize(self):
        self.log.append(f"wait for {self.name}")

    def query(self):
        return f"wait for {self.name}" in self.log


class Stream:
    def __init__(self, cuda, name):
        self.cuda, self.name, self.events = cuda, name, 0

    def record_event(self):
        self.events += 1
        self.cuda.log.append(f"event {self.name}{self.events}")
        return Event(self.cuda.log, f"{self.name}{self.events}")

    def wait_stream(self, other):
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def __enter__(self):
        self.cuda.log.append(f"on {self.name}")

    def __exit__(self, *error):
        self.cuda.log.append(f"off {self.name}")


class Cuda:
    """What CudaTransfers asks of torch.cuda, on CPU tensors."""

    def __init__(self):
        self.log, self.made = [], 0
        self.compute = Stream(self, "compute")

    def Stream(self, device):
        self.made += 1
        return Stream(self, "up" if self.made == 1 else "down")

    def current_stream(self, device):
        return self.compute

    def stream(self, stream):
        return stream


@pytest.fixture
def cuda(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(transfers, "_hold", lambda t, stream: cuda.log.append(f"held for {stream.name}"))
    return cuda


@pytest.fixture
def buffers():
    return []


@pytest.fixture
def moves(cuda, buffers):
    def pinned(nbytes):
        buffers.append(torch.empty(nbytes, dtype=torch.uint8))
        return buffers[-1]

    return CudaTransfers(torch.device("cpu"), cuda, pinned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_goes_up_comes_down(moves, dtype):
    t = torch.randn(5, 7).to(dtype)
    there = moves.upload(t)
    assert torch.equal(there, t)
    assert there.data_ptr() != t.data_ptr()
    down = moves.download(there.mT)
    assert torch.equal(down.wait(), t.mT)
    assert down.wait().is_contiguous()
    assert moves.upload(torch.empty(0, 3)).shape == (0, 3)


def test_products_wait_for_uploads_and_downloads_for_products(moves, cuda):
    there = moves.upload(torch.ones(4))
    assert cuda.log == ["on up", "event up1", "off up", "compute waits for up", "held for compute"]
    del cuda.log[:]
    down = moves.download(there)
    assert cuda.log == ["down waits for compute", "on down", "event down1", "off down", "held for down"]
    assert not down.ready()
    down.wait()
    assert cuda.log[-1] == "wait for down1"
    assert down.ready()


def test_a_staging_buffer_is_written_again_only_after_its_copy(moves, cuda, buffers):
    for _ in range(2):
        moves.upload(torch.ones(4))
    assert not [line for line in cuda.log if line.startswith("wait")]
    moves.upload(torch.ones(3))
    assert [line for line in cuda.log if line.startswith("wait")] == ["wait for up1"]
    moves.upload(torch.ones(4))
    assert [line for line in cuda.log if line.startswith("wait")] == ["wait for up1", "wait for up2"]
    assert len(buffers) == 2, "reused while operands do not grow"
    moves.upload(torch.ones(40))
    assert len(buffers) == 3


def test_results_do_not_share_memory(moves):
    first, second = moves.download(torch.ones(4)), moves.download(torch.zeros(4))
    assert float(first.wait().sum()) == 4.0
    assert float(second.wait().sum()) == 0.0


def test_the_cpu_copies_nothing():
    t = torch.randn(3, 3)
    moves = transfers_for(torch.device("cpu"))
    assert moves.upload(t) is t
    down = moves.download(t)
    assert down.ready()
    assert down.wait().data_ptr() == t.data_ptr()
