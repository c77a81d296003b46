"""A ring of masters: each dials the next and is dialled by the one before. Pieces travel one way round.

    rank r  --pieces-->  rank r + 1        mutual TLS 1.3: a master's certificate dials, a peer's is dialled

Each end attests itself before a piece is sent, so a master sends to one measured neighbour and hears from
one; since that runs the same measured code, so does its neighbour, all the way round.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLSocket
from typing import Final, Protocol, Self, final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from torch import Tensor

from tempo.errors import OutsideError, ProtocolError, TempoError, WorkerLost
from tempo.masters.attestation import Attestation
from tempo.masters.messages import (
    MAX_MESSAGE,
    NONCE_BYTES,
    VERSION,
    Introduction,
    Piece,
    Proof,
    Welcome,
    Words,
    context,
    decode,
)
from tempo.wire import Endpoint, TlsFiles
from tempo.wire.deadline import remaining
from tempo.wire.frame import Channel
from tempo.wire.tls import Role, handshake, wrap

#: Seconds that one stranger may hold up who is waited for.
_STRANGER_S: Final = 5.0
_AGAIN_S: Final = 0.1


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where in which ring. seconds: for joining, and later for each collective."""

    run: str
    rank: int
    size: int
    seconds: float

    @property
    def next(self) -> int:
        return (self.rank + 1) % self.size

    @property
    def before(self) -> int:
        return (self.rank - 1) % self.size


class Link(Protocol):
    """What collectives need: pieces to the next, pieces from the one before."""

    @property
    def place(self) -> Place: ...

    def send(self, piece: Piece, tensor: Tensor) -> Future[None]: ...

    def receive(self, piece: Piece, tensor: Tensor) -> None: ...


@final
class Ring:
    """Both connections of one master. Not thread-safe: one collective after the other."""

    def __init__(self, place: Place, to_next: Channel[Words], from_before: Channel[Words]) -> None:
        self._place = place
        self._to_next, self._from_before = to_next, from_before
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="tempo-ring")

    @classmethod
    def join(
        cls,
        place: Place,
        tls: TlsFiles,
        peer: TlsFiles,
        listen: Endpoint,
        attestation: Attestation,
        publish: Callable[[str], None],
        ask: Callable[[int], str],
    ) -> Self:
        """publish: make known where this master is dialled; ask: where that rank is. Both carry addresses
        only, and nobody is believed because of them.

        Raises OutsideError where nobody comes in time, RefusedError for evidence that is not good enough.
        """
        deadline = time.monotonic() + place.seconds
        server = listen.listen()
        try:
            publish(str(listen.bound(server)))
            with ThreadPoolExecutor(2) as aside:
                dialled = aside.submit(_dial, place, tls, attestation, ask, deadline)
                accepted = aside.submit(_accept, place, server, peer, attestation, deadline)
                done, _ = wait((dialled, accepted), return_when=FIRST_EXCEPTION)
                if any(half.exception() for half in done):
                    with contextlib.suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR)  # who still waits there need not
                    raise _joined_in_vain(dialled, accepted)
                return cls(place, dialled.result(), accepted.result())
        finally:
            server.close()
            listen.unlink()

    @property
    def place(self) -> Place:
        return self._place

    def send(self, piece: Piece, tensor: Tensor) -> Future[None]:
        """Begins to send a contiguous tensor, which must not change until the future is done."""
        deadline = time.monotonic() + self._place.seconds
        return self._sender.submit(self._to_next.send, piece, (tensor,), deadline=deadline)

    def receive(self, piece: Piece, tensor: Tensor) -> None:
        """Fills a contiguous tensor with exactly the piece that is due. Raises ProtocolError, WorkerLost."""
        deadline = time.monotonic() + self._place.seconds
        found, size = self._from_before.receive(deadline)
        if found != piece or size != tensor.nbytes:
            raise ProtocolError(
                f"master {self._place.before} sent another piece than is due ({piece.kind} {piece.sequence}):"
                " do all masters run the same script on as many batches?"
            )
        self._from_before.fill(tensor, deadline=deadline)

    def close(self) -> None:
        """The neighbours notice. May be called again, by any thread."""
        self._to_next.close()
        self._from_before.close()
        self._sender.shutdown(wait=False, cancel_futures=True)


