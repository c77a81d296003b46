"""What may cross the trust boundary: messages, frames, limits. Shared by both sides; knows no secret."""

from tempo.wire.deadline import DeadlinePassed
from tempo.wire.endpoint import Endpoint
from tempo.wire.frame import Channel, Tap
from tempo.wire.messages import (
    Bye,
    Compute,
    Evicted,
    Hello,
    Message,
    Refused,
    Release,
    Reply,
    Request,
    Result,
    Ring,
    Welcome,
    decode_reply,
    decode_request,
    encode,
)
from tempo.wire.parts import DTYPES, DtypeName, Part, RingPart, nbytes
from tempo.wire.requests import payload, request_message
from tempo.wire.tls import Role, TlsFiles, TlsRefused, Why

__all__ = [
    "DTYPES",
    "Bye",
    "Channel",
    "Compute",
    "DeadlinePassed",
    "DtypeName",
    "Endpoint",
    "Evicted",
    "Hello",
    "Message",
    "Part",
    "Refused",
    "Release",
    "Reply",
    "Request",
    "Result",
    "Ring",
    "RingPart",
    "Role",
    "Tap",
    "TlsFiles",
    "TlsRefused",
    "Welcome",
    "Why",
    "decode_reply",
    "decode_request",
    "encode",
    "nbytes",
    "payload",
    "request_message",
]
