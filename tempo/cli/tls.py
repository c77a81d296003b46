"""The options --cert, --key, --ca and --crl, as every verb that speaks to the other side takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempo.errors import UsageError

if TYPE_CHECKING:
    from tempo.wire import TlsFiles

_REMOTE = re.compile(r"(?!local:|cuda:|unix:)\S+:[0-9]+")


Crl = Annotated[
    Path | None, typer.Option(help="The authority's list of revoked certificates, PEM. [default: none]")
]


def tls_files(
    cert: Path | None, key: Path | None, ca: Path | None, crl: Path | None = None
) -> TlsFiles | None:
    """None where none is given. Raises UsageError where some are missing."""
    if cert is None and key is None and ca is None:
        if crl is not None:
            raise UsageError("--crl goes with --cert, --key and --ca: without TLS nobody is identified")
        return None
    if cert is None or key is None or ca is None:
        raise UsageError("--cert, --key and --ca are given together")
    from tempo.wire import TlsFiles

    return TlsFiles(cert, key, ca, crl)


def require_certificates(workers: Iterable[str], tls: TlsFiles | None) -> None:
    """Raises UsageError where a worker is reached over a network and no certificates were given."""
    remote = [spec for spec in workers if _REMOTE.fullmatch(spec)]
    if remote and tls is None:
        raise UsageError(
            f"worker {remote[0]} is reached over a network, so it needs certificates: "
            "give --cert, --key and --ca"
        )
