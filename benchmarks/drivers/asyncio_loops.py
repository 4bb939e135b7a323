"""The loops with asyncio's interface: asyncio's own, uvloop, rloop."""

import importlib
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from subprocess import PIPE
from typing import Any

from .base import CONNECTIONS_AT_ONCE, Driver, NotOffered

SETTLE_SECONDS = 0.05


class AsyncioDriver(Driver):
    """A loop with asyncio's interface.

    Subclasses name the module whose ``new_event_loop`` makes the loop.
    """

    module: str

    def __init__(self) -> None:
        self.loop = importlib.import_module(self.module).new_event_loop()
        self.defer = self.loop.call_soon
        self.run = self.loop.run_forever
        self.stop = self.loop.stop

    @classmethod
    def create_and_close(cls, count: int) -> None:
        new_event_loop = importlib.import_module(cls.module).new_event_loop
        for _ in range(count):
            new_event_loop().close()

    def close(self) -> None:
        self.loop.close()

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        call_later = self.loop.call_later
        for _ in range(count):
            call_later(60.0, callback).cancel()

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        call_later = self.loop.call_later
        for delay in delays:
            call_later(delay, callback)

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        add_reader = self.loop.add_reader
        for fd, data in fds:
            add_reader(fd, callback, fd, data)

    def poster(self) -> Callable[[Callable[[], Any]], Any]:
        return self.loop.call_soon_threadsafe

    def notifier(self, callback: Callable[[int], Any]) -> Callable[[], Any]:
        # Nothing merges here: each notification is a call.
        return partial(self.loop.call_soon_threadsafe, callback, 1)

    def ping(self, pairs: Sequence[tuple[socket.socket, socket.socket]], count: int, data: bytes) -> int:
        from asyncio import gather

        loop, size = self.loop, len(data)
        sock_recv, sock_sendall = loop.sock_recv, loop.sock_sendall

        async def near(sock: socket.socket) -> int:
            total = 0
            for _ in range(count):
                await sock_sendall(sock, data)
                left = size
                while left:
                    left -= len(await sock_recv(sock, left))
                total += size
            sock.shutdown(socket.SHUT_WR)
            return total

        async def far(sock: socket.socket) -> None:
            while chunk := await sock_recv(sock, size):
                await sock_sendall(sock, chunk)

        async def both() -> int:
            totals = await gather(*(near(a) for a, _ in pairs), *(far(b) for _, b in pairs))
            return sum(total for total in totals if total)

        return loop.run_until_complete(both())

    def accept_and_close(self, server: socket.socket, count: int) -> int:
        sock_accept = self.loop.sock_accept

        async def accept() -> int:
            for _ in range(count):
                connection, _address = await sock_accept(server)
                connection.close()
            return count

        return self.loop.run_until_complete(accept())

    def hold(self, server: socket.socket, count: int, connect: Callable[[int], Any]) -> None:
        from asyncio import Protocol

        loop = self.loop
        left = count

        class Held(Protocol):
            __slots__ = ("transport",)

            def connection_made(self, transport: Any) -> None:
                nonlocal left
                self.transport = transport
                left -= 1
                if not left or not left % CONNECTIONS_AT_ONCE:
                    loop.stop()

        listener = loop.run_until_complete(loop.create_server(Held, sock=server.dup()))
        while left:
            connect(min(left, CONNECTIONS_AT_ONCE))
            loop.run_forever()
        # The tasks that have accepted them come to their ends.
        loop.call_later(SETTLE_SECONDS, loop.stop)
        loop.run_forever()
        listener.close()

    def echo_datagrams(self, server: socket.socket, count: int) -> int:
        from asyncio import DatagramProtocol

        class Echo(DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.send = transport.sendto
                self.left = count

            def datagram_received(self, data: bytes, addr: Any) -> None:
                self.send(data, addr)
                self.left -= 1
                if not self.left:
                    done.set_result(count)

        done = self.loop.create_future()

        async def echo() -> int:
            transport, _protocol = await self.loop.create_datagram_endpoint(Echo, sock=server)
            try:
                return await done
            finally:
                transport.close()

        try:
            return self.loop.run_until_complete(echo())
        except NotImplementedError as error:
            raise NotOffered("no datagrams") from error

    def spawn(self, command: Sequence[str], count: int, at_once: int) -> int:
        from asyncio import create_subprocess_exec, gather

        rest = iter(range(count))

        async def some() -> int:
            succeeded = 0
            for _ in rest:
                process = await create_subprocess_exec(*command)
                succeeded += await process.wait() == 0
            return succeeded

        async def all_of_them() -> int:
            return sum(await gather(*(some() for _ in range(at_once))))

        return self.loop.run_until_complete(all_of_them())

    def communicate(self, command: Sequence[str], data: bytes, count: int) -> int:
        from asyncio import create_subprocess_exec

        async def all_of_them() -> int:
            said = 0
            for _ in range(count):
                process = await create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
                out, _err = await process.communicate(data)
                said += len(out)
            return said

        return self.loop.run_until_complete(all_of_them())

    def resolve(self, host: str, count: int) -> int:
        getaddrinfo = self.loop.getaddrinfo

        async def one_after_the_other() -> int:
            found = 0
            for _ in range(count):
                found += bool(await getaddrinfo(host, 80, type=socket.SOCK_STREAM))
            return found

        return self.loop.run_until_complete(one_after_the_other())


class Asyncio(AsyncioDriver):
    """The loop of the standard library."""

    module = "asyncio"


class Uvloop(AsyncioDriver):
    """The loop on libuv."""

    module = "uvloop"


class Rloop(AsyncioDriver):
    """The loop on Rust's mio."""

    module = "rloop"
