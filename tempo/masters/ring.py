"""A ring of masters: each dials the next and is dialled by the one before. Pieces travel one way round.

    rank r  --pieces-->  rank r + 1        mutual TLS 1.3: a master's certificate dials, a peer's is dialled

Each end attests itself before a piece is sent, so a master sends to one measured neighbour and hears from
one; since that runs the same measured code, so does its neighbour, all the way round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Final, Self, final

import torch
from torch import Tensor

from tempo.errors import OutsideError, ProtocolError, WorkerLost
from tempo.masters.attestation import Attestation
from tempo.masters.door import Door
from tempo.masters.introduction import introduce
from tempo.masters.messages import Piece, Words
from tempo.masters.place import Place
from tempo.masters.secret import TAG_BYTES, Shared
from tempo.wire import Endpoint, TlsFiles
from tempo.wire.frame import Channel
from tempo.wire.messages import encode
from tempo.wire.tls import handshake, wrap

_AGAIN_S: Final = 0.1

Half = tuple[Channel[Words], Shared]


@final
class Ring:
    """Both connections of one master. Not thread-safe: one collective after the other."""

    def __init__(self, place: Place, to_next: Half, from_before: Half) -> None:
        self._place = place
        self._to_next, self._seals = to_next
        self._from_before, self._opens = from_before
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
            door = Door(place, server, peer, attestation)
            publish(str(listen.bound(server)))
            with ThreadPoolExecutor(2) as aside:
                dialled = aside.submit(_dial, place, tls, attestation, ask, deadline)
                accepted = aside.submit(door.wait, deadline)
                done, _ = wait((dialled, accepted), return_when=FIRST_EXCEPTION)
                door.close()
                if any(half.exception() for half in done):
                    raise _joined_in_vain(dialled, accepted)
                return cls(place, dialled.result(), accepted.result())
        finally:
            server.close()
            listen.unlink()

    @property
    def place(self) -> Place:
        return self._place

    @property
    def bytes_sent(self) -> int:
        """To the next master so far: frames, within TLS."""
        return self._to_next.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._from_before.bytes_received

    def send(self, piece: Piece, tensor: Tensor) -> Future[None]:
        """Begins to send a contiguous tensor, which must not change until the future is done."""
        return self._sender.submit(self._send, piece, tensor, time.monotonic() + self._place.seconds)

    def receive(self, piece: Piece, tensor: Tensor) -> None:
        """Fills a contiguous tensor with exactly the piece that is due. Raises ProtocolError, WorkerLost."""
        deadline = time.monotonic() + self._place.seconds
        found, size = self._from_before.receive(deadline)
        if found != piece or size != tensor.nbytes + TAG_BYTES:
            raise ProtocolError(
                f"master {self._place.before} sent another piece than is due ({piece.kind} {piece.sequence}):"
                " do all masters run the same script on as many batches?"
            )
        sealed = torch.empty(size, dtype=torch.uint8)
        self._from_before.fill(sealed, deadline=deadline)
        self._opens.open(sealed, encode(piece), tensor)

    def close(self) -> None:
        """The neighbours notice. May be called again, by any thread."""
        self._to_next.close()
        self._from_before.close()
        self._sender.shutdown(wait=False, cancel_futures=True)

    def _send(self, piece: Piece, tensor: Tensor, deadline: float) -> None:
        self._to_next.send(piece, (self._seals.seal(tensor, encode(piece)),), deadline=deadline)


def _joined_in_vain(*halves: Future[Half]) -> BaseException:
    """What to raise; a half that did come about is closed."""
    errors = []
    for half in halves:
        error = half.exception()
        if error is None:
            half.result()[0].close()
        else:
            errors.append(error)
    # What one end is refused for says more than that the other waited in vain.
    first = next((error for error in errors if not isinstance(error, OutsideError)), errors[0])
    if len(errors) == 1 or not isinstance(first, OutsideError):
        return first
    return OutsideError("; ".join(str(error) for error in errors))


def _dial(
    place: Place, tls: TlsFiles, attestation: Attestation, ask: Callable[[int], str], deadline: float
) -> Half:
    endpoint = Endpoint.parse(ask(place.next))
    while True:
        context = tls.context("master")  # a new list of revoked certificates counts
        try:
            sock = wrap(endpoint.connect(deadline), context, "master", endpoint.tls_name)
            try:
                handshake(sock, "master", deadline=deadline, dialled="peer")
                return introduce(
                    sock, place, place.next, attestation, dials=True, first=deadline, deadline=deadline
                )
            except BaseException:
                sock.close()
                raise
        except WorkerLost:  # it is about to accept, was replaced, or had too many strangers at its door
            if time.monotonic() + _AGAIN_S > deadline:
                raise
            time.sleep(_AGAIN_S)
