"""The audit log, as the master or the vault writes it: append-only, signed at every entry, crash-safe.

An entry is on disk and signed when `append` returns. The order is entries, hashes, checkpoint, each
synchronised before the next, so a crash leaves at most one entry that nobody was told about; the next `open`
cuts that off and records so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, final

from tempo.errors import OutsideError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.ledger.entry import Entry, Kind, Value, make
from tempo.trust.ledger.files import CHECKPOINT, ENTRIES, HASHES, Contents, read_verified
from tempo.trust.ledger.merkle import HASH_BYTES, Frontier, leaf_hash
from tempo.trust.ledger.note import Checkpoint, Signer

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


@final
class Ledger(Hidden):
    """Thread-safe; one process writes at a time. Made by `create` or `open`."""

    def __init__(self, directory: Path, signer: Signer, clock: Clock, lock_fd: int) -> None:
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._lock_fd: int | None = lock_fd
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._failed = False
        self._frontier = Frontier()
        self._length = 0  # bytes of entries.jsonl that are covered

    @classmethod
    def create(cls, directory: Path, signer: Signer, clock: Clock = _now) -> Ledger:
        """A new log in a folder that does not exist yet, or is empty. Raises UsageError, OutsideError."""
        with _files(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise UsageError(
                    f"{directory} is not empty: open the log that is there, or name another folder"
                )
            log = cls(directory, signer, clock, _locked(directory))
            for name in (ENTRIES, HASHES):
                os.close(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            log._publish(log._frontier)
        log.append(Kind.LOG_OPENED, origin=signer.name)
        return log

    @classmethod
    def open(
        cls, directory: Path, signer: Signer, *, since: Checkpoint | None = None, clock: Clock = _now
    ) -> Ledger:
        """The log that is there, verified whole. since: a checkpoint kept elsewhere, which it must extend.

        Raises TamperedError, DataError where it is none, UsageError while another process writes to it.
        """
        if not directory.is_dir():
            raise UsageError(f"there is no log in {directory}: create it first")
        with _files(directory):
            log = cls(directory, signer, clock, _locked(directory))
        try:
            log._resume(read_verified(directory, signer.verifier, since=since))
        except BaseException:
            log.close()
            raise
        return log

    def append(self, kind: Kind, **fields: Value) -> Checkpoint:
        """Record what happened; returns when it is on disk and signed.

        Raises UsageError for fields that a log does not take, OutsideError where it cannot be written: then
        nothing was acknowledged and the log is closed, since what is on disk is not known.
        """
        at = self._clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = make(at, kind, fields)
        with self._lock:
            if self._failed:
                raise OutsideError(
                    "the audit log could not be written before: nothing goes on without it. Mend that and "
                    "open the log again"
                )
            if self._lock_fd is None or os.getpid() != self._owner:
                raise UsageError("this log is closed, or belongs to another process: open it again")
            leaf = leaf_hash(line)
            after = self._frontier.extended(leaf)
            try:
                with _files(self._directory):
                    _write_at(self._directory / ENTRIES, self._length, line + b"\n")
                    _write_at(self._directory / HASHES, self._frontier.size * HASH_BYTES, leaf)
                    checkpoint = self._publish(after)
            except BaseException:  # an interrupt too: which of the three was written?
                self._failed = True
                self._unlock()
                raise
            self._frontier, self._length = after, self._length + len(line) + 1
            return checkpoint

    def entries(self) -> tuple[Entry, ...]:
        """All entries, read from disk and verified."""
        with self._lock:
            return read_verified(self._directory, self._signer.verifier).entries

    @property
    def head(self) -> Checkpoint:
        """The newest checkpoint. Kept elsewhere, it proves that nothing before it was changed."""
        with self._lock:
            return self._checkpoint(self._frontier)

    def close(self) -> None:
        """May be called again."""
        with self._lock:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checkpoint(self, tree: Frontier) -> Checkpoint:
        return Checkpoint(self._signer.name, tree.size, tree.root())

    def _publish(self, tree: Frontier) -> Checkpoint:
        checkpoint = self._checkpoint(tree)
        replace(self._directory / CHECKPOINT, self._signer.sign(checkpoint).encode())
        return checkpoint

    def _resume(self, found: Contents) -> None:
        for leaf in found.leaves:
            self._frontier.append(leaf)
        self._length = found.covered
        with _files(self._directory):
            # The hashes may be damaged where the entries are whole: they can be computed.
            replace(self._directory / HASHES, b"".join(found.leaves))
            if found.beyond:
                os.truncate(self._directory / ENTRIES, found.covered)
        if found.beyond:
            cut = hashlib.sha256(found.beyond).hexdigest()
            self.append(Kind.LOG_RECOVERED, bytes_cut=len(found.beyond), sha256_of_cut=cut)


def replace(path: Path, data: bytes) -> None:
    """The file whole or as it was, after a crash too."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)
    _sync_folder(path.parent)


def _write_at(path: Path, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(fd, offset)  # what a failed append left behind
        os.lseek(fd, offset, os.SEEK_SET)
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _locked(directory: Path) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UsageError(f"another process writes to the log in {directory}") from None
    return fd


@contextmanager
def _files(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutsideError(
            f"the audit log in {directory} cannot be written ({error.strerror}): nothing goes on without it"
        ) from error
