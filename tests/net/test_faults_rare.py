"""Rare moments: memory that is short within ssl, contexts that were changed, buffers whose end is felt, ends in pauses, and
networks and limits of their own."""

import contextlib
import errno
import os
import socket
import ssl
import subprocess

import _fault
import pytest
from _children import Exits, shell
from _net import Called, Heard, client_of, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, finish, run_until, scaled
from _tls import Wire, client_context, secure_stream, server_context, shaken

from linux_event import Loop
from linux_event.net.stream import stream_of_fd

# --- TLS without memory -----------------------------------------------------------------------------------------------


class Short(ssl.SSLObject):
    """Has no memory for one of its calls."""

    lacking = None

    def do_handshake(self):
        if self.lacking == "do_handshake":
            raise MemoryError
        super().do_handshake()

    def read(self, *args):
        if self.lacking == "read":
            raise MemoryError
        return super().read(*args)

    def write(self, data):
        if self.lacking == "write":
            raise MemoryError
        return super().write(data)

    def unwrap(self):
        if self.lacking == "unwrap":
            raise MemoryError
        return super().unwrap()


def short_context():
    context = server_context()
    context.sslobject_class = type("Short", (Short,), {})
    return context


def test_no_memory_in_the_handshake(loop):
    context = short_context()
    context.sslobject_class.lacking = "do_handshake"
    ends = []

    def begun(stream):
        stream.on_close = lambda stream, error: ends.append(error)

    with secure_stream(loop, context=context, begun=begun) as (stream, told, _wire):
        finish(loop)
        [error] = ends
        assert type(error) is MemoryError
        assert told == [(stream, error)]
        ends.clear()
        told.clear()
        del error


@pytest.mark.parametrize("then", ["write", "write much", "write and close", "receive", "close", "write_eof"])
def test_no_memory_after_the_handshake(loop, then):
    context = short_context()
    with shaken(loop, context=context) as (heard, wire):
        stream, kind = heard.stream, context.sslobject_class
        if then.startswith("write") and then != "write_eof":
            kind.lacking = "write"
            assert stream.write(bytes(50000) if then == "write much" else b"x") is (then != "write much")
            if then == "write and close":
                stream.close()
        elif then == "receive":
            kind.lacking = "read"
            wire.ssl.write(b"never decrypted")
            wire.push()
        else:
            kind.lacking = "unwrap"
            getattr(stream, then)()
        finish(loop)
        assert heard.calls == ["close"]
        assert type(heard.errors.pop()) is MemoryError


def test_a_context_that_was_changed(loop):
    """The connection is lost, and that is told; the listener goes on."""
    told = []
    loop.on_error = lambda source, error: told.append(type(error))
    context, kind = server_context(), ssl.SSLObject
    listener = loop.listen(("127.0.0.1", 0), print, tls=context)
    context.sslobject_class = None
    with client_of(listener) as peer:
        run_until(loop, lambda: told)
        assert peer.recv(100) == b""
    assert told == [AttributeError]
    context.sslobject_class = kind
    with client_of(listener) as peer:
        Wire(loop, peer).handshake()
    listener.close()
    finish(loop)
    loop.on_error = None


def test_a_context_that_is_changed_while_it_connects(loop):
    context, called = client_context(), Called()
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop.connect_stream(server.getsockname(), called, tls=context, server_hostname="localhost")
        context.sslobject_class = None
        finish(loop)
        assert type(called.error) is AttributeError
        called.calls.clear()


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_callback_of_the_context_that_ends_the_stream(loop, how):
    context = server_context()
    with secure_stream(loop, context=context) as (stream, told, wire):
        heard = Heard(stream)
        context.sni_callback = lambda *_: getattr(stream, how)()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            wire.handshake() if how == "close" else (wire.ssl.do_handshake())
        wire.push()
        finish(loop)
        assert heard.errors == [None]
        assert len(told) == 1
        context.sni_callback = None
        told.clear()


