"""Looks for secrets in every file of a folder: raw, in hexadecimal, and in base64 at any of three shifts."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path


def forms(secret: bytes) -> list[bytes]:
    """How these bytes may be written down."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        # Only the characters that no neighbour has a part in.
        first, whole = -(-8 * shift // 6), 8 * (shift + len(secret)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.append(encode(bytes(shift) + secret)[first:whole])
    return found


def search(folder: Path, secrets: Mapping[str, bytes]) -> tuple[int, list[str]]:
    """Files that were read, and a sentence for each secret that lies in one: its name and the file's."""
    wanted = {name: forms(secret) for name, secret in secrets.items()}
    count, found = 0, []
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root, name)
            if not path.is_file():
                continue
            count += 1
            data = path.read_bytes()
            found += [
                f"{what} lies in {path.relative_to(folder)}"
                for what, written in wanted.items()
                if any(form in data for form in written)
            ]
    return count, found