def _joined_in_vain(*halves: Future[Channel[Words]]) -> BaseException:
    """What to raise; a half that did come about is closed."""
    errors = []
    for half in halves:
        error = half.exception()
        if error is None:
            half.result().close()
        else:
            errors.append(error)
    first = next((error for error in errors if not isinstance(error, OutsideError)), errors[0])
    if len(errors) == 1 or first is not errors[0]:
        return first
    return OutsideError("; ".join(str(error) for error in errors))


def _dial(
    place: Place, tls: TlsFiles, attestation: Attestation, ask: Callable[[int], str], deadline: float
) -> Channel[Words]:
    endpoint = Endpoint.parse(ask(place.next))
    while True:
        try:
            raw = endpoint.connect(deadline)
            break
        except WorkerLost:  # it has published its address and is about to accept, or was replaced
            if time.monotonic() + _AGAIN_S > deadline:
                raise
            time.sleep(_AGAIN_S)
    sock = wrap(raw, tls.context("master"), "master", endpoint.tls_name)
    try:
        handshake(sock, "master", deadline=deadline, dialled="peer")
        return _introduced(sock, place, place.next, tls, attestation, deadline)
    except BaseException:
        sock.close()
        raise


def _accept(
    place: Place, server: socket.socket, peer: TlsFiles, attestation: Attestation, deadline: float
) -> Channel[Words]:
    """The connection of the master before. A stranger is turned away, and costs a few seconds at most."""
    tls, refused = peer.context("peer"), "nobody came"
    while True:
        try:
            server.settimeout(remaining(deadline))
            raw, _ = server.accept()
        except OSError:  # its time is over, or the other half of joining failed
            raise OutsideError(
                f"master {place.before} did not join within {place.seconds:g} s ({refused}): does it run, "
                "with the same authority and the same run?"
            ) from None
        role: Role = "peer"
        try:
            sock = wrap(raw, tls, role)
            until = min(deadline, time.monotonic() + _STRANGER_S)
            try:
                handshake(sock, role, deadline=until)
                return _introduced(sock, place, place.before, peer, attestation, deadline)
            except BaseException:
                sock.close()
                raise
        except TempoError as error:
            refused = str(error)


def _introduced(
    sock: SSLSocket, place: Place, other: int, files: TlsFiles, attestation: Attestation, deadline: float
) -> Channel[Words]:
    """Both ends say who they are and prove it."""
    certificate = sock.getpeercert(binary_form=True) or b""
    theirs = _key(x509.load_der_x509_certificate(certificate))
    ours = _key(x509.load_pem_x509_certificate(Path(files.cert).read_bytes()))
    channel: Channel[Words] = Channel(sock, decode, max_header=MAX_MESSAGE)
    nonce = os.urandom(NONCE_BYTES)
    channel.send(Introduction(VERSION, place.run, place.rank, place.size, nonce), deadline=deadline)
    words, _ = channel.receive(deadline)
    if not isinstance(words, Introduction):
        raise ProtocolError("a master began with something else than an introduction")
    if words.version != VERSION:
        raise ProtocolError(f"the other master speaks version {words.version}, this one {VERSION}")
    if (words.run, words.rank, words.size) != (place.run, other, place.size):
        raise ProtocolError(f"a master is not rank {other} of {place.size} of this run")
    if hmac.compare_digest(words.nonce, nonce):
        raise ProtocolError("a master returned our own nonce")
    about = context(place.run, place.size, place.rank, other)
    channel.send(Proof(attestation.prove(words.nonce, ours, about)), deadline=deadline)
    proof, _ = channel.receive(deadline)
    if not isinstance(proof, Proof):
        raise ProtocolError("a master gave no proof")
    attestation.judge(proof.evidence, nonce, theirs, context(place.run, place.size, other, place.rank))
    channel.send(Welcome(), deadline=deadline)
    try:
        welcome, _ = channel.receive(deadline)
    except WorkerLost:
        raise OutsideError(
            f"master {other} did not accept what this one is: its own error says why"
        ) from None
    if not isinstance(welcome, Welcome):
        raise ProtocolError("a master sent something else than its welcome")
    return channel


def _key(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
