"""A checkpoint: model, optimizer and whatever else has a state, generators, counters, the fleet's standing.

One sealed file of kind "state": record 0 is the tree (tree.py), the others are the tensors. It appears whole
or not at all, so a master that is killed at any moment finds the last complete one. Its step is its sequence:
whoever knows the newest step (the audit log does) finds out when an older file was put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import msgspec
import numpy as np
import torch
from torch import Tensor

from tempo.checkpoint import generators
from tempo.checkpoint.tree import pack, unpack
from tempo.errors import TamperedError, UsageError
from tempo.trust.sealed import DataKey, Expected, OwnerKey, Recipient, SealedFile, SealedWriter
from tempo.trust.sealed.format import Field
from tempo.trust.sealed.sources import tensor_dtype

VERSION: Final = 1


@runtime_checkable
class Stateful(Protocol):
    """A module, optimizer, scheduler, gradient scaler, or anything of the user's that says its state."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@final
@dataclass(frozen=True, slots=True)
class Resumed:
    """step: as it was given. extra: likewise. session: counters and standing of workers, for the session."""

    step: int
    extra: Any
    session: dict[str, Any] = field(repr=False)


def write(
    path: Path,
    key: DataKey | Recipient,
    *,
    name: str,
    step: int,
    parts: Mapping[str, Stateful | torch.Generator],
    session: dict[str, Any],
    extra: Any = None,
) -> None:
    """Write it, in the place of an older one. Raises UnsupportedError for state that is no plain data,
    OutsideError where it cannot be written; the older one is then still there."""
    for part, each in parts.items():
        if not isinstance(each, (Stateful, torch.Generator)):
            raise UsageError(f"{part} is a {type(each).__name__} without state_dict and load_state_dict")
    tensors: list[Tensor] = []
    tree = {
        "version": VERSION,
        "parts": {part: pack(_state(each), tensors, part) for part, each in parts.items()},
        "generators": pack(generators.states(), tensors, "generators"),
        "session": pack(session, tensors, "session"),
        "extra": pack(extra, tensors, "extra"),
    }
    fields = [Field("tree"), *(Field(str(i), tensor_dtype(t), tuple(t.shape)) for i, t in enumerate(tensors))]
    with SealedWriter(path, key, kind="state", name=name, fields=fields, sequence=step, replace=True) as out:
        out.add(msgspec.msgpack.encode(tree))
        for t in tensors:
            out.add(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def read(
    path: Path,
    key: DataKey | OwnerKey,
    *,
    parts: Mapping[str, Stateful | torch.Generator],
    expected: Expected | None = None,
) -> Resumed:
    """Put the state back into `parts` and the generators. The whole file is read and verified before anything
    is changed. Raises TamperedError, UsageError for another key or other parts, DataError."""
    with SealedFile(path, key, expected) as file:
        if file.manifest.kind != "state":
            raise UsageError(f"{path} holds {file.manifest.kind}, it is no checkpoint")
        tree = msgspec.msgpack.decode(file.record(0), type=dict[str, Any])
        about = file.manifest.fields[1:]
        tensors = [_tensor(file.record(i + 1), each) for i, each in enumerate(about)]
        step = file.manifest.sequence
    if tree.get("version") != VERSION:
        raise UsageError(f"{path} has version {tree.get('version')}, this Tempo reads {VERSION}")
    found = {part: unpack(state, tensors) for part, state in tree["parts"].items()}
    if found.keys() != parts.keys():
        raise UsageError(
            f"{path} holds the state of {', '.join(sorted(found))}; "
            f"given are {', '.join(sorted(parts)) or 'none'}"
        )
    drawn, session, extra = (unpack(tree[name], tensors) for name in ("generators", "session", "extra"))
    for part, each in parts.items():
        if isinstance(each, torch.Generator):
            each.set_state(found[part])
        else:
            each.load_state_dict(found[part])
    generators.restore(drawn)
    return Resumed(step, extra, session)


def _state(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _tensor(record: memoryview, about: Field) -> Tensor:
    bits = about.dtype == "bfloat16"
    dtype = np.dtype("<i2" if bits else about.dtype)
    count = int(np.prod(about.shape, dtype=np.int64))
    if len(record) != count * dtype.itemsize:
        raise TamperedError("a tensor of the checkpoint does not fit its shape")
    # The memory is ours alone: `record` is fresh.
    t = torch.from_numpy(np.frombuffer(record, dtype).reshape(about.shape))
    return t.view(torch.bfloat16) if bits else t
