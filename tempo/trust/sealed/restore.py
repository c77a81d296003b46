"""What `tempo unseal` writes: the form that was sealed. It appears whole or not at all.

arrays    .npz          table     .csv
tensors   .safetensors  files, images: a folder
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import torch

from tempo.data import SealedDataset
from tempo.errors import OutsideError, TamperedError, UnsupportedError, UsageError
from tempo.trust.sealed.keys import DataKey, OwnerKey
from tempo.trust.sealed.reader import Expected, SealedFile

Progress = Callable[[int], None]


def restore(
    path: Path, key: DataKey | OwnerKey, out: Path, expected: Expected | None, progress: Progress
) -> str:
    """The kind of what was written. Raises UsageError where `out` exists, as SealedFile otherwise."""
    if out.exists():
        raise UsageError(f"{out} exists already: name another file")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutsideError(f"{out} cannot be written ({error.strerror})") from error
    try:
        with SealedFile(path, key, expected) as file:
            kind = file.manifest.kind
            if kind == "state":
                raise UsageError(f"{path} is a checkpoint: Session.resume reads it")
            made = scratch / "out"
            if kind in ("files", "images"):
                _folder(file, made, progress)
            else:
                writer = {"arrays": _arrays, "table": _table, "tensors": _tensors}[kind]
                with closing(SealedDataset(path, key, expected=expected)) as data:
                    writer(data, file, made, progress)
            made.replace(out)
        return kind
    except OSError as error:
        raise OutsideError(f"{out} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _folder(file: SealedFile, out: Path, progress: Progress) -> None:
    out.mkdir()
    for number in range(len(file)):
        name, _, data = msgspec.msgpack.decode(file.record(number), type=tuple[str, int | None, bytes])
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise TamperedError(f"record {number} would be written outside of the folder: {name!r}")
        path = out.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        progress(number + 1)


def _arrays(data: SealedDataset, file: SealedFile, out: Path, progress: Progress) -> None:
    fields = file.manifest.fields
    arrays = [np.empty((len(file), *field.shape), field.dtype) for field in fields]
    for number in range(len(file)):
        item = data[number]
        for array, t in zip(arrays, item if isinstance(item, tuple) else (item,), strict=True):
            array[number] = t.numpy()
        progress(number + 1)
    named: dict[str, Any] = {field.name: array for field, array in zip(fields, arrays, strict=True)}
    with out.open("wb") as target:
        np.savez(target, **named)


def _table(data: SealedDataset, file: SealedFile, out: Path, progress: Progress) -> None:
    with out.open("w", newline="", encoding="utf-8") as target:
        rows = csv.DictWriter(target, [field.name for field in file.manifest.fields])
        rows.writeheader()
        for number in range(len(file)):
            rows.writerow(data[number])
            progress(number + 1)


def _tensors(data: SealedDataset, file: SealedFile, out: Path, progress: Progress) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UnsupportedError("this needs the package safetensors", "install safetensors") from None
    tensors: dict[str, torch.Tensor] = {}
    for number in range(len(file)):
        name, tensors[name] = data[number]
        progress(number + 1)
    save_file(tensors, out)
