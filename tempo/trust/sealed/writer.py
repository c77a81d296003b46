"""Writes a sealed file, record by record, in one pass. The file appears whole or not at all."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import numpy as np
from numpy.typing import NDArray

from tempo.errors import OutsideError, UsageError
from tempo.kernels.hidden import Hidden
from tempo.trust.sealed.beside import Beside
from tempo.trust.sealed.format import OFFSET, Field, Header, Kind, Manifest, pack_header, pack_manifest
from tempo.trust.sealed.keys import DataKey, Recipient
from tempo.trust.sealed.stream import SALT, SEGMENT, TAG, Segments

#: Segments of one write, 1 MiB: few calls, and they are still in the core's cache when they are written.
BATCH: Final = 16


@final
class SealedWriter(Hidden):
    """with SealedWriter(path, key, kind="files", name="invoices") as out: out.add(b"...")

    key: a DataKey, or a Recipient, whose owner alone can open the file then. Leaving the block by an error
    leaves nothing behind; so does one within a record, and whoever catches it there has UsageError at the
    next step. Raises UsageError where the path exists (unless `replace`), OutsideError where it
    cannot be written.
    """

    def __init__(
        self,
        path: Path,
        key: DataKey | Recipient,
        *,
        kind: Kind,
        name: str,
        fields: Sequence[Field] = (),
        sequence: int = 0,
        replace: bool = False,
    ) -> None:
        if path.exists() and not replace:
            raise UsageError(f"{path} exists already: name another file")
        if not path.parent.is_dir():
            raise OutsideError(f"{path} cannot be written: there is no folder {path.parent}")
        self._path = path
        self._about = (kind, name, sequence, tuple(fields))
        salt = os.urandom(SALT)
        if isinstance(key, Recipient):
            inner = DataKey.generate()
            header = pack_header(Header(salt, key.name, key.wrap(inner)))
        else:
            inner, header = key, pack_header(Header(salt, key.name))
        self._segments = Segments(inner, salt, header)
        self._number = 0
        self._buffer = memoryview(bytearray(SEGMENT))
        self._filled = 0
        self._sealed = memoryview(bytearray(BATCH * (SEGMENT + TAG)))
        self._waiting = 0  # sealed bytes that are not written yet
        self._ends = array("Q")
        self._length = 0
        self._done = False
        self._spoilt = False
        self._file = Beside(path)
        try:
            self._write(header)
        except BaseException:
            self.discard()  # a traceback may keep this object
            raise

    def add(self, *pieces: bytes | bytearray | memoryview) -> None:
        """One record: the pieces, one after the other. Raises UsageError after `finish`, `discard` and what
        came in the middle of a record."""
        if self._done:
            raise self._ended()
        try:
            for piece in pieces:
                filled = self._filled
                end = filled + len(piece)
                # Copied at once where it fits: no slice is made. The length of a view may not be in bytes.
                flat = isinstance(piece, (bytes, bytearray)) or (piece.format == "B" and piece.ndim == 1)
                if flat and end <= SEGMENT:
                    self._buffer[filled:end] = piece
                    self._length += end - filled
                    self._filled = end
                else:
                    self._put(memoryview(piece).cast("B"))
            self._ends.append(self._length)
        except BaseException:
            self._spoil()
            raise

    def add_rows(self, rows: NDArray[Any]) -> None:
        """Records of one length at once: each is a row [R, ...] along the first axis, its bytes as they lie
        in memory. No Python runs for each of them. Raises UsageError for an array without axes, and as
        `add`."""
        if self._done:
            raise self._ended()
        if rows.ndim == 0:
            raise UsageError("rows have a first axis: each is a record")
        lies = np.ascontiguousarray(rows)
        count = len(lies)
        size = lies.nbytes // max(count, 1)
        before = self._length
        try:
            if lies.nbytes:
                self._put(lies.reshape(-1).view(np.uint8).data)
            ends = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(size) + np.uint64(before)
            self._ends.frombytes(ends.tobytes())
        except BaseException:
            self._spoil()
            raise

    def finish(self, fields: Sequence[Field] | None = None) -> None:
        """Index and manifest; then the file is in its place. fields: where they are known at the end only."""
        if self._done:
            raise self._ended()
        try:
            self._finish(fields)
        except BaseException as error:
            self._spoil()
            if isinstance(error, OSError):
                raise OutsideError(f"{self._path} cannot be written ({error.strerror})") from error
            raise
        self._done = True

    def _finish(self, fields: Sequence[Field] | None) -> None:
        kind, name, sequence, first = self._about
        known = first if fields is None else tuple(fields)
        manifest = pack_manifest(Manifest(kind, name, sequence, len(self._ends), known))
        if self._ends.itemsize != OFFSET:
            raise AssertionError("an index entry has 8 bytes")
        self._put(np.frombuffer(self._ends, np.uint64).astype(">u8").view(np.uint8).data)
        self._put(memoryview(manifest))
        self._seal(self._buffer[: self._filled], last=True)
        self._flush()
        self._file.put()

    def discard(self) -> None:
        """Nothing is left of it. May be called again."""
        self._done = True
        self._file.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._spoilt:
            raise self._ended()
        elif not self._done:
            self.finish()

    def _put(self, data: memoryview) -> None:
        self._length += len(data)
        while data:
            # A full segment is sealed only when more comes: the last one is marked.
            if self._filled == SEGMENT:
                self._seal(self._buffer, last=False)
                self._filled = 0
            if self._filled == 0 and len(data) > SEGMENT:
                self._seal(data[:SEGMENT], last=False)
                data = data[SEGMENT:]
                continue
            part = data[: SEGMENT - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]

    def _seal(self, plain: memoryview, *, last: bool) -> None:
        if len(self._sealed) - self._waiting < len(plain) + TAG:
            self._flush()
        out = self._sealed[self._waiting :]
        # Counted before it is used: whoever goes on after an interrupt never seals under a nonce again.
        number, self._number = self._number, self._number + 1
        self._waiting += self._segments.seal_into(number, plain, out, last=last)

    def _spoil(self) -> None:
        """An error or an interrupt came within a record: what follows would lie in the wrong place."""
        self._spoilt = True
        self.discard()

    def _ended(self) -> UsageError:
        how = "was spoilt by an error or an interrupt" if self._spoilt else "is finished or discarded"
        return UsageError(f"the writing of {self._path} {how}: begin anew")

    def _flush(self) -> None:
        self._write(self._sealed[: self._waiting])
        self._waiting = 0

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.discard()
            raise OutsideError(f"{self._path} cannot be written ({error.strerror})") from error