def test_write_eof_twice_in_the_handshake(loop):
    with secure_stream(loop) as (stream, _told, wire):
        heard = Heard(stream)
        stream.write_eof()
        stream.write_eof()
        wire.handshake()
        assert wire.receive() == b""
        stream.close()
        finish(loop)
        assert heard.errors == [None]


def test_a_reset_behind_the_farewell(loop):
    """All was given to the kernel: what the other end does with it the stream does not hear of any more."""
    with shaken(loop) as (heard, wire):
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        heard.stream.write(bytes(500000))
        heard.stream.close()
        for _ in range(20):
            loop.run_once(0)
        reset(wire.sock)
        finish(loop)
        assert heard.calls == ["close"]
        assert heard.errors[0] is None or isinstance(heard.errors[0], ConnectionResetError)
        heard.errors.clear()


# --- buffers, pauses --------------------------------------------------------------------------------------------------


def test_a_buffer_whose_end_ends_the_stream(loop):
    """To let go of it runs code of others, within write()."""
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)

        class Felt(bytearray):
            def __del__(self):
                stream.abort()

        assert stream.write(Felt(5000))
        assert stream.write(bytes(64 << 20)) is False  # the first of both is sent, the second one in part
        assert stream.is_closing()
        finish(loop)
        assert heard.errors == [None]
        assert len(peer.recv(25000, socket.MSG_WAITALL)) == 25000


def test_a_buffer_that_cannot_be_written_any_more(loop):
    with stream_and_peer(loop) as (stream, _peer):
        stream.write_eof()
        data = bytearray(b"x")
        with pytest.raises(RuntimeError, match="after write_eof"):
            stream.write(data)
        data.append(0)  # nobody holds it
        stream.abort()


def test_write_eof_and_close_of_a_full_pipe(loop):
    r, w = os.pipe()
    stream = stream_of_fd(loop, w, reads=False)
    heard = Heard(stream)
    stream.write(bytes(300000))
    stream.write_eof()
    stream.close()
    got = 0
    while not heard.is_over or got < 300000:
        loop.run_once(0.001)
        got += len(os.read(r, 1 << 20))
    assert os.read(r, 1) == b""
    os.close(r)
    assert heard.errors == [None]


def test_a_reset_while_nobody_has_ever_listened(loop):
    ends = []
    with stream_and_peer(loop) as (stream, peer):
        stream.on_close = lambda stream, error: ends.append(error)
        settle(loop)
        reset(peer)
        finish(loop)
    assert [type(error) for error in ends] == [ConnectionResetError]
    ends.clear()


@pytest.mark.parametrize("begin", ["paused from the start", "paused later"])
def test_the_end_in_a_pause_is_told_behind_it(loop, begin):
    with stream_and_peer(loop, begun=(lambda stream: stream.pause_reading()) if "start" in begin else None) as ends:
        stream, peer = ends
        heard = Heard(stream)
        settle(loop)
        stream.pause_reading()
        peer.sendall(b"before")
        peer.close()
        settle(loop)
        settle(loop)
        assert not heard.calls
        stream.resume_reading()
        run_until(loop, lambda: "eof" in heard.calls)
        assert heard.data == b"before"
        stream.close()
        finish(loop)


def test_a_pause_of_a_connection_that_is_broken(loop, tmp_path):
    """Nobody takes what has come before: it is over."""
    with stream_and_peer(loop, "unix", tmp_path) as (stream, peer):
        heard = Heard(stream)

        def pausing(stream, data):
            heard.on_data(stream, data)
            stream.pause_reading()

        settle(loop)
        stream.on_data = pausing
        for _ in range(5):
            peer.sendall(b"x" * 5000)
        peer.close()
        stream.write(b"to nobody")
        finish(loop)
        assert heard.calls == ["data", "close"]
        assert isinstance(heard.errors[0], (BrokenPipeError, ConnectionResetError))


