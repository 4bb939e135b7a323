"""Connections of a loop under test: a stream and a plain socket at its other end."""

import contextlib
import socket

from _support import run_until

from linux_event import Stream

FAMILIES = ("tcp", "unix")


class Heard:
    """Assigns the callbacks of a stream, and keeps what they are called with, in order."""

    def __init__(self, stream, *, eof=True):
        self.stream = stream
        self.calls = []
        self.pieces = []
        self.errors = []
        stream.on_data = self.on_data
        if eof:
            stream.on_eof = self.on_eof
        stream.on_drain = self.on_drain
        stream.on_close = self.on_close

    def note(self, name, stream):
        assert stream is self.stream
        assert not self.errors, f"{name} after on_close"
        self.calls.append(name)

    def on_data(self, stream, data):
        self.note("data", stream)
        assert type(data) is bytes
        assert data
        self.pieces.append(data)

    def on_eof(self, stream):
        self.note("eof", stream)

    def on_drain(self, stream):
        self.note("drain", stream)

    def on_close(self, stream, error):
        self.note("close", stream)
        assert stream.is_closed()
        assert stream.is_closing()
        assert stream.fileno() == -1
        self.errors.append(error)

    @property
    def data(self):
        return b"".join(self.pieces)

    @property
    def is_over(self):
        return bool(self.errors)


def address_of(family, folder):
    return ("127.0.0.1", 0) if family == "tcp" else str(folder / "listening")


def client_of(listener, family="tcp"):
    """A blocking socket connected to a listener."""
    sock = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    try:
        sock.settimeout(60)
        sock.connect(listener.sockname)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def stream_and_peer(loop, family="tcp", folder=None, begun=None):
    """An accepted stream, and the blocking socket at its other end. `begun(stream)` is called as on_connect."""
    streams = []

    def on_connect(stream):
        streams.append(stream)
        if begun is not None:
            begun(stream)

    listener = loop.listen(address_of(family, folder), on_connect)
    try:
        with client_of(listener, family) as peer:
            run_until(loop, lambda: streams)
            listener.close()
            yield streams[0], peer
    finally:
        listener.close()


def receive_all(sock):
    """All that comes until the end."""
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def settle(loop):
    """Let the loop do all that it has to do without waiting."""
    for _ in range(5):
        loop.run_once(0)


class Server:
    """Keeps the streams that a listener hands over."""

    def __init__(self):
        self.streams = []

    def __call__(self, stream):
        assert type(stream) is Stream
        self.streams.append(stream)
        stream.on_data = lambda stream, data: stream.write(data)

    def end(self, loop):
        for stream in self.streams:
            stream.abort()
        self.streams.clear()
        settle(loop)


def echoes(loop, server, listener, family=socket.AF_INET, address=None):
    """Whether a new connection is served."""
    before = len(server.streams)
    with socket.socket(family) as client:
        client.connect(address or listener.sockname)
        run_until(loop, lambda: len(server.streams) > before)
        client.sendall(b"hello")
        client.setblocking(False)
        got = []
        watcher = loop.io(client, "r", lambda watcher, events: got.append(client.recv(100)))
        run_until(loop, lambda: got)
        watcher.destroy()
        return got == [b"hello"]
