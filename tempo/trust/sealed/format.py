"""The sealed file, on one page.

    magic      8 bytes, TEMPOSEA
    version    2 bytes, 1
    length     4 bytes, of the header
    header     msgpack: {"salt", "key", "wrapped"}: who may open it. Public, and bound to the file's key
    segments   see stream.py; together they are the plain stream:

        records, one after the other
        index      8 bytes for each record: where it ends
        manifest   JSON: {"kind", "name", "sequence", "records", "fields"}
        length     4 bytes, of the manifest
        version    2 bytes

Numbers are big-endian. Sizes are checked before memory is taken for them. `sequence` counts the versions of
what has one name (checkpoints): who knows the newest finds out when an older one is put in its place.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, final

import msgspec
from msgspec import Meta

from tempo.errors import TamperedError, UsageError
from tempo.trust.sealed.stream import SALT

MAGIC: Final = b"TEMPOSEA"
VERSION: Final = 1
HEAD: Final = len(MAGIC) + 2 + 4
MAX_HEADER: Final = 16_384
MAX_MANIFEST: Final = 64 << 20
END: Final = 4 + 2
OFFSET: Final = 8

Kind = Literal["arrays", "files", "images", "state", "table", "tensors"]


@final
class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """key: name of the data key, or of the recipient whom `wrapped` is for."""

    salt: bytes
    key: str
    wrapped: bytes | None = None


@final
class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An array of a record, or (kind tensors) a record: NumPy's name of the dtype, and the shape."""

    name: str
    dtype: str = ""
    shape: tuple[Annotated[int, Meta(ge=0)], ...] = ()


@final
class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """fields: arrays of each record (arrays), records (tensors, state), columns (table), classes (images)."""

    kind: Kind
    name: str
    sequence: Annotated[int, Meta(ge=0)]
    records: Annotated[int, Meta(ge=0)]
    fields: tuple[Field, ...] = ()


def pack_header(header: Header) -> bytes:
    body = msgspec.msgpack.encode(header)
    return MAGIC + VERSION.to_bytes(2, "big") + len(body).to_bytes(4, "big") + body


def header_length(head: bytes) -> int:
    """Raises UsageError for what is no sealed file, TamperedError for a header too long."""
    if len(head) < HEAD or head[: len(MAGIC)] != MAGIC:
        raise UsageError("this is no sealed file (tempo seal makes one)")
    version = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 2], "big")
    if version != VERSION:
        raise UsageError(f"this sealed file has version {version}, this Tempo reads {VERSION}")
    length = int.from_bytes(head[len(MAGIC) + 2 : HEAD], "big")
    if length > MAX_HEADER:
        raise TamperedError(f"the header claims {length} bytes, at most {MAX_HEADER} are allowed")
    return length


def unpack_header(body: bytes) -> Header:
    try:
        header = msgspec.msgpack.decode(body, type=Header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TamperedError("the header of the sealed file is damaged") from error
    if len(header.salt) != SALT:
        raise TamperedError("the header of the sealed file is damaged")
    return header


def pack_manifest(manifest: Manifest) -> bytes:
    body = msgspec.json.encode(manifest)
    if len(body) > MAX_MANIFEST:
        raise UsageError(f"a manifest of {len(body)} bytes; at most {MAX_MANIFEST}")
    return body + len(body).to_bytes(4, "big") + VERSION.to_bytes(2, "big")


def unpack_manifest(body: memoryview) -> Manifest:
    """The body is authentic: what does not fit is another version's."""
    try:
        return msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError("the manifest is not of this version of Tempo") from error
