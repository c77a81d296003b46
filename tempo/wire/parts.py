"""One operand of a request, as a header names it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor

from tempo.ops import KEY_BYTES, PRIMES, expand_into
from tempo.ops.ring import MAX_HALVES
from tempo.wire import limits

Id = Annotated[int, Meta(ge=0, le=limits.MAX_ID)]
Size = Annotated[int, Meta(ge=0, le=limits.MAX_SIZE)]
Sizes = Annotated[tuple[Size, ...], Meta(max_length=limits.MAX_DIMS)]
DtypeName = Literal["f32", "f64", "bf16"]
#: A share: the seed that expands to it, or null where its residues follow in the payload.
Share = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)] | None

DTYPES: Mapping[DtypeName, torch.dtype] = MappingProxyType(
    {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}
)
NAMES: Mapping[torch.dtype, DtypeName] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})


def nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes of a contiguous tensor, in integers that do not overflow."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One operand of a Compute. sent: its bytes follow, else the worker kept it earlier."""

    id: Id
    shape: Sizes
    dtype: DtypeName
    sent: bool
    keep: bool

    @property
    def nbytes(self) -> int:
        """Bytes in the payload, where it is sent."""
        return nbytes(self.shape, DTYPES[self.dtype])

    @property
    def room(self) -> int:
        """Bytes that it takes in a worker's memory, where it is sent."""
        return self.nbytes

    @property
    def memory(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of the tensor that it is there."""
        return self.shape, DTYPES[self.dtype]

    def names(self, tensor: Tensor) -> bool:
        """A tensor that is kept under its id is what it claims to refer to."""
        return self.memory == (tuple(tensor.shape), tensor.dtype)

    def refers_to(self, sent: Part | RingPart) -> bool:
        """What another request ships under its id is what it claims to refer to."""
        return isinstance(sent, Part) and sent.memory == self.memory

    def places(self, tensor: Tensor) -> list[Tensor]:
        """Where in that tensor the payload goes, in its order."""
        return [tensor]

    def complete(self, tensor: Tensor) -> None:
        """Make what is to be computed with of what came in the payload."""


class RingPart(Struct, frozen=True, forbid_unknown_fields=True):
    """One operand of a Ring. halves: its shares; none where the worker kept it earlier."""

    id: Id
    shape: Sizes
    halves: Annotated[tuple[Share, ...], Meta(max_length=MAX_HALVES)]
    keep: bool

    @property
    def sent(self) -> bool:
        return bool(self.halves)

    @property
    def nbytes(self) -> int:
        """Bytes in the payload."""
        return self.halves.count(None) * nbytes(self._residues, torch.uint8)

    @property
    def room(self) -> int:
        """Bytes that it takes in a worker's memory, seeds expanded."""
        return len(self.halves) * nbytes(self._residues, torch.uint8)

    @property
    def memory(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of the tensor that it is there: (H, P, *shape), with H halves and P primes."""
        return (len(self.halves), *self._residues), torch.uint8

    @property
    def _residues(self) -> tuple[int, ...]:
        return (len(PRIMES), *self.shape)

    def names(self, tensor: Tensor) -> bool:
        """A tensor that is kept under its id is what it claims to refer to."""
        return (self._residues, torch.uint8) == (tuple(tensor.shape[1:]), tensor.dtype)

    def refers_to(self, sent: Part | RingPart) -> bool:
        """What another request ships under its id is what it claims to refer to."""
        return isinstance(sent, RingPart) and sent.shape == self.shape

    def places(self, tensor: Tensor) -> list[Tensor]:
        """Where in that tensor the payload goes, in its order."""
        return [place for place, half in zip(tensor, self.halves, strict=True) if half is None]

    def complete(self, tensor: Tensor) -> None:
        """Make what is to be computed with of what came in the payload: expand seeds."""
        for place, half in zip(tensor, self.halves, strict=True):
            if half is not None:
                expand_into(half, place)

    def __repr__(self) -> str:
        return f"RingPart(id={self.id}, shape={self.shape}, halves={len(self.halves)}, keep={self.keep})"
