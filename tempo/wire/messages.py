"""The messages: all that master and worker can say to each other.

    master to worker                            worker to master
    Hello(version)                              Welcome(version, dtypes) | Refused
    Compute(job, op, left, right, rows,         Result(job) +bytes | Evicted(job, ids) | Refused
            arithmetic) +bytes
    Ring(job, op, left, right, rows) +bytes     as to Compute
    Release(ids)                                nothing
    Bye                                         nothing

Rules, and the attack that each one blocks:
- A header decodes into exactly one of these structs, unknown fields and other types refused, by a
  decoder that builds nothing else: no pickle, no class named by the peer, hence no code execution.
- A request is never decoded as a reply or the other way round: a peer cannot reflect a message.
- Result has neither shape nor dtype. The master knows both from its own request, so no reply can
  make it allocate, reinterpret or broadcast.
- A seed has one length and comes in the header; what it stands for is expanded only where there is room
  for it, so that a small message takes no memory that was not granted.
- The request says which arithmetic is allowed. Nothing that a worker says widens a tolerance.
- Nothing a worker says is free text: codes and numbers only, so no reply can write into a log or
  drive a terminal.
- Hello and Refused keep their fields in every version, so that skew is told apart from an attack.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, TypeVar

import msgspec
import torch
from msgspec import Meta, Struct

from tempo.errors import ProtocolError
from tempo.ops import PRIMES, Arithmetic, Op, result_dtype, result_shape
from tempo.wire import limits
from tempo.wire.parts import DTYPES, DtypeName, Id, Part, RingPart, Size

Rows = Annotated[tuple[Size, ...], Meta(max_length=limits.MAX_GROUPS)]
Version = Annotated[int, Meta(ge=0, le=65535)]

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


class Order(Message, frozen=True):
    """Abstract. A job. Payload: the bytes of the operands that are sent, left before right."""

    carries_payload: ClassVar[bool] = True

    job: Id
    op: Literal["product", "grad_x", "grad_w"]

    @property
    def operation(self) -> Op:
        return Op(self.op)

    @property
    def parts(self) -> tuple[Part, Part] | tuple[RingPart, RingPart]:
        raise NotImplementedError

    @property
    def sent(self) -> list[Part | RingPart]:
        """The operands in the payload, in its order."""
        return [part for part in self.parts if part.sent]

    @property
    def payload(self) -> int:
        return sum(part.nbytes for part in self.sent)

    @property
    def room(self) -> int:
        """Bytes that the operands which are sent take in a worker's memory."""
        return sum(part.room for part in self.sent)


class Compute(Order, frozen=True):
    """A product of floats."""

    left: Part
    right: Part
    rows: Rows
    arithmetic: Literal["fp32", "tf32", "bf16"]

    @property
    def parts(self) -> tuple[Part, Part]:
        return (self.left, self.right)

    @property
    def allowed(self) -> Arithmetic:
        return Arithmetic(self.arithmetic)

    @property
    def result_dtype(self) -> torch.dtype:
        """Raises UsageError where operands and arithmetic do not go together."""
        return result_dtype(self.operation, DTYPES[self.left.dtype], DTYPES[self.right.dtype], self.allowed)

    @property
    def result(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype. Raises UsageError where the operands do not go together."""
        shape = result_shape(self.operation, self.left.shape, self.right.shape, self.rows)
        return shape, self.result_dtype


class Ring(Order, frozen=True):
    """A product of shares: residues modulo each prime, one byte each."""

    left: RingPart
    right: RingPart
    rows: Rows

    @property
    def parts(self) -> tuple[RingPart, RingPart]:
        return (self.left, self.right)

    @property
    def result(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype. Raises UsageError where the operands do not go together."""
        shape = result_shape(self.operation, self.left.shape, self.right.shape, self.rows)
        return (len(PRIMES), *shape), torch.uint8


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
Request = Hello | Compute | Ring | Release | Bye
Reply = Welcome | Result | Evicted | Refused

_NONE: Final = "a header is no message of this protocol; expected one of its structs"

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_request(header: bytes | bytearray) -> Request:
    """What a worker reads. Raises ProtocolError."""
    return decode_as(_requests, header, _NONE)


def decode_reply(header: bytes | bytearray) -> Reply:
    """What a master reads. Raises ProtocolError."""
    return decode_as(_replies, header, _NONE)


def decode_as(decoder: msgspec.msgpack.Decoder[T], header: bytes | bytearray, none: str) -> T:
    """One of the structs that the decoder knows. none: what to say of anything else, in a ProtocolError."""
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The decoder's own words may quote the peer: they go nowhere.
        raise ProtocolError(none) from None