def test_data_that_somebody_else_has_taken(loop):
    """A program that receives from the socket of a stream by itself takes its data; the stream goes on."""
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        for _ in range(6):  # it becomes a big one
            peer.sendall(bytes(200000))
            before = len(heard.data)
            run_until(loop, lambda before=before: len(heard.data) >= before + 200000)
        before = len(heard.data)
        stolen = []

        def steal(timer):
            with contextlib.suppress(BlockingIOError):
                stolen.append(stream.socket.recv(1 << 20, socket.MSG_DONTWAIT))

        for _ in range(5):
            peer.sendall(b"y" * 100)
            loop.timer(0, steal)
            loop.run_once(0)
            settle(loop)
        assert len(heard.data) + sum(map(len, stolen)) == before + 500
        peer.sendall(b"the rest")
        run_until(loop, lambda: heard.data.endswith(b"the rest"))
        stream.abort()


def test_what_is_no_loop():
    for call in (Loop.listen, Loop.connect_stream):
        with pytest.raises(TypeError, match="must be a Loop"):
            call(object(), ("127.0.0.1", 0), print)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_without_fds(loop):
    """Each way to a socket says so and leaves nothing; when there are fds again it works."""
    errors = []
    loop.run_once(0)
    os.strerror(errno.EMFILE)
    with _fault.short_of_fds():
        for start in (
            lambda: loop.datagram(("127.0.0.1", 0)),
            lambda: loop.listen(("127.0.0.1", 0), print),
            lambda: loop.spawn(["true"], stdin=subprocess.PIPE),
        ):
            with pytest.raises(OSError) as caught:
                start()
            errors.append(caught.value.errno)
    assert errors == [errno.EMFILE] * 3
    loop.datagram(("127.0.0.1", 0)).close()
    loop.listen(("127.0.0.1", 0), print).close()
    finish(loop)


NETWORK = """
import array, ctypes, errno, fcntl, os, socket, struct, sys
from linux_event import Loop

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x40000000) < 0:  # CLONE_NEWNET
    print("not permitted")
    sys.exit()

def set_up(is_up):
    with socket.socket() as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x49 if is_up else 0x48))  # SIOCSIFFLAGS

set_up(True)
loop = Loop()
"""

UNPLUGGED = """
streams, ends = [], []
listener = loop.listen(("127.0.0.1", 0), streams.append)
peer = socket.create_connection(listener.sockname)
while not streams:
    loop.run_once(0.1)
[stream] = streams
stream.on_data = lambda stream, data: None
stream.on_close = lambda stream, error: ends.append(error)
if PROBES:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
loop.run_once(0)
set_up(False)
if not PROBES:
    stream.write(b"are you there?")
listener.close()
loop.run(30)
[error] = ends
assert error.errno == errno.ETIMEDOUT, error
assert isinstance(error, TimeoutError)
print("told")
loop.close()
"""

UNREACHABLE = """
called = []
loop.connect_stream(("10.8.8.8", 9), lambda stream, error: called.append(error))
loop.run(30)
[error] = called
assert error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH), error
datagram = loop.datagram(("127.0.0.1", 0))
datagram.on_error = lambda datagram, error: called.append(error)
datagram.send(b"x", ("10.8.8.8", 9))
for _ in range(5):
    loop.run_once(0)
assert called[1].errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL), called
assert not datagram.is_closing()
datagram.close()
loop.run(30)
print("told")
loop.close()
"""


def in_a_network_of_its_own(source):
    result = _fault.run_script(NETWORK + source)
    if result.stdout.strip() == "not permitted":
        pytest.skip("a network of its own is not permitted")
    assert result.stdout.strip() == "told", (result.stdout, result.stderr)


@pytest.mark.parametrize("keepalive", [False, True])
def test_a_half_open_connection(keepalive):
    """The other end is gone without a word: the kernel gives up after a time, and the stream tells."""
    in_a_network_of_its_own(UNPLUGGED.replace("PROBES", str(keepalive)))


