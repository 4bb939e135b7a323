"""The loop of this package."""

import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from subprocess import PIPE, Popen
from typing import Any

from linux_event import Loop, Stream

from .base import CONNECTIONS_AT_ONCE, PATIENCE, Driver


def ignore(*_arguments: object) -> None:
    """What nobody needs to know."""


class LinuxEvent(Driver):
    """`linux_event.Loop` with default settings."""

    passes_watcher = True

    def __init__(self) -> None:
        self.loop = Loop()
        self.defer = self.loop.defer
        self.run = self.loop.run
        self.stop = self.loop.stop

    @classmethod
    def create_and_close(cls, count: int) -> None:
        for _ in range(count):
            Loop().close()

    def close(self) -> None:
        self.loop.close()

    def start_and_cancel_timers(self, count: int, callback: Callable[..., Any]) -> None:
        timer = self.loop.timer
        for _ in range(count):
            timer(60.0, callback).stop()

    def restart_timer(self, count: int, callback: Callable[..., Any]) -> None:
        watcher = self.loop.timer(60.0, callback, start=False)
        start, stop = watcher.start, watcher.stop
        for _ in range(count):
            start()
            stop()

    def start_timers(self, delays: Iterable[float], callback: Callable[..., Any]) -> None:
        timer = self.loop.timer
        for delay in delays:
            timer(delay, callback)

    def watch(self, fds: Iterable[tuple[int, Any]], callback: Callable[..., Any]) -> None:
        io = self.loop.io
        for fd, data in fds:
            io(fd, "r", callback, data=data)

    def poster(self) -> Callable[[Callable[[], Any]], Any]:
        self.loop.wakeup(print)  # never notified: it keeps run() going
        return self.loop.post

    def notifier(self, callback: Callable[[int], Any]) -> Callable[[], Any]:
        return self.loop.wakeup(lambda _watcher, count: callback(count)).notify

    def read_files(self, paths: Sequence[str], at_once: int) -> int:
        total = 0
        rest = iter(paths)
        read_file = self.loop.read_file

        def done(data: bytes) -> None:
            nonlocal total
            total += len(data)
            for path in rest:
                read_file(path, on_success=done)
                break

        for path in islice(rest, at_once):
            read_file(path, on_success=done)
        self.loop.run()
        return total

    def write_files(self, paths: Sequence[str], data: bytes, at_once: int) -> int:
        total = 0
        rest = iter(paths)
        write_file = self.loop.write_file

        def done(count: int) -> None:
            nonlocal total
            total += count
            for path in rest:
                write_file(path, data, on_success=done)
                break

        for path in islice(rest, at_once):
            write_file(path, data, on_success=done)
        self.loop.run()
        return total

    def ping(self, pairs: Sequence[tuple[socket.socket, socket.socket]], count: int, data: bytes) -> int:
        total = 0
        loop, size = self.loop, len(data)
        recv, send = loop.recv, loop.send

        def near(sock: socket.socket) -> None:
            rounds, left = count, size

            def sent(_count: int) -> None:
                recv(sock, size, on_success=received)

            def received(chunk: bytes) -> None:
                nonlocal rounds, left, total
                left -= len(chunk)
                if left:
                    recv(sock, left, on_success=received)
                    return
                total += size
                rounds -= 1
                left = size
                if rounds:
                    send(sock, data, on_success=sent)
                else:
                    sock.shutdown(socket.SHUT_WR)

            send(sock, data, on_success=sent)

        def far(sock: socket.socket) -> None:
            def sent(_count: int) -> None:
                recv(sock, size, on_success=received)

            def received(chunk: bytes) -> None:
                if chunk:
                    send(sock, chunk, on_success=sent)

            recv(sock, size, on_success=received)

        for a, b in pairs:
            far(b)
            near(a)
        loop.run()
        return total

    def accept_and_close(self, server: socket.socket, count: int) -> int:
        accepted = 0

        def connected(result: tuple[socket.socket, Any] | None, error: Exception | None) -> None:
            nonlocal accepted
            if result is None:
                return
            result[0].close()
            accepted += 1
            if accepted == count:
                operation.cancel()

        operation = self.loop.accept_many(server, connected)
        self.loop.run()
        return accepted

    def hold(self, server: socket.socket, count: int, connect: Callable[[int], Any]) -> None:
        left = count

        def on_connect(stream: Stream) -> None:
            nonlocal left
            stream.on_data = print
            stream.on_close = ignore
            left -= 1
            if not left or not left % CONNECTIONS_AT_ONCE:
                self.loop.stop()

        listener = self.loop.listen(server.dup(), on_connect)
        while left:
            connect(min(left, CONNECTIONS_AT_ONCE))
            self.loop.run(PATIENCE)
        listener.close()
        self.loop.run_once(0)

    def echo_datagrams(self, server: socket.socket, count: int) -> int:
        left = count

        def echo(datagram: Any, data: bytes, address: Any) -> None:
            nonlocal left
            datagram.send(data, address)
            left -= 1
            if not left:
                datagram.close()

        self.loop.datagram(server).on_datagram = echo
        self.loop.run()
        return count - left

    def spawn(self, command: Sequence[str], count: int, at_once: int) -> int:
        succeeded, left = 0, count
        child = self.loop.child

        def start() -> None:
            nonlocal left
            if left:
                left -= 1
                child(Popen(command), ended)

        def ended(_watcher: Any, _pid: int, returncode: int | None) -> None:
            nonlocal succeeded
            succeeded += returncode == 0
            start()

        for _ in range(at_once):
            start()
        self.loop.run()
        return succeeded

    def communicate(self, command: Sequence[str], data: bytes, count: int) -> int:
        said = 0
        spawn = self.loop.spawn

        def on_data(_stream: Stream, piece: bytes) -> None:
            pieces.append(piece)

        for _ in range(count):
            pieces: list[bytes] = []
            process = spawn(command, stdin=PIPE, stdout=PIPE)
            if process.stdin is not None and process.stdout is not None:
                process.stdout.on_data = on_data
                process.stdin.write(data)
                process.stdin.write_eof()
            self.loop.run()
            said += len(b"".join(pieces))
        return said

    def resolve(self, host: str, count: int) -> int:
        found, left = 0, count
        resolve, kind = self.loop.resolve, socket.SOCK_STREAM

        def told(addresses: list[Any] | None, _error: Exception | None) -> None:
            nonlocal found, left
            found += bool(addresses)
            left -= 1
            if left:
                resolve(host, 80, told, type=kind)

        resolve(host, 80, told, type=kind)
        self.loop.run()
        return found

    def watch_tree(self, root: str) -> None:
        self.tree = self.loop.watch(root, "create", print, recursive=True)

    def new_files(self, count: int) -> list[str]:
        told: list[str] = []

        def created(_watcher: Any, event: Any) -> None:
            told.append(event.path)
            if len(told) == count:
                self.loop.stop()

        self.tree.callback = created
        self.loop.run(PATIENCE)
        return told
