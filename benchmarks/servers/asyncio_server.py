"""The server of the loops with asyncio's interface, on its protocols."""

import asyncio
import importlib
import ssl
from collections.abc import Callable

from . import BACKLOG
from .handlers import maker_of_handlers


def serve(
    module: str,
    mode: str,
    address: tuple[str, int] | str,
    context: ssl.SSLContext | None,
    *,
    body: int,
    busy_poll: float,
) -> None:
    """Listen, say where, and serve. See `benchmarks.servers.__main__`."""
    if busy_poll:
        raise NotImplementedError("no busy polling")
    if module == "rloop" and mode == "close":
        # Version 0.5.0: the client never hears of a close(), nor of an abort(), on a connection that has carried nothing.
        raise NotImplementedError("its transports do not close")
    loop = importlib.import_module(module).new_event_loop()
    protocol = _protocol(mode, body)

    async def listen() -> str:
        # Loops that know no TLS or no Unix sockets know no name for them either.
        tls = {"ssl": context} if context else {}
        if isinstance(address, str):
            await loop.create_unix_server(protocol, path=address, backlog=BACKLOG, **tls)
            return f"path {address}"
        server = await loop.create_server(protocol, *address, backlog=BACKLOG, **tls)
        return f"port {server.sockets[0].getsockname()[1]}"

    print(loop.run_until_complete(listen()), flush=True)
    loop.run_forever()


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Close(asyncio.Protocol):
    """Closes every connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.close()


def _protocol(mode: str, body: int) -> Callable[[], asyncio.Protocol]:
    if mode == "echo":
        return Echo
    if mode == "close":
        return Close
    if mode == "broadcast":
        transports: set[asyncio.Transport] = set()

        class Broadcast(Echo):
            """Sends what comes to all connections."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                self.transport = transport
                transports.add(transport)

            def data_received(self, data: bytes) -> None:
                for transport in transports:
                    transport.write(data)

            def connection_lost(self, exc: Exception | None) -> None:
                transports.discard(self.transport)

        return Broadcast
    handler = maker_of_handlers(mode, body)

    class Answer(Echo):
        """Writes what the connection's handler answers."""

        def __init__(self) -> None:
            self.answer = handler()

        def data_received(self, data: bytes) -> None:
            self.transport.write(self.answer(data))

    return Answer
