"""The options --cert, --key and --ca, as every verb that speaks to the other side takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.wire import TlsFiles

_REMOTE = re.compile(r"(?!local:|cuda:|unix:)\S+:[0-9]+")


def tls_files(cert: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """None where none is given. Raises UsageError where some are missing."""
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise UsageError("--cert, --key and --ca are given together")
    from tempo.wire import TlsFiles

    return TlsFiles(cert, key, ca)


def require_certificates(workers: Iterable[str], tls: TlsFiles | None) -> None:
    """Raises UsageError where a worker is reached over a network and no certificates were given."""
    remote = [spec for spec in workers if _REMOTE.fullmatch(spec)]
    if remote and tls is None:
        raise UsageError(
            f"worker {remote[0]} is reached over a network, so it needs certificates: "
            "give --cert, --key and --ca"
        )
