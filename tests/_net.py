"""Connections of a loop under test: a stream and a plain socket at its other end."""

import contextlib
import socket

from _support import finish, open_fds, run_until

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


def bring_to(stage, loop, heard, say):
    """Bring a stream to a stage of its life; `say` has the other end send some bytes."""
    stream = heard.stream
    if stage == "reading":
        say(b"some")
        run_until(loop, lambda: heard.data)
    elif stage == "paused":
        settle(loop)
        stream.pause_reading()
    elif stage in ("queued", "closing"):
        stream.write(bytes(64 << 20))
        settle(loop)
        if stage == "closing":
            stream.close()
    elif stage == "without on_data":
        stream.on_data = None
    elif stage == "half closed":
        stream.write_eof()
    settle(loop)


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


class Called:
    """The callback of a connect_stream: keeps what it was told, and gives the stream its callbacks."""

    def __init__(self):
        self.calls = []

    def __call__(self, stream, error):
        assert (stream is None) == (error is not None)
        self.calls.append((stream, error))
        if stream is not None:
            assert type(stream) is Stream
            self.heard = Heard(stream, eof=False)

    @property
    def stream(self):
        [(stream, error)] = self.calls
        if error is not None:
            raise error
        return stream

    @property
    def error(self):
        [(stream, error)] = self.calls
        assert stream is None
        return error


@contextlib.contextmanager
def silence(host="127.0.0.1", port=0):
    """The address of a server whose queue is full: who connects hears nothing, as where a filter drops all packets."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.bind((host, port))
        server.listen(0)
        with socket.create_connection(server.getsockname()[:2]):
            yield server.getsockname()


def open_sockets():
    return {fd: target for fd, target in open_fds().items() if target.startswith("socket:")}


def run_until_called(loop, called):
    run_until(loop, lambda: called.calls)


def connect_failed(loop, address, **options):
    called = Called()
    operation = loop.connect_stream(address, called, **options)
    assert not called.calls
    finish(loop)
    assert operation.done()
    return called.error


def talked(server, called, loop):
    """Whether the two ends are those of one connection, in both directions."""
    stream = called.stream
    with server.accept()[0] as peer:
        stream.write(b"hello")
        run_until(loop, lambda: not stream.write_buffer_size)
        settle(loop)
        assert peer.recv(100) == b"hello"
        peer.sendall(b"world")
        run_until(loop, lambda: called.heard.data)
        stream.close()
        finish(loop)
        assert called.heard.errors == [None]
        return called.heard.data == b"world" and peer.recv(1) == b""
