"""Listening and connected sockets of each family, and what one operation has come to."""

import contextlib
import socket

from _support import run_until

# kind -> family, type
STREAMS = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "abstract": (socket.AF_UNIX, socket.SOCK_STREAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
}
DATAGRAMS = {
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "abstract": (socket.AF_UNIX, socket.SOCK_DGRAM),
}
if not socket.has_dualstack_ipv6():  # a machine without IPv6
    del STREAMS["tcp6"], DATAGRAMS["udp6"]


def bound(kind, family, type, folder, name="socket"):
    """A socket bound to an address of its own: on loopback, in the folder, or in the abstract namespace."""
    sock = socket.socket(family, type)
    try:
        if family == socket.AF_UNIX:
            path = str(folder / name)
            sock.bind(b"\0" + path.encode() if kind == "abstract" else path)
        else:
            sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    except BaseException:
        sock.close()
        raise
    return sock


def listening(kind, folder, backlog=16):
    """A listening socket of a kind of STREAMS."""
    sock = bound(kind, *STREAMS[kind], folder)
    sock.listen(backlog)
    return sock


@contextlib.contextmanager
def connection(kind, folder, blocking=True):
    """The two ends of a connection of a kind of STREAMS: the one that has connected first."""
    with listening(kind, folder) as server, socket.socket(*STREAMS[kind]) as client:
        client.connect(server.getsockname())
        with server.accept()[0] as accepted:
            client.setblocking(blocking)
            accepted.setblocking(blocking)
            yield client, accepted


@contextlib.contextmanager
def datagrams(kind, folder):
    """Two bound sockets of a kind of DATAGRAMS, not connected."""
    with bound(kind, *DATAGRAMS[kind], folder, "one") as one, bound(kind, *DATAGRAMS[kind], folder, "two") as two:
        yield one, two


def reset(sock):
    """Close a TCP socket so that the other end is told of a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


class Calls(list):
    """A callback(result, error), and the list of what it was called with."""

    def __call__(self, result, error):
        self.append((result, error))

    @property
    def errors(self):
        return [type(error) for _, error in self]


def outcome(loop, start, *args, **keywords):
    """Start an operation and run the loop until it is done. Returns its result or raises its error."""
    calls = Calls()
    operation = start(*args, callback=calls, **keywords)
    assert not calls, "called back within the call"
    run_until(loop, lambda: calls)
    [(result, error)] = calls
    assert operation.done()
    if error is not None:
        raise error
    assert operation.result() is result
    return result


def fill(sock):
    """Send until the socket takes no more. Returns how many bytes it took."""
    sock.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += sock.send(bytes(65536))
    return count
