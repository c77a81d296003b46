"""A file that is written beside its place and put there whole. Ctrl-C at any moment leaves nothing beside it.

An interrupt may come before the caller has the object in hand, or as `__exit__` begins, where no `except`
stands yet. So removing is tied to the object's life and to the interpreter's end as well (weakref.finalize),
and may be done again at any time: what is removed is decided by the lock, not by what was remembered. As long
as something holds the object, a notebook's last traceback, say, the file and its lock stay.
"""

from __future__ import annotations

import fcntl
import io
import os
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, final

from tempo.errors import OutsideError, UsageError

#: "ab" creates it and cuts nothing off: another process may be writing it.
_open: Final = partial(io.FileIO, mode="ab", opener=partial(os.open, mode=0o600))


@final
class Beside:
    """`.NAME.new` beside `path`, empty, locked against other writers. Whoever creates it makes it readable by
    the owner alone. A forked child leaves it to its parent.

    Raises UsageError where another writer is at it, OutsideError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # One name, so that what a killed process left is overwritten and does not pile up.
        self._name = path.with_name(f".{path.name}.new")
        self._files: list[io.FileIO] = []
        self._pid = os.getpid()
        self._last = weakref.finalize(self, _remove_at_last, self._name, self._files, self._pid)
        try:
            self._files.extend(map(_open, [self._name]))  # one call: opened and kept, or neither
            (self._file,) = self._files
            if not _ours(self._file, self._name):  # it was put in its place between open and lock
                raise UsageError(f"another writer puts {path} in its place right now: try again")
            self._file.truncate(0)
        except BlockingIOError:
            self.remove()
            raise UsageError(f"another writer is at {path} right now") from None
        except BaseException as error:
            self.remove()
            if isinstance(error, OSError):
                raise OutsideError(f"{path} cannot be written ({error.strerror})") from error
            raise

    def write(self, data: bytes | memoryview) -> None:
        """All of it. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def put(self) -> None:
        """On the disk and in its place. Raises OSError."""
        os.fsync(self._file.fileno())
        self._name.replace(self._path)
        self.remove()

    def remove(self) -> None:
        """Nothing lies beside it, what was put in its place stays. May be called again."""
        if self._last.alive:
            _remove(self._name, self._files, self._pid)
            self._last.detach()


def _remove_at_last(name: Path, files: list[io.FileIO], pid: int) -> None:
    """A finalizer is called once, and what is raised in it goes nowhere: an interrupt does not end it."""
    try:
        _remove(name, files, pid)
    except BaseException:
        _remove(name, files, pid)
        raise


def _remove(name: Path, files: list[io.FileIO], pid: int) -> None:
    for file in files:
        if not file.closed:
            # A forked child shares the lock: the file is its parent's.
            with suppress(OSError):  # it is another's, or gone, or lies where nothing can be removed any more
                if os.getpid() == pid and _ours(file, name):
                    name.unlink()
            with suppress(OSError):
                file.close()  # and with it the lock


def _ours(file: io.FileIO, name: Path) -> bool:
    """It is the file of that name, and the lock is held. Raises BlockingIOError where another holds it."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    except FileNotFoundError:
        return False
