"""Packages as sources of data: how each client is asked, what is refused, and what is unpacked."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tempo import fetch
from tempo.errors import DataError
from tempo.fetch import Package, member, members


def package(client: str, content: bytes = b"content") -> Package:
    digest = hashlib.sha256(content).hexdigest()
    return Package("things", "things==1.0", "things.bin", digest, 1, client)


class Client:
    """Stands where `subprocess.run` was, and delivers `content`."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.command: list[str] = []
        self.pinned = ""

    def __call__(self, command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        self.command = command
        if (cwd / "requirements.txt").exists():
            self.pinned = (cwd / "requirements.txt").read_text()
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "no route to index\n")
        (cwd / "things.bin").write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


def client(monkeypatch: pytest.MonkeyPatch, content: bytes | None = b"content") -> Client:
    made = Client(content)
    monkeypatch.setattr(fetch.subprocess, "run", made)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    return made


@pytest.mark.security
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("wheel", {"download", "--no-deps", "--only-binary", "things==1.0"}),
        # pip compares before it runs anything of a source archive.
        ("source", {"download", "--no-deps", "--require-hashes", "--requirement"}),
        ("npm", {"/usr/bin/npm", "pack", "--ignore-scripts", "things==1.0"}),
    ],
)
def test_nothing_of_a_package_is_run_unseen(
    kind: str, wanted: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client(monkeypatch)
    path = package(kind).cached(lambda text: None, tmp_path / "cache")
    assert path.read_bytes() == b"content"
    assert wanted <= set(made.command)
    if kind == "source":
        assert made.pinned == f"things==1.0 --hash=sha256:{package(kind).sha256}\n"


@pytest.mark.security
def test_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(monkeypatch, b"other")
    with pytest.raises(DataError, match="SHA-256"):
        package("npm").cached(lambda text: None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_client_or_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(monkeypatch, None)
    with pytest.raises(DataError, match="npm said: no route"):
        package("npm").cached(lambda text: None, tmp_path)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match="not installed"):
        package("npm").cached(lambda text: None, tmp_path)


def tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("a/one.txt", b"1"), ("a/two.txt", b"22"), ("b/three.txt", b"333")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("a/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.security
def test_files_of_a_tarball_are_limited_and_links_are_no_files(tmp_path: Path) -> None:
    path = tarball(tmp_path / "x.tgz")
    assert list(members(path, lambda name: name.startswith("a/"), 2)) == [
        ("a/one.txt", b"1"),
        ("a/two.txt", b"22"),
    ]
    with pytest.raises(DataError, match="larger than 1 bytes"):
        list(members(path, lambda name: True, 1))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="try again"):
        list(members(path, lambda name: True, 9))


@pytest.mark.security
def test_a_member_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(100_000))
    assert len(member(path, "bomb", 100_000)) == 100_000
    with pytest.raises(DataError, match="larger"):
        member(path, "bomb", 99_999)
    with pytest.raises(DataError, match="KeyError"):
        member(path, "absent", 9)
