"""Certificate options, as `tempo worker` and `tempo plan` share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.wire import TlsFiles


def tls_files(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """None without any of the three. Raises UsageError for one or two of them."""
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise UsageError("--cert, --key and --ca are given together")
    from tempo.wire import TlsFiles

    return TlsFiles(cert, key, ca)
