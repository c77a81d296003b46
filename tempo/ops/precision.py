"""Torch's switches for float32 products, held in place while a product is computed or launched.

They belong to the process, and threads (connections, devices) share them. Products that want the same
setting run at the same time; one that wants another waits its turn. CUDA kernels run on after their
launch, which is when the switches count, so nobody waits for a kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch


@final
class _Switches:
    def __init__(self) -> None:
        self._turn = threading.Lock()  # first come, first served: no setting starves the other
        self._changed = threading.Condition()
        self._running = 0
        self._tf32 = False
        self._before = ("highest", False)

    @contextmanager
    def held(self, tf32: bool) -> Iterator[None]:
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._running or self._tf32 == tf32)
            if not self._running:
                self._set(tf32)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if not self._running:
                    self._restore()
                    self._changed.notify_all()

    def _set(self, tf32: bool) -> None:
        cuda = torch.backends.cuda.matmul
        self._tf32 = tf32
        self._before = (
            torch.get_float32_matmul_precision(),
            cuda.allow_bf16_reduced_precision_reduction,
        )
        if self._before[0] != "highest":
            torch.set_float32_matmul_precision("highest")
        cuda.allow_bf16_reduced_precision_reduction = False
        if tf32:
            cuda.allow_tf32 = True  # of CUDA alone: products on the CPU stay as they are

    def _restore(self) -> None:
        precision, reduced = self._before
        if self._tf32 or precision != "highest":
            torch.set_float32_matmul_precision(precision)
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = reduced


#: One for the process, as are the switches.
_SWITCHES = _Switches()


@contextmanager
def precision(*, tf32: bool) -> Iterator[None]:
    """Inside, float32 products round nothing, or on CUDA to TF32; bfloat16 ones sum in float32."""
    with _SWITCHES.held(tf32):
        yield
