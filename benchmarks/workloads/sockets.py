"""Operations on sockets: connections accepted and closed, bytes sent to and fro."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing

from ..meter import LostCallbacks, Meter
from ..peers import Peer

PAIRS = 16


def ping_64(peer: Peer, size: int) -> dict[str, float]:
    """64 bytes there and back over TCP, `size` times on 16 connections."""
    return _ping(peer, size, 64)


def ping_16k(peer: Peer, size: int) -> dict[str, float]:
    """16 KiB there and back over TCP, `size` times on 16 connections."""
    return _ping(peer, size, 16 << 10)


def ping_100k(peer: Peer, size: int) -> dict[str, float]:
    """100 KiB there and back over TCP, `size` times on 16 connections."""
    return _ping(peer, size, 100 << 10)


def _ping(peer: Peer, size: int, length: int) -> dict[str, float]:
    count = max(1, size // PAIRS)
    with ExitStack() as stack, closing(peer.driver_class()()) as driver:
        pairs = [stack.enter_context(closing(_Pair())).ends for _ in range(PAIRS)]
        with Meter() as meter:
            total = driver.ping(pairs, count, os.urandom(length))
    if total != count * PAIRS * length:
        raise LostCallbacks(f"{total} of {count * PAIRS * length} bytes came back")
    return meter.per(count * PAIRS)


class _Pair:
    """The two ends of a TCP connection over loopback, without blocking."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _address = server.accept()
        self.ends = near, far
        for end in self.ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close both ends."""
        for end in self.ends:
            end.close()


CLIENT = """
import socket, sys
address, count = ("127.0.0.1", int(sys.argv[1])), int(sys.argv[2])
for _ in range(count):
    with socket.socket() as client:
        client.connect(address)
"""


def accept_close(peer: Peer, size: int) -> dict[str, float]:
    """Accept and close `size` connections that a program on another core makes."""
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server, closing(peer.driver_class()()) as driver:
        server.setblocking(False)
        command = [sys.executable, "-c", CLIENT, str(server.getsockname()[1]), str(size)]
        with subprocess.Popen(command) as client:
            if others:
                os.sched_setaffinity(client.pid, others)
            try:
                with Meter() as meter:
                    accepted = driver.accept_and_close(server, size)
            finally:
                client.kill()
    if accepted != size:
        raise LostCallbacks(f"{accepted} of {size} connections were accepted")
    return meter.per(size)


DATAGRAM_CLIENT = """
import socket, sys
address, count, size, sockets = ("127.0.0.1", int(sys.argv[1])), *map(int, sys.argv[2:])
clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sockets)]
for client in clients:
    client.connect(address)
data = bytes(size)
for _ in range(count):
    for client in clients:
        client.send(data)
    for client in clients:
        client.recv(size)
"""


def udp_64(peer: Peer, size: int) -> dict[str, float]:
    """Send `size` datagrams of 64 bytes back to one of 16 clients each, which a program on another core has."""
    return _echo(peer, size, 64, PAIRS)


def udp_1k(peer: Peer, size: int) -> dict[str, float]:
    """The same with 1 KiB."""
    return _echo(peer, size, 1 << 10, PAIRS)


def udp_one(peer: Peer, size: int) -> dict[str, float]:
    """Send `size` datagrams of 64 bytes back to one client, which waits for each."""
    return _echo(peer, size, 64, 1)


def _echo(peer: Peer, size: int, length: int, clients: int) -> dict[str, float]:
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    rounds = max(1, size // clients)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, closing(peer.driver_class()()) as driver:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        numbers = [str(number) for number in (server.getsockname()[1], rounds, length, clients)]
        with subprocess.Popen([sys.executable, "-c", DATAGRAM_CLIENT, *numbers]) as client:
            if others:
                os.sched_setaffinity(client.pid, others)
            try:
                with Meter() as meter:
                    echoed = driver.echo_datagrams(server, rounds * clients)
            finally:
                client.kill()
    if echoed != rounds * clients:
        raise LostCallbacks(f"{echoed} of {rounds * clients} datagrams were sent back")
    return meter.per(echoed)
