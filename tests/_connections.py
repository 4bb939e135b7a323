"""The two ends of a stream for each kind of connection: TCP, Unix sockets, TLS."""

import contextlib
import socket

from _net import Heard, settle, stream_and_peer
from _support import run_until
from _tls import client_context, server_context, shaken

CONNECTIONS = ("tcp", "unix", "tls")


class Plain:
    """The other end of a stream without TLS, led as a Wire is."""

    def __init__(self, loop, sock):
        self.loop, self.sock = loop, sock
        sock.setblocking(False)

    def send(self, data):
        left = memoryview(data)
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[self.sock.send(left) :]
            self.loop.run_once(0)

    def receive(self, size=1 << 16):
        while True:
            with contextlib.suppress(BlockingIOError):
                return self.sock.recv(size)
            self.loop.run_once(0.001)

    def say_goodbye(self):
        self.sock.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def connected(loop, how, folder):
    """What a stream hears, and the other end of it."""
    if how == "tls":
        with shaken(loop) as (heard, wire):
            yield heard, wire
    else:
        with stream_and_peer(loop, how, folder) as (stream, sock):
            yield Heard(stream), Plain(loop, sock)


@contextlib.contextmanager
def two_streams(loop, how, folder):
    """A stream that was accepted and the one that has connected to it, in one loop."""
    tls = how == "tls"
    address = str(folder / "listening") if how == "unix" else ("127.0.0.1", 0)
    accepted, made = [], []
    options = {"tls": client_context(), "server_hostname": "localhost"} if tls else {}
    listener = loop.listen(address, accepted.append, tls=server_context() if tls else None)
    loop.connect_stream(listener.sockname, lambda stream, error: made.append(stream), **options)
    run_until(loop, lambda: accepted and made)
    listener.close()
    try:
        yield accepted[0], made[0]
    finally:
        for stream in accepted + made:
            stream.abort()
        settle(loop)
