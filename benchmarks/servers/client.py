"""A client in Python: ``python -m benchmarks.servers.client MODE ADDRESS --connections N --size S --requests R [options]``.

It understands the words of `benchmarks/native/load.c`, which is faster and preferred where there is a compiler; this one
speaks TLS too. It makes the connections and ``--warmup W`` requests, prints ``ready``, waits for a line on stdin, does `R`
requests, ``--depth D`` of them on their way on every connection, and prints one object of JSON: requests, seconds, bytes,
percentiles of the latency in µs, errors. Then it waits for another line, and ends.
"""

import argparse
import json
import os
import select
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

from . import allow_many_fds

WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
PIECE = 256 << 10


class Failed(Exception):
    """A server did not do what it should."""


class Connection:
    """One connection, and the messages that are on their way on it."""

    def __init__(self, sock: socket.socket, message: bytes) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.message = memoryview(message)
        self.unsent = self.message[:0]
        self.waiting = 0
        self.missing = len(message)
        self.started: deque[int] = deque()

    def start(self) -> None:
        """Send one message more, as far as the socket takes it."""
        self.started.append(time.perf_counter_ns())
        self.waiting += 1
        self.send()

    def send(self) -> None:
        """Send what the socket takes."""
        try:
            while self.unsent or self.waiting:
                if not self.unsent:
                    self.waiting -= 1
                    self.unsent = self.message
                self.unsent = self.unsent[self.sock.send(self.unsent[:PIECE]) :]
        except WANTS:
            pass

    def receive(self, buffer: bytearray) -> int:
        """Take what has come, and return how many messages are complete by it."""
        complete = 0
        try:
            while True:
                count = self.sock.recv_into(buffer)
                if not count:
                    raise Failed("the server has closed a connection")
                while count >= self.missing:
                    count -= self.missing
                    self.missing = len(self.message)
                    complete += 1
                self.missing -= count
                # TLS alone may hold more than the poller knows of.
                if not isinstance(self.sock, ssl.SSLSocket):
                    break
        except WANTS:
            pass
        return complete


class Client:
    """All connections with a poller."""

    def __init__(self, connections: Sequence[Connection], depth: int) -> None:
        self.connections = connections
        self.depth = depth
        self.poller = select.epoll()
        self.by_fd = {connection.sock.fileno(): connection for connection in connections}
        self.writing: set[Connection] = set()
        for fd in self.by_fd:
            self.poller.register(fd, select.EPOLLIN)

    def arrivals(self) -> Iterator[tuple[Connection, int]]:
        """Wait, and give each connection with the number of messages that are complete now."""
        buffer = bytearray(PIECE)
        while True:
            for fd, events in self.poller.poll():
                connection = self.by_fd[fd]
                if events & select.EPOLLOUT:
                    connection.send()
                if events & ~select.EPOLLOUT and (complete := connection.receive(buffer)):
                    yield connection, complete
                self._poll(connection)

    def start(self, connection: Connection) -> None:
        """Send a message on a connection, as it takes it."""
        connection.start()
        self._poll(connection)

    def _poll(self, connection: Connection) -> None:
        if (connection in self.writing) != bool(connection.unsent):
            self.writing ^= {connection}
            writes = select.EPOLLOUT if connection.unsent else 0
            self.poller.modify(connection.sock.fileno(), select.EPOLLIN | writes)

    def echo(self, requests: int) -> list[int]:
        """Have messages sent back, and return their latencies in nanoseconds."""
        latencies: list[int] = []
        left = requests
        for _ in range(self.depth):
            for connection in self.connections[:left]:
                left -= 1
                self.start(connection)
        if not requests:
            return latencies
        for connection, complete in self.arrivals():
            now = time.perf_counter_ns()
            for _ in range(complete):
                if not connection.started:
                    raise Failed("more came back than was sent")
                latencies.append(now - connection.started.popleft())
                if left:
                    left -= 1
                    self.start(connection)
            if len(latencies) == requests:
                break
        return latencies

    def broadcast(self, requests: int) -> list[int]:
        """Send on one connection, wait until the message has come on all of them, and again.

        On the one that was made last: when the server hears of it, it has accepted all others.
        """
        latencies: list[int] = []
        if not requests:
            return latencies
        last = self.connections[-1]
        left = len(self.connections)
        self.start(last)
        for _connection, complete in self.arrivals():
            left -= complete
            if left == 0:
                latencies.append(time.perf_counter_ns() - last.started.popleft())
                if len(latencies) == requests:
                    break
                left = len(self.connections)
                self.start(last)
        return latencies


def connect(address: str, context: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connection to ``tcp:PORT`` or ``unix:PATH``."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
    else:
        sock = socket.create_connection(("127.0.0.1", int(rest)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="localhost") if context else sock


def churn(address: str, at_once: int, requests: int) -> list[int]:
    """Make connections, some at once, and wait until the server has closed them; return their latencies in nanoseconds."""
    latencies: list[int] = []
    while len(latencies) < requests:
        begun = []
        for _ in range(min(at_once, requests - len(latencies))):
            start = time.perf_counter_ns()
            begun.append((start, connect(address)))
        for start, sock in begun:
            with sock:
                if sock.recv(1):
                    raise Failed("a server that closes has sent something")
                latencies.append(time.perf_counter_ns() - start)
    return latencies


def summary(latencies: list[int], seconds: float, sent: int) -> dict[str, float]:
    """Return what is printed of a run."""
    ordered = sorted(latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e3

    return {
        "requests": len(ordered),
        "seconds": seconds,
        "bytes": sent,
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": ordered[-1] / 1e3,
        "mean": sum(ordered) / len(ordered) / 1e3,
        "errors": 0,
    }


def main() -> int:
    """Drive a server as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.client")
    parser.add_argument("mode", choices=["echo", "churn", "broadcast"])
    parser.add_argument("address")
    for name, default in {"connections": 1, "size": 64, "requests": 1, "warmup": 0, "depth": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tls", metavar="FILE", help="the certificates that the server's is verified by")
    options = parser.parse_args()
    allow_many_fds()
    context = ssl.create_default_context(cafile=options.tls) if options.tls else None
    if options.mode == "churn":

        def run(requests: int) -> list[int]:
            return churn(options.address, options.connections, requests)

    else:
        message = os.urandom(options.size)
        client = Client(
            [Connection(connect(options.address, context), message) for _ in range(options.connections)], options.depth
        )
        run = client.echo if options.mode == "echo" else client.broadcast
    run(options.warmup)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    latencies = run(options.requests)
    seconds = time.perf_counter() - begin
    print(json.dumps(summary(latencies, seconds, options.size * options.requests)), flush=True)
    sys.stdin.readline()
    return 0


if __name__ == "__main__":
    sys.exit(main())
