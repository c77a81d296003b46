"""Linux's side of configfs-tsm, on an ordinary folder: for tests of who reads and writes its files."""

from __future__ import annotations

import os
from pathlib import Path

_MKDIR, _RMDIR, _WRITE = os.mkdir, os.rmdir, os.write


class Kernel:
    """What the kernel does behind configfs-tsm's files: attributes appear with an entry and go with it, a
    write to inblob counts and makes outblob. meddlers: so many times somebody else writes in between."""

    def __init__(self, provider: str, blob, auxblob: bytes | None, meddlers: int) -> None:
        self.provider, self.blob, self.auxblob, self.meddlers = provider, blob, auxblob, meddlers
        self.entries: list[Path] = []

    def mkdir(self, path, *mode) -> None:
        _MKDIR(path, *mode)
        self.entries.append(Path(path))
        files = {"inblob": b"", "provider": f"{self.provider}\n".encode(), "generation": b"0\n"}
        files |= {} if self.auxblob is None else {"auxblob": self.auxblob}
        for name, raw in files.items():
            (Path(path) / name).write_bytes(raw)

    def write(self, fd: int, raw: bytes) -> int:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.name == "inblob" and path.parent in self.entries:
            assert len(raw) == 64  # a longer one is EINVAL, and each write is the whole value
            entry = path.parent
            count = int((entry / "generation").read_text()) + 1 + (self.meddlers > 0)
            self.meddlers -= self.meddlers > 0
            (entry / "generation").write_text(f"{count}\n")
            (entry / "outblob").write_bytes(self.blob(raw))
        return _WRITE(fd, raw)

    def rmdir(self, path) -> None:
        for file in Path(path).iterdir():
            file.unlink()
        _RMDIR(path)
