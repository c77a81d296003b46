"""Shades of grey as a PNG (W3C PNG specification, third edition): the smallest that browsers read."""

from __future__ import annotations

import base64
import struct
import zlib


def data_uri(width: int, height: int, shades: bytes) -> str:
    """shades: 8 bits each, row by row."""
    return "data:image/png;base64," + base64.b64encode(png(width, height, shades)).decode("ascii")


def png(width: int, height: int, shades: bytes) -> bytes:
    if len(shades) != width * height:
        raise ValueError(f"{len(shades)} shades for {width} x {height}")
    rows = b"".join(b"\0" + shades[y * width : (y + 1) * width] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
