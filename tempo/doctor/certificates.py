"""Certificates: those of this side as files, and that of a worker as it shows it."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, final

from cryptography import x509

from tempo.doctor.finding import Finding, note, ok, problem
from tempo.errors import OutsideError, UsageError
from tempo.fleet import RemoteWorker, TlsFiles
from tempo.wire import TlsRefused
from tempo.wire.tls import Why, handshake, wrap

_GREETING_S: Final = 10.0
#: Less than this is time to renew.
_SOON: Final = timedelta(days=14)
_RENEW: Final = "issue a new one: tempo worker issue DIR --name NAME --role ROLE --force"

#: What to do where a handshake is refused: by us of the worker, and by the worker of us.
_THEIRS: Final[Mapping[Why, str]] = {
    Why.EXPIRED: "issue a new certificate for the worker (--role worker), and compare both clocks",
    Why.NOT_YET_VALID: "compare the clocks of both sides: one of them is wrong",
    Why.WRONG_NAME: "issue it with --host NAME, the name or address that is dialled",
    Why.WRONG_ROLE: "issue it with --role worker",
    Why.NO_TLS: "start it with --cert, --key and --ca",
}
_OURS: Final[Mapping[Why, str]] = {
    Why.EXPIRED: "issue a new certificate for this side (--role master), or set the worker's clock",
    Why.BAD: "its log says why; compare the clocks of both sides",
    Why.WRONG_ROLE: "issue this side's certificate with --role master",
}
_SAME_CA: Final = (
    "issue both certificates by one authority (tempo worker ca), and name its ca.pem on both sides"
)


@final
@dataclass(frozen=True, slots=True)
class Greeting:
    """Of a worker's TLS. expires: of its certificate. since, until: its clock is between them, as it took
    this side's certificate, whose dates they are."""

    version: str
    expires: datetime
    since: datetime
    until: datetime

    def __str__(self) -> str:
        return (
            f"{self.version}, its certificate until {self.expires:%Y-%m-%d}, "
            f"its clock between {self.since:%Y-%m-%d} and {self.until:%Y-%m-%d}"
        )

    @property
    def soon(self) -> bool:
        return self.expires - datetime.now(UTC) < _SOON


def own(tls: TlsFiles) -> Finding:
    """This side's files."""
    try:
        tls.context("master")
        found = _certificate(Path(tls.cert))
        mode = stat.S_IMODE(Path(tls.key).stat().st_mode)
    except (UsageError, OSError, ValueError) as error:
        return problem("certificate", str(error), "name the three files that tempo worker issue wrote")
    now, words = datetime.now(UTC), f"valid until {found.not_valid_after_utc:%Y-%m-%d}"
    if now < found.not_valid_before_utc:
        return problem(
            "certificate", f"valid from {found.not_valid_before_utc} on", "set this machine's clock"
        )
    if now > found.not_valid_after_utc:
        return problem("certificate", f"expired on {found.not_valid_after_utc:%Y-%m-%d}", _RENEW)
    if mode & 0o077:
        return problem(
            "certificate", f"its key can be read by others (mode {mode:o})", f"chmod 600 {tls.key}"
        )
    if found.not_valid_after_utc - now < _SOON:
        return note("certificate", words, _RENEW)
    return ok("certificate", words)


def greet(worker: RemoteWorker, tls: TlsFiles) -> Greeting:
    """One more connection to a worker, for its certificate. Raises OutsideError."""
    mine = _certificate(Path(tls.cert))
    deadline = time.monotonic() + _GREETING_S
    context = tls.context("master")  # first: where the files are at fault, no connection is left open
    sock = wrap(worker.endpoint.connect(deadline), context, "master", worker.endpoint.tls_name)
    try:
        handshake(sock, "master", deadline=deadline)
        shown = sock.getpeercert(binary_form=True)
        version = sock.version() or ""
    finally:
        sock.close()
    if shown is None:
        raise OutsideError("it showed no certificate")
    expires = x509.load_der_x509_certificate(shown).not_valid_after_utc
    return Greeting(version, expires, mine.not_valid_before_utc, mine.not_valid_after_utc)


def mend(refused: TlsRefused) -> str:
    """What to do about a handshake that failed."""
    if refused.why in (Why.WRONG_CA, Why.SELF_SIGNED):
        return _SAME_CA
    known = _OURS if refused.by_peer else _THEIRS
    return known.get(refused.why, "look at the worker's log, and at the certificates of both sides")


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())
