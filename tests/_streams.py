"""Connections to receive from, for the tests of operations with many results."""

import contextlib
import socket
import struct

from _support import tcp_pair

KINDS = ("tcp", "unix", "seqpacket")


@contextlib.contextmanager
def ends(kind="unix"):
    """A sending and a receiving end, both without blocking."""
    if kind == "tcp":
        with tcp_pair() as pair:
            yield pair
        return
    type_ = socket.SOCK_SEQPACKET if kind == "seqpacket" else socket.SOCK_STREAM
    a, b = socket.socketpair(socket.AF_UNIX, type_)
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


class Heard:
    """The callback of a recv_many: keeps what it gets."""

    def __init__(self):
        self.pieces = []
        self.ends = []  # what the last calls got

    def __call__(self, result, error):
        assert not self.ends, "called after its end"
        assert (result is None) == (error is not None)
        if result:
            assert type(result) is bytes
            self.pieces.append(result)
        else:
            self.ends.append(b"" if result is not None else error)

    @property
    def data(self):
        return b"".join(self.pieces)


class Sender:
    """Sends data by and by, whenever the socket takes some, and then shuts down."""

    def __init__(self, loop, sock, data, portion=1 << 20):
        self.left = memoryview(data)
        self.portion = portion
        self.sock = sock
        loop.io(sock, "w", self)

    def __call__(self, watcher, events):
        with contextlib.suppress(BlockingIOError):
            self.left = self.left[self.sock.send(self.left[: self.portion]) :]
        if not self.left:
            watcher.destroy()
            self.sock.shutdown(socket.SHUT_WR)


def reset(sock):
    """Close a TCP socket so that the other end gets ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
