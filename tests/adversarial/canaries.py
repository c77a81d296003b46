"""Planted values, and every form in which an output might show one."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


def of_floats(*values: float) -> Iterator[bytes]:
    """Each as text, and neighbours as bytes, which no file has by chance."""
    for value in values:
        yield repr(value).encode()
        yield f"{value:.4g}".encode() if value < 1e4 else f"{value:.2f}".encode()
        yield f"{value:.4e}".encode()
        yield value.hex().encode()
        yield struct.pack("<d", value)
        yield struct.pack(">d", value)
    for order in "<>":
        yield struct.pack(f"{order}{len(values)}f", *values)


def of_integers(values: Sequence[int]) -> Iterator[bytes]:
    """A row of them, as text and as tensors hold it."""
    for separator in (", ", ",", " ", "\n", ""):
        yield separator.join(map(str, values)).encode()
    for kind in "bhiq":
        yield struct.pack(f"<{len(values)}{kind}", *values)


def of_bytes(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield str(list(secret)).strip("[]").encode()
    yield repr(secret)[2:-1].encode()
    yield str(int.from_bytes(secret)).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
        block = 5 if encode is base64.b32encode else 3
        for shift in range(block):  # where it begins within what is encoded
            within = encode(bytes(shift) + secret[: len(secret) // block * block - shift])
            yield within[8:]


def of_text(text: str) -> Iterator[bytes]:
    yield text.encode()
    yield text.encode("utf-16-le")
    yield from of_bytes(text.encode())


def found(outputs: Mapping[str, bytes], forms: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Which canary is in which output."""
    return [
        f"{canary} in {name}"
        for name, data in outputs.items()
        for canary, each in forms.items()
        if any(form in data or form in name.encode() for form in each)
    ]


def files(folder: Path) -> dict[str, bytes]:
    """All below, by their paths within."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
