"""Operands onto a device and results off it.

On the CPU both are the tensors themselves. On a GPU copies go through page-locked buffers on a stream of
their own, so that they overlap with products under way:

    upload     pageable -> pinned -> device, on the copy stream; the compute stream waits for it by event
    download   device -> pinned, on a second copy stream that waits for the product; `Download.wait` blocks

A pinned buffer is written again only after the copy that used it has ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor


class Download(ABC):
    """Abstract. A result on its way to the CPU."""

    @abstractmethod
    def wait(self) -> Tensor:
        """The result, contiguous on the CPU, once it is there. Raises what the device raised."""

    @abstractmethod
    def ready(self) -> bool:
        """`wait` would not block."""


class Transfers(ABC):
    """Abstract. Not thread-safe."""

    @abstractmethod
    def upload(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, ready for products that are started after this call."""

    @abstractmethod
    def download(self, result: Tensor) -> Download:
        """Begin to fetch a result whose product was started before this call."""


def transfers_for(device: torch.device) -> Transfers:
    if device.type == "cuda":
        return CudaTransfers(device, torch.cuda, _pinned)
    return PlainTransfers(device)


@final
class PlainTransfers(Transfers):
    """The CPU, and devices without streams."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def upload(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def download(self, result: Tensor) -> Download:
        return _Here(result.cpu().contiguous())


@final
class _Here(Download):
    def __init__(self, result: Tensor) -> None:
        self._result = result

    def wait(self) -> Tensor:
        return self._result

    def ready(self) -> bool:
        return True


@final
class CudaTransfers(Transfers):
    """cuda: torch.cuda or what stands for it. pinned: makes a page-locked byte buffer."""

    def __init__(self, device: torch.device, cuda: Any, pinned: Any) -> None:
        self._device = device
        self._cuda = cuda
        self._up = cuda.Stream(device)
        self._down = cuda.Stream(device)
        self._staging = [_Staging(pinned), _Staging(pinned)]
        self._turn = 0
        self._pinned = pinned

    def upload(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "cuda" or not tensor.numel():
            return tensor.to(self._device)
        staging, self._turn = self._staging[self._turn], 1 - self._turn
        host = staging.take(tensor)
        compute = self._cuda.current_stream(self._device)
        with self._cuda.stream(self._up):
            there = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
            there.copy_(host, non_blocking=True)
            staging.busy_until = self._up.record_event()
        compute.wait_stream(self._up)
        _hold(there, compute)
        return there

    def download(self, result: Tensor) -> Download:
        result = result.contiguous()
        host = self._pinned(result.nbytes).view(result.dtype).view(result.shape)
        self._down.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._down):
            host.copy_(result, non_blocking=True)
            event = self._down.record_event()
        _hold(result, self._down)
        return _OnItsWay(host, event)


@final
class _OnItsWay(Download):
    def __init__(self, host: Tensor, event: Any) -> None:
        self._host = host
        self._event = event

    def wait(self) -> Tensor:
        self._event.synchronize()
        return self._host

    def ready(self) -> bool:
        return bool(self._event.query())


@final
class _Staging:
    """A page-locked buffer that grows to the largest operand."""

    def __init__(self, pinned: Any) -> None:
        self._pinned = pinned
        self._buffer: Tensor | None = None
        self.busy_until: Any = None

    def take(self, tensor: Tensor) -> Tensor:
        """A copy of the tensor in it. Waits for the copy to the device that was made of it last."""
        if self.busy_until is not None:
            self.busy_until.synchronize()
        if self._buffer is None or self._buffer.numel() < tensor.nbytes:
            self._buffer = self._pinned(tensor.nbytes)
        host = self._buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        return host.copy_(tensor)


def _hold(tensor: Tensor, stream: Any) -> None:
    """Its memory is not handed out again while the stream still uses it."""
    tensor.record_stream(stream)


def _pinned(nbytes: int) -> Tensor:
    """PyTorch caches page-locked memory: a freed buffer comes back once its copies have ended."""
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
