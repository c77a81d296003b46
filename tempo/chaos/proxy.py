"""The bad link in front of a worker: a TCP proxy that cuts, drops, delays, throttles and corrupts.

    python -m tempo.chaos.proxy LISTEN_HOST LISTEN_PORT TO_HOST TO_PORT

TLS runs through it from end to end, so it sees and changes what anybody on the way could. Orders come on
standard input, one JSON object a line, each the whole state of the link from then on:

    {"cut": 1}             every connection closed, once
    {"drop": 1}            nothing is read: what was sent waits, nobody is told
    {"delay": SECONDS}     each piece arrives that much later
    {"rate": BYTES}        a second, each direction
    {"flip": COUNT}        one bit flipped in each of the next pieces from the worker
    {}                     a good link again

It ends with standard input. One event loop, no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any, final

_PIECE = 1 << 16
_TICK_S = 0.02


@final
class Link:
    """State of the link, and the connections over it."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._order: dict[str, Any] = {}
        self._flips = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def order(self, order: dict[str, Any]) -> None:
        self._order = order
        self._flips = int(order.get("flip", 0))
        if order.get("cut"):
            for writer in list(self._open):
                writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:  # the worker is dead: as if it were reached directly
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(far_writer)
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, from_worker=False),
                self._carry(far_reader, writer, from_worker=True),
            )
        finally:
            for each in (writer, far_writer):
                self._open.discard(each)
                each.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_worker: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await self._read(reader):
                order = self._order
                if order.get("delay"):
                    await asyncio.sleep(order["delay"])
                if order.get("rate"):
                    await asyncio.sleep(len(piece) / order["rate"])
                if from_worker and self._flips > 0:
                    self._flips -= 1
                    piece = flipped(piece)
                while self._order.get("drop"):
                    await asyncio.sleep(_TICK_S)
                writer.write(piece)
                await writer.drain()
        writer.transport.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.read(_PIECE if not self._order.get("rate") else _PIECE // 8)


def flipped(piece: bytes) -> bytes:
    """One bit in the middle changed."""
    changed = bytearray(piece)
    changed[len(changed) // 2] ^= 0x10
    return bytes(changed)


async def serve(listen: tuple[str, int], to: tuple[str, int]) -> None:
    link = Link(*to)
    server = await asyncio.start_server(link.accept, *listen, limit=2 * _PIECE)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while line := await orders.readline():
        link.order(json.loads(line))
        sys.stdout.write("done\n")
        sys.stdout.flush()
    link.order({"cut": 1})
    server.close()


def main() -> None:
    host, port, to_host, to_port = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve((host, int(port)), (to_host, int(to_port))))


if __name__ == "__main__":
    main()
