"""Mutual TLS 1.3, and a name for each way in which it fails.

1. Both sides show a certificate that the owner's authority (`ca`) signed, valid now.
2. Its extended key usage fits its side: serverAuth for a worker, a vault or a master that other masters dial
   (a peer), clientAuth for a master (OpenSSL's check).
3. The certificate of a worker, vault or peer has the name that the master dialled (OpenSSL's check).
4. Its one URI among the subject's alternative names is tempo:ROLE/NAME with the role of its side: a
   master's certificate never serves as a worker's, nor a worker's as a vault's, whatever its key usage says.
5. Where a list of revoked certificates was given (`crl`), the peer's is not on it, and the list is the
   authority's and not out of date (OpenSSL's check, of the peer's certificate alone).

Only TLS 1.3, no resumption (a certificate is looked at each time), no compression, no renegotiation.
Which of our own certificates a peer refused comes as a TLS alert after our handshake, hence `refusal`
is also asked about errors of later reads.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, final

from tempo.errors import ProtocolError, UsageError, WorkerLost
from tempo.wire.deadline import DeadlinePassed, remaining

Role = Literal["worker", "master", "vault", "peer"]

_IDENTITY = re.compile(r"tempo:(worker|master|vault|peer)/([A-Za-z0-9][A-Za-z0-9._-]{0,62})")


class Why(Enum):
    """Why one side refuses the other, in words that follow "the peer" or "the peer says our side"."""

    EXPIRED = "has an expired certificate"
    NOT_YET_VALID = "has a certificate that is not valid yet (check both clocks)"
    SELF_SIGNED = "has a self-signed certificate"
    WRONG_CA = "has a certificate of another authority"
    MISSING = "has no certificate"
    WRONG_ROLE = "has a certificate for another role"
    REVOKED = "has a revoked certificate"
    NO_LIST = (
        "cannot be checked: the list of revoked certificates here is out of date, or another authority's "
        "(tempo worker revoke signs it anew)"
    )
    WRONG_NAME = "has a certificate for another name"
    BAD = "has a certificate that cannot be accepted"
    NO_TLS = "does not speak TLS"
    UNASKED = "speaks TLS, and this side was told not to (unsafe_plaintext)"
    VERSION = "offers no TLS 1.3"
    OTHER = "broke the TLS protocol"


class TlsRefused(ProtocolError):
    """A handshake that must not succeed. by_peer: it was the peer who refused us. whom: the peer."""

    def __init__(self, why: Why, *, by_peer: bool = False, whom: str = "the peer") -> None:
        super().__init__(f"{whom} says that this side {why.value}" if by_peer else f"{whom} {why.value}")
        self.why = why
        self.by_peer = by_peer


@final
@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: our certificate and its unencrypted key, and the authority that signs both sides.
    crl: that authority's list of revoked certificates; None: none is read."""

    cert: str | Path
    key: str | Path
    ca: str | Path
    crl: str | Path | None = None

    def context(self, role: Role) -> ssl.SSLContext:
        """For one side of many connections. Raises UsageError that names the file at fault."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "master" else ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        if role != "master":
            context.num_tickets = 0
        for path in (self.cert, self.key, self.ca, *([] if self.crl is None else [self.crl])):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise UsageError(f"{path} cannot be read ({error.strerror}): name a PEM file") from None
        try:
            context.load_verify_locations(cafile=self.ca)
        except (ssl.SSLError, OSError):
            raise UsageError(f"{self.ca} holds no certificate of an authority in PEM") from None
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, OSError):
            raise UsageError(
                f"{self.cert} and {self.key} are no certificate and its own unencrypted key in PEM"
            ) from None
        if self.crl is not None:
            trusted = context.cert_store_stats()["x509"]
            try:
                context.load_verify_locations(cafile=self.crl)
            except (ssl.SSLError, OSError):
                raise UsageError(f"{self.crl} holds no list of revoked certificates in PEM") from None
            if not context.cert_store_stats()["crl"]:
                raise UsageError(f"{self.crl} holds certificates, not a list of those that were revoked")
            # Loading would trust whatever certificate stands beside the list, and the list comes by any way.
            if context.cert_store_stats()["x509"] != trusted:
                raise UsageError(f"{self.crl} holds a certificate beside the list: leave only the list in it")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


def wrap(sock: socket.socket, context: ssl.SSLContext, role: Role, name: str | None = None) -> ssl.SSLSocket:
    """The socket under TLS, still without a handshake; closing it closes `sock`. name: what was dialled."""
    try:
        return context.wrap_socket(
            sock,
            server_side=role != "master",
            server_hostname=name if role == "master" else None,
            do_handshake_on_connect=False,
        )
    except OSError as error:
        sock.close()
        raise WorkerLost(f"the peer left before the TLS handshake ({type(error).__name__})") from None


def handshake(sock: ssl.SSLSocket, role: Role, *, deadline: float, dialled: Role = "worker") -> str:
    """Steps 1 to 4 from our side, as `role`. Returns the peer's NAME in tempo:ROLE/NAME.
    dialled: what a master takes the peer for.

    Raises TlsRefused, DeadlinePassed or WorkerLost and leaves the socket open, for a last alert.
    """
    try:
        sock.settimeout(remaining(deadline))
        sock.do_handshake()  # its time-out covers the whole, not each read
    except TimeoutError:
        raise DeadlinePassed("the peer did not finish the TLS handshake before its deadline") from None
    except OSError as error:
        lost = WorkerLost(f"the peer left during the TLS handshake ({type(error).__name__})")
        raise refusal(error) or lost from None
    return identity(sock, dialled if role == "master" else "master")


def identity(sock: ssl.SSLSocket, role: Role) -> str:
    """The peer's NAME. Raises TlsRefused unless its certificate carries exactly one identity, of `role`."""
    certificate = sock.getpeercert() or {}
    names = certificate.get("subjectAltName", ())
    uris = [str(entry[1]) for entry in names if isinstance(entry, tuple) and entry[0] == "URI"]
    found = _IDENTITY.fullmatch(uris[0]) if len(uris) == 1 else None
    if found is None or found[1] != role:
        raise TlsRefused(Why.WRONG_ROLE)
    return found[2]


