"""Peers that speak TLS: certificates made for the run, blocking ones in threads, and one that is led step by step."""

import contextlib
import functools
import select
import socket
import ssl
import threading
import time

import trustme
from _net import Heard, stream_and_peer
from _support import BOUND, run_until

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@functools.cache
def authority():
    return trustme.CA()


@functools.cache
def certificate(*names, **keywords):
    return authority().issue_cert(*(names or ("localhost", "127.0.0.1")), **keywords)


def server_context(version=None, cert=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (cert or certificate()).configure_cert(context)
    return limited(context, version)


def client_context(version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return limited(context, version)


def limited(context, version):
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def narrow(stream):
    """Let the kernel take little at a time."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


class Thread(threading.Thread):
    """Runs function() beside the loop; `wait` runs the loop until that is over, and returns the result."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error

    def wait(self, loop):
        run_until(loop, lambda: not self.is_alive())
        self.join(BOUND)
        self.function = None  # which may refer to a stream
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.result


@contextlib.contextmanager
def secure_client(address, context=None, hostname="localhost"):
    """A blocking connection of ssl's."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as raw:
        raw.settimeout(BOUND)
        raw.connect(address)
        with (context or client_context()).wrap_socket(raw, server_hostname=hostname) as sock:
            yield sock


def exchange(sock, said, size):
    """Send `said` and receive `size` bytes at the same time, in one thread: an SSLSocket is not for two."""
    left, got = memoryview(said), bytearray()
    sock.setblocking(False)
    while left or len(got) < size:
        stuck = True
        if left:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                left = left[sock.send(left[:65536]) :]
                stuck = False
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            piece = sock.recv(1 << 18)
            assert piece, "the end"
            got += piece
            stuck = False
        if stuck:
            assert any(select.select([sock], [sock] if left else [], [], BOUND)), "nothing happens"
    sock.settimeout(BOUND)
    return bytes(got)


class Wire:
    """The other end of a stream, in this thread: an SSLObject on a socket. What it waits for, the loop is run for."""

    def __init__(self, loop, sock, context=None, *, server_side=False, hostname="localhost"):
        self.loop, self.sock = loop, sock
        sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if context is None:
            context = server_context() if server_side else client_context()
        self.ssl = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=None if server_side else hostname
        )
        self.portion = 1 << 20  # bytes that it sends at a time

    def push(self):
        data = self.outgoing.read()
        for first in range(0, len(data), self.portion):
            left = memoryview(data)[first : first + self.portion]
            while left:
                with contextlib.suppress(BlockingIOError):
                    left = left[self.sock.send(left) :]
                self.loop.run_once(0)

    def pull(self):
        with contextlib.suppress(BlockingIOError):
            if data := self.sock.recv(1 << 18):
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def call(self, function, *args):
        limit = time.monotonic() + BOUND
        while True:
            assert time.monotonic() < limit
            try:
                return function(*args)
            except ssl.SSLWantReadError:
                pass
            finally:
                self.push()
            self.loop.run_once(0.001)
            self.pull()

    def handshake(self):
        self.call(self.ssl.do_handshake)

    def send(self, data):
        self.call(self.ssl.write, data)

    def receive(self, size=1 << 16):
        try:
            return self.call(self.ssl.read, size)
        except ssl.SSLZeroReturnError:  # where both have said goodbye
            return b""

    def receive_exactly(self, size):
        got = bytearray()
        while len(got) < size:
            piece = self.receive()
            assert piece, "the end"
            got += piece
        return bytes(got)

    def say_goodbye(self):
        """Send close_notify, and do not wait for the answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        self.push()


@contextlib.contextmanager
def secure_stream(
    loop, *, side="server", version=None, context=None, peer_context=None, begun=None, family="tcp", folder=None
):
    """A stream on which start_tls was called, how that is told, and the Wire at its other end, before the handshake."""
    told = []

    def on_connect(stream):
        if begun is not None:
            begun(stream)
        if side == "server":
            stream.start_tls(context or server_context(version), lambda *got: told.append(got), server_side=True)
        else:
            stream.start_tls(
                context or client_context(version), lambda *got: told.append(got), server_hostname="localhost"
            )

    with stream_and_peer(loop, family, folder, on_connect) as (stream, sock):
        if peer_context is None:
            peer_context = client_context(version) if side == "server" else server_context(version)
        try:
            yield stream, told, Wire(loop, sock, peer_context, server_side=side == "client")
        finally:
            told.clear()


@contextlib.contextmanager
def shaken(loop, **keywords):
    """The same after the handshake: what the stream hears, and the Wire."""
    with secure_stream(loop, **keywords) as (stream, told, wire):
        heard = Heard(stream)
        wire.handshake()
        run_until(loop, lambda: told)
        assert told == [(stream, None)]
        yield heard, wire
