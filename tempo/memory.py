"""Memory for large tensors that comes back by itself.

A fresh large allocation is paid page by page, when it is first written: some ten copies of it. So blocks
are kept and handed out again. A block returns when the storage of the tensor made of it dies, whoever
held that: views, autograd graphs, another thread. Knows no key and never looks at what it holds: as
with `torch.empty`, a tensor starts with whatever was there.

    block    private pages, advised to be huge ones
    lease    a buffer over the block, which the tensor's storage keeps alive; its finalizer gives back
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from math import prod
from typing import final

import torch
from torch import Tensor

#: Below this malloc reuses memory by itself: glibc hands larger pieces back to the system.
_SMALLEST = 1 << 20
#: Default of Pool: idle bytes.
_IDLE = 1 << 30
#: Size classes per doubling: at most a quarter of a block is not used, and that is never touched.
_STEPS = 4


def size_class(nbytes: int) -> int:
    """The least size of a block that holds `nbytes`: four sizes per doubling, whole pages."""
    step = max(1 << max(0, (nbytes - 1).bit_length() - 3), mmap.PAGESIZE)
    return -(-nbytes // step) * step


@final
class Pool:
    """Thread-safe. A forked child allocates anew. idle: bytes kept while nobody uses them, at most.

    Tensors of a pool cannot be resized in place (`resize_`): their storage has the size it has.
    """

    def __init__(self, idle: int = _IDLE) -> None:
        self._limit = idle
        self._owner = os.getpid()
        self._lock = threading.RLock()  # guards the three below; only ever taken by `with`
        self._idle: dict[int, list[mmap.mmap]] = {}  # by size; the class used last is the last one
        self._mapped = 0
        self._busy = False  # a frame is at them: a finalizer that runs within it leaves them alone
        # Filled by finalizers, which may run while this thread holds the lock: appending takes none.
        self._returned: deque[mmap.mmap] = deque()

    @property
    def mapped(self) -> int:
        """Blocks that had to be made so far: constant in the steady state."""
        return self._mapped

    @property
    def idle_bytes(self) -> int:
        self._settle()
        with self._lock:
            return self._total()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous CPU tensor of this shape, not initialised. Raises MemoryError."""
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < _SMALLEST or os.getpid() != self._owner:
            return torch.empty(tuple(shape), dtype=dtype)
        block = self._take(size_class(nbytes))
        lease = (ctypes.c_char * len(block)).from_buffer(block)
        weakref.finalize(lease, self._give_back, block).atexit = False
        return torch.frombuffer(lease, dtype=dtype, count=prod(shape)).view(tuple(shape))

    def _take(self, size: int) -> mmap.mmap:
        self._settle()
        block = self._pick(size)
        self._settle()  # what came back while that was busy
        if block is not None:
            return block
        try:
            block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no memory for a block of {size} bytes") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
            with contextlib.suppress(OSError):  # a kernel without huge pages
                block.madvise(mmap.MADV_HUGEPAGE)
        return block

    def _pick(self, size: int) -> mmap.mmap | None:
        """An idle block, or None: one has to be made."""
        # An interrupt may end any of these frames after any call in them: `with` and `finally` leave
        # the pool open to the next one, and a block that was in our hands is unmapped.
        with self._lock:
            try:
                self._busy = True
                if self._idle.get(size):
                    blocks = self._idle[size] = self._idle.pop(size)
                    return blocks.pop()
                self._mapped += 1
                return None
            finally:
                self._busy = False

    def _give_back(self, block: mmap.mmap) -> None:
        """Runs as a finalizer, anywhere: waits for no frame of its own thread, nor for long."""
        self._returned.append(block)
        self._settle()

    def _settle(self) -> None:
        """Put returned blocks in their places, unless another frame is at it; it looks once more. What
        comes back between that look and its end waits for the next call."""
        if os.getpid() != self._owner:  # the thread that held the lock may not exist here
            self._returned.clear()
            return
        while self._returned and not self._busy:
            with self._lock:
                try:
                    self._busy = True
                    self._sort()
                finally:
                    self._busy = False

    def _sort(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._idle.setdefault(len(block), []).append(block)
        while self._total() > self._limit:
            size = next(size for size, blocks in self._idle.items() if blocks)
            self._idle[size].pop()  # unmapped with its last reference

    def _total(self) -> int:
        """Idle bytes: counted, since a running sum would be wrong for ever after an interrupt."""
        return sum(size * len(blocks) for size, blocks in self._idle.items())