#: OpenSSL's verdicts about the peer's certificate (X509_V_ERR_*).
_VERDICTS = {
    **{9: Why.NOT_YET_VALID, 10: Why.EXPIRED, 18: Why.SELF_SIGNED, 26: Why.WRONG_ROLE},
    **dict.fromkeys((2, 7, 19, 20, 21, 30), Why.WRONG_CA),
    **dict.fromkeys((62, 64), Why.WRONG_NAME),
    23: Why.REVOKED,
    **dict.fromkeys((3, 8, 11, 12, 15, 16, 33, 44), Why.NO_LIST),
}
#: Alerts with which a peer refuses ours. Several faults share one: the peer's own log tells more.
_ALERTS = {
    "CERTIFICATE_EXPIRED": Why.EXPIRED,
    "UNKNOWN_CA": Why.WRONG_CA,  # self-signed too
    "CERTIFICATE_REQUIRED": Why.MISSING,
    "UNSUPPORTED_CERTIFICATE": Why.WRONG_ROLE,
    "BAD_CERTIFICATE": Why.BAD,  # not yet valid too
    "CERTIFICATE_UNKNOWN": Why.BAD,
    "CERTIFICATE_REVOKED": Why.REVOKED,
    "PROTOCOL_VERSION": Why.VERSION,
}
_LOCAL = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Why.MISSING,
    "UNSUPPORTED_PROTOCOL": Why.VERSION,
    "WRONG_SSL_VERSION": Why.VERSION,
    "WRONG_VERSION_NUMBER": Why.NO_TLS,
    "HTTP_REQUEST": Why.NO_TLS,
    "HTTPS_PROXY_REQUEST": Why.NO_TLS,
    "PACKET_LENGTH_TOO_LONG": Why.NO_TLS,
    "RECORD_LAYER_FAILURE": Why.NO_TLS,
}


def refusal(error: OSError) -> TlsRefused | None:
    """What an error of a handshake or of a later read says about TLS; None: the connection broke."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsRefused(_VERDICTS.get(error.verify_code, Why.BAD))
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    reason = error.reason or ""
    _, alert, what = reason.partition("_ALERT_")
    if alert:
        return TlsRefused(_ALERTS.get(what, Why.OTHER), by_peer=True)
    return TlsRefused(_LOCAL.get(reason, Why.OTHER))


def _no_password() -> str:
    raise ssl.SSLError("an encrypted key")  # instead of OpenSSL's prompt on the terminal
