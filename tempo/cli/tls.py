"""The options --cert, --key and --ca, as every verb that speaks to the other side takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.wire import TlsFiles


def tls_files(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """None where none is given. Raises UsageError where some are missing."""
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise UsageError("--cert, --key and --ca are given together")
    from tempo.wire import TlsFiles

    return TlsFiles(cert, key, ca)
