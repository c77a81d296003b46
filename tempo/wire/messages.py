"""The messages: all that master and worker can say to each other.

    master to worker                            worker to master
    Hello(version)                              Welcome(version, dtypes) | Refused
    Compute(job, op, left, right, rows,         Result(job) +bytes | Evicted(job, ids) | Refused
            arithmetic) +bytes
    Release(ids)                                nothing
    Bye                                         nothing

Rules, and the attack that each one blocks:
- A header decodes into exactly one of these structs, unknown fields and other types refused, by a
  decoder that builds nothing else: no pickle, no class named by the peer, hence no code execution.
- A request is never decoded as a reply or the other way round: a peer cannot reflect a message.
- Result has neither shape nor dtype. The master knows both from its own request, so no reply can
  make it allocate, reinterpret or broadcast.
- The request says which arithmetic is allowed. Nothing that a worker says widens a tolerance.
- Nothing a worker says is free text: codes and numbers only, so no reply can write into a log or
  drive a terminal.
- Hello and Refused keep their fields in every version, so that skew is told apart from an attack.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
import torch
from msgspec import Meta, Struct

from tempo.errors import ProtocolError, UsageError
from tempo.ops import Arithmetic, Job, Op, Operand, result_dtype
from tempo.wire import limits

Id = Annotated[int, Meta(ge=0, le=limits.MAX_ID)]
Size = Annotated[int, Meta(ge=0, le=limits.MAX_SIZE)]
Sizes = Annotated[tuple[Size, ...], Meta(max_length=limits.MAX_DIMS)]
Rows = Annotated[tuple[Size, ...], Meta(max_length=limits.MAX_GROUPS)]
Version = Annotated[int, Meta(ge=0, le=65535)]
DtypeName = Literal["f32", "f64", "bf16"]

DTYPES: Mapping[DtypeName, torch.dtype] = MappingProxyType(
    {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}
)
_NAMES: Mapping[torch.dtype, DtypeName] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})

#: Why a worker says no. version: another protocol. malformed: the request breaks a rule. memory: it
#: does not fit this worker. failed: the device could not compute it. busy: no connection is free. role:
#: the certificate is not a master's. unsupported: its device has no products in a dtype of the job.
Code = Literal["version", "malformed", "memory", "failed", "busy", "role", "unsupported"]


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag=str.lower, tag_field="is"):
    """Abstract: one final subclass per message."""

    carries_payload: ClassVar[bool] = False


class Hello(Message, frozen=True):
    """First message on a connection."""

    version: Version


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """One operand of a Compute. sent: its bytes follow, else the worker kept it earlier."""

    id: Id
    shape: Sizes
    dtype: DtypeName
    sent: bool
    keep: bool

    @property
    def nbytes(self) -> int:
        return nbytes(self.shape, DTYPES[self.dtype])


class Compute(Message, frozen=True):
    """A job. Payload: the bytes of the operands that are sent, left before right."""

    carries_payload: ClassVar[bool] = True

    job: Id
    op: Literal["product", "grad_x", "grad_w"]
    left: Part
    right: Part
    rows: Rows
    arithmetic: Literal["fp32", "tf32", "bf16"]

    @property
    def operation(self) -> Op:
        return Op(self.op)

    @property
    def allowed(self) -> Arithmetic:
        return Arithmetic(self.arithmetic)

    @property
    def result_dtype(self) -> torch.dtype:
        """Raises UsageError where operands and arithmetic do not go together."""
        return result_dtype(self.operation, DTYPES[self.left.dtype], DTYPES[self.right.dtype], self.allowed)

    @property
    def parts(self) -> tuple[Part, Part]:
        return (self.left, self.right)

    @property
    def sent(self) -> list[Part]:
        """The operands in the payload, in its order."""
        return [part for part in self.parts if part.sent]

    @property
    def payload(self) -> int:
        return sum(part.nbytes for part in self.sent)


class Release(Message, frozen=True):
    """Operands that no later job refers to."""

    ids: Annotated[tuple[Id, ...], Meta(max_length=limits.MAX_IDS)]


class Bye(Message, frozen=True):
    """The master closes in good order."""


class Welcome(Message, frozen=True):
    """dtypes: of the operands that this worker multiplies. It keeps to the arithmetic of each request."""

    version: Version
    dtypes: Annotated[tuple[DtypeName, ...], Meta(max_length=len(DTYPES))]


class Result(Message, frozen=True):
    """Payload: the result, whose shape and dtype the master knows."""

    carries_payload: ClassVar[bool] = True

    job: Id


class Evicted(Message, frozen=True):
    """The job refers to operands that the worker dropped. Nothing of the job was stored."""

    job: Id
    ids: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=2)]


class Refused(Message, frozen=True):
    """The worker does not do the job, and stored nothing of it. job: None outside of a job."""

    code: Code
    job: Id | None = None


T = TypeVar("T")
Request = Hello | Compute | Release | Bye
Reply = Welcome | Result | Evicted | Refused

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_request(header: bytes | bytearray) -> Request:
    """What a worker reads. Raises ProtocolError."""
    return _decode(_requests, header)


def decode_reply(header: bytes | bytearray) -> Reply:
    """What a master reads. Raises ProtocolError."""
    return _decode(_replies, header)


def _decode(decoder: msgspec.msgpack.Decoder[T], header: bytes | bytearray) -> T:
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The decoder's own words may quote the peer: they go nowhere.
        raise ProtocolError("a header is no message of this protocol; expected one of its structs") from None


def nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes of a contiguous tensor, in integers that do not overflow."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def compute_message(job: Job, number: int, ship: frozenset[int]) -> Compute:
    """The request for `job`, with the operands in `ship` sent and the others referred to.

    Raises UsageError where the job cannot cross the boundary.
    """
    expected = job.result_nbytes  # raises if the operands do not fit
    seen: set[int] = set()
    parts = []
    for operand in job.operands:
        parts.append(_part(operand, sent=operand.id in ship and operand.id not in seen))
        seen.add(operand.id)
    message = Compute(number, job.op.value, parts[0], parts[1], job.rows, job.arithmetic.value)
    if max(message.payload, expected) > limits.MAX_PAYLOAD or len(job.rows) > limits.MAX_GROUPS:
        raise UsageError(
            f"{job.op.value} of {job.left.shape} and {job.right.shape} in {len(job.rows)} groups passes "
            f"the limits of a frame ({limits.MAX_PAYLOAD} bytes, {limits.MAX_GROUPS} groups): split it"
        )
    return message


def _part(operand: Operand, *, sent: bool) -> Part:
    name = _NAMES.get(operand.dtype)
    if name is None:
        raise UsageError(
            f"operands are float32, float64 or bfloat16, not {operand.dtype}: convert before sealing"
        )
    if sent and operand.tensor is None:
        raise UsageError(f"operand {operand.id} is to be sent, but the job has no tensor for it")
    return Part(operand.id, operand.shape, name, sent, operand.keep)