def test_a_network_without_a_route():
    in_a_network_of_its_own(UNREACHABLE)


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_process_that_speaks_byte_by_byte(loop):
    exits = Exits()
    script = "i=0; while [ $i -lt 40 ]; do printf x; i=$((i+1)); done; read line; printf '%s' \"$line\""
    process = shell(loop, script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, on_exit=exits)
    heard = Heard(process.stdout)
    run_until(loop, lambda: heard.data == b"x" * 40)
    for byte in b"slowly\n":
        process.stdin.write(bytes([byte]))
        settle(loop)
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.data == b"x" * 40 + b"slowly"
    process.stdin.close()
    process.stdout.close()
    finish(loop)
    assert exits == [0]


def test_many_bytes_through_a_process(loop):
    """Through two pipes, each byte compared, with the queue bounded."""
    total, block = scaled(32 << 20, 1 << 20), os.urandom(1 << 16)
    exits, wrong = Exits(), []
    process = loop.spawn(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, on_exit=exits)
    sent = received = 0

    def more(stream):
        nonlocal sent
        while sent < total:
            sent += len(block)
            if not stream.write(block):
                assert stream.write_buffer_size <= (64 << 10) + len(block)
                return
        stream.close()

    def on_data(stream, data):
        nonlocal received
        place = received % len(block)
        expected = (block * (len(data) // len(block) + 2))[place : place + len(data)]
        if data != expected:
            wrong.append(received)
        received += len(data)

    process.stdin.on_drain = more
    process.stdout.on_data = on_data
    more(process.stdin)
    finish(loop, 2 * BOUND)
    assert not wrong
    assert received == sent >= total
    assert exits == [0]


@pytest.mark.parametrize("act", ["kill", "close the pipes", "close the loop", "raise", "spawn"])
@pytest.mark.parametrize("where", ["on_data", "on_eof", "on_exit"])
def test_whatever_a_callback_of_a_process_does(loop, act, where):
    told, exits = [], []
    loop.on_error = lambda source, error: told.append(type(error))

    def strike(*_):
        if act == "kill":
            process.kill()
        elif act == "close the pipes":
            process.stdin.close()
            process.stdout.abort()
        elif act == "close the loop":
            loop.close()
        elif act == "raise":
            raise ZeroDivisionError
        else:
            loop.spawn(["true"], on_exit=lambda process, code: exits.append(code))

    process = shell(loop, "echo hello; read x; exit 3", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.on_data = lambda stream, data: None
    process.stdout.on_eof = lambda stream: stream.close()
    process.on_exit = lambda process, code: exits.append(code)
    if where == "on_exit":
        process.on_exit = lambda process, code: (exits.append(code), strike())
    elif where == "on_data":
        process.stdout.on_data = lambda stream, data: strike()
    else:
        process.stdout.on_eof = lambda stream: (stream.close(), strike())
    settle(loop)
    process.stdin.write(b"go\n")
    process.stdin.write_eof()
    finish(loop)
    assert exits.count(0) == (act == "spawn")
    [code] = [code for code in exits if code != 0]
    assert code in (3, -9)
    assert set(told) == (
        {ZeroDivisionError} if act == "raise" else {RuntimeError} if act == "close the loop" else set()
    )
    loop.on_error = None


def test_fds_that_a_datagram_brings(loop, tmp_path):
    """Nobody asked for them: they are closed."""
    import array

    got = []
    path = str(tmp_path / "datagrams")
    datagram = loop.datagram(path)
    datagram.on_datagram = lambda datagram, data, address: got.append(data)
    loop.run_once(0.001)
    before = set(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer, open("/dev/null") as file:
        for _ in range(5):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()] * 5))]
            peer.sendmsg([b"x"], rights, 0, path)
            settle(loop)
    assert got == [b"x"] * 5
    assert set(os.listdir("/proc/self/fd")) == before
    datagram.close()
    finish(loop)
