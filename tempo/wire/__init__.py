"""What may cross the trust boundary: messages, frames, limits. Shared by both sides; knows no secret."""

from tempo.wire.deadline import DeadlinePassed
from tempo.wire.endpoint import Endpoint
from tempo.wire.frame import Channel, Tap
from tempo.wire.messages import (
    DTYPES,
    Bye,
    Compute,
    DtypeName,
    Evicted,
    Hello,
    Message,
    Part,
    Refused,
    Release,
    Reply,
    Request,
    Result,
    Welcome,
    compute_message,
    decode_reply,
    decode_request,
    encode,
    nbytes,
)
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
    "Role",
    "Tap",
    "TlsFiles",
    "TlsRefused",
    "Welcome",
    "Why",
    "compute_message",
    "decode_reply",
    "decode_request",
    "encode",
    "nbytes",
]
