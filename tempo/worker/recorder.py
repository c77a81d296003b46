"""Writes down what a worker sees: every byte that arrived and left, inside TLS. docs/wire.md has the format.

A file per connection, written as the bytes pass and never rewritten, so a frame that stayed half is there
as far as it came. Over the size cap, or on a full disk, recording ends with a note and serving goes on.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from typing import Literal, final

from tempo.errors import OutsideError

MAGIC = b"TEMPOREC"
VERSION = 1
#: kind, time.monotonic_ns(), length of the bytes that follow
HEAD = struct.Struct(">BQI")
ARRIVED, LEFT, NOTE = 0, 1, 2
SUFFIX = ".tempo-rec"
DEFAULT_MAX_BYTES = 16 << 30


@final
class Recorder:
    """The recordings of one worker. max_bytes: of all its files together."""

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutsideError(f"cannot record in {directory} ({error.strerror}): name a folder") from error
        self._directory = directory
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        self._left = max_bytes
        self._lock = threading.Lock()

    def connection(self, number: int) -> Recording:
        """A new file. Raises OutsideError where it cannot be made."""
        path = self._directory / f"{self._run}-{number:08}{SUFFIX}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise OutsideError(f"cannot record in {self._directory} ({error.strerror})") from error
        return Recording(self, fd)

    def take(self, nbytes: int) -> bool:
        """Whether that much may still be written."""
        with self._lock:
            if nbytes > self._left:
                self._left = 0  # what is recorded has no holes
                return False
            self._left -= nbytes
            return True


@final
class Recording:
    """One connection's file. `tap` goes into its Channel; both directions may call it at once."""

    def __init__(self, recorder: Recorder, fd: int) -> None:
        self._recorder = recorder
        self._fd: int | None = fd
        self._lock = threading.RLock()  # around one record, so that pieces do not mix
        self._write(MAGIC + VERSION.to_bytes(2, "big"))

    def tap(self, direction: Literal["arrived", "left"], data: memoryview) -> None:
        self._record(ARRIVED if direction == "arrived" else LEFT, data)

    def note(self, text: str) -> None:
        """Words of this worker: who connected, why it was refused."""
        self._record(NOTE, text.encode())

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _record(self, kind: int, data: bytes | memoryview) -> None:
        with self._lock:
            if self._fd is None:
                return
            if self._recorder.take(HEAD.size + len(data)):
                self._write(HEAD.pack(kind, time.monotonic_ns(), len(data)), data)
            else:
                cut = b"cut: the recordings reached their size cap"
                self._write(HEAD.pack(NOTE, time.monotonic_ns(), len(cut)), cut)
                self.close()

    def _write(self, *pieces: bytes | memoryview) -> None:
        views = [memoryview(piece) for piece in pieces if len(piece)]
        try:
            while views and self._fd is not None:
                done = os.writev(self._fd, views)
                while views and done >= len(views[0]):
                    done -= len(views.pop(0))
                if views:
                    views[0] = views[0][done:]
        except OSError:  # the disk is full: the reader finds the last record cut short
            self.close()
