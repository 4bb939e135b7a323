"""What befalls streams, over each kind of connection: TCP, Unix sockets, TLS of either version."""

import array
import contextlib
import errno
import os
import random
import socket
import ssl
import threading

import pytest
from _net import Heard, client_of, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, finish, many_fds_allowed, open_fds, run_until, scaled
from _tls import Wire, client_context, secure_client, server_context, shaken

from linux_event.cancellation import CancelledError

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


@pytest.fixture(params=CONNECTIONS)
def how(request):
    return request.param


# --- resets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["quiet", "reading", "paused", "queued", "closing", "without on_data", "half closed"])
def test_a_reset_behind_the_handshake(loop, stage):
    with shaken(loop) as (heard, wire):
        stream = heard.stream
        if stage == "reading":
            wire.send(b"some")
            run_until(loop, lambda: heard.data)
        elif stage == "paused":
            stream.pause_reading()
            settle(loop)
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
        reset(wire.sock)
        settle(loop)
        if stage == "paused":
            stream.resume_reading()
        finish(loop)
        assert [call for call in heard.calls if call != "data"] == ["close"]
        [error] = heard.errors
        assert isinstance(error, (ConnectionResetError, BrokenPipeError)), error


@pytest.mark.parametrize("stage", ["quiet", "queued", "closing"])
def test_a_unix_peer_that_goes_without_reading(loop, tmp_path, stage):
    """That is a reset, too."""
    with stream_and_peer(loop, "unix", tmp_path) as (stream, peer):
        heard = Heard(stream)
        stream.write(b"never read" if stage == "quiet" else bytes(64 << 20))
        if stage == "closing":
            stream.close()
        run_until(loop, lambda: stage != "quiet" or not stream.write_buffer_size)
        settle(loop)
        peer.close()
        finish(loop)
        assert heard.calls == ["close"]
        assert isinstance(heard.errors[0], (ConnectionResetError, BrokenPipeError))


@pytest.mark.parametrize("tls", [False, True])
def test_resets_before_anybody_has_accepted(loop, tls):
    """They come to the server as connections that are over, or not at all; the listener goes on."""
    ends, told = [], []
    loop.on_error = lambda source, error: told.append(error)

    def begun(stream):
        stream.on_data = lambda stream, data: stream.write(data)
        stream.on_close = lambda stream, error: ends.append(type(error))

    listener = loop.listen(("127.0.0.1", 0), begun, tls=server_context() if tls else None)
    peers = [client_of(listener) for _ in range(20)]
    for peer in peers:
        reset(peer)
    run_until(loop, lambda: loop.statistics().streams == 0 and (len(ends) == 20 or len(told) == 20))
    assert set(ends) <= {ConnectionResetError}
    assert {type(error) for error in told} <= {ConnectionResetError}
    assert not listener.is_closed()
    with client_of(listener) as peer:
        if tls:
            wire = Wire(loop, peer)
            wire.handshake()
        else:
            wire = Plain(loop, peer)
        wire.send(b"still served")
        assert wire.receive() == b"still served"
    run_until(loop, lambda: not listener.connections)
    listener.close()
    finish(loop)
    loop.on_error = None


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_resets_what_it_accepts(loop, tls):
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"tls": client_context(), "server_hostname": "localhost"} if tls else {}

        def made(stream, error):
            calls.append(error)
            if stream is not None:
                stream.on_data = print
                stream.on_close = lambda stream, error: calls.append(error)

        loop.connect_stream(server.getsockname(), made, **options)
        loop.run_once(0)
        reset(server.accept()[0])
        finish(loop)
    if tls:
        assert [type(error) for error in calls] == [ConnectionResetError]
    else:  # it was connected, and is told so before it is told of the end
        assert [type(error) for error in calls] in ([type(None), ConnectionResetError], [ConnectionResetError])
    calls.clear()


# --- slow ones --------------------------------------------------------------------------------------------------------


def test_a_slow_sender_is_not_idle(loop, how, tmp_path):
    """A byte now and then keeps it alive, and no byte is lost; then nothing comes, and that is told."""
    with connected(loop, how, tmp_path) as (heard, peer):
        heard.stream.idle_timeout = 0.25
        for number in range(40):
            peer.send(bytes([number]))
            waiting = []
            loop.timer(0.01, waiting.append)
            run_until(loop, lambda waiting=waiting: waiting)
        run_until(loop, lambda: len(heard.data) == 40)
        assert heard.data == bytes(range(40))
        assert not heard.is_over
        finish(loop)
        assert heard.calls[-1] == "close"
        assert type(heard.errors.pop()) is TimeoutError


def test_a_handshake_byte_by_byte_has_a_limit(loop):
    """Whoever sends a byte now and then is not idle, and must not keep the handshake open for ever."""
    told = []
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(server_context(), lambda *got: told.append(got[1]), server_side=True, handshake_timeout=0.1)
        stream.idle_timeout = BOUND
        wire = Wire(loop, sock)
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.do_handshake()
        hello = wire.outgoing.read()
        place = 0
        while not heard.is_over:
            if place < len(hello) - 1:  # the last byte never comes
                sock.send(hello[place : place + 1])
                place += 1
            loop.run_once(0.001)
        finish(loop)
        assert type(heard.errors[0]) is TimeoutError
        assert told == heard.errors
        heard.errors.clear()
        told.clear()


def test_a_slow_reader_of_tls_with_a_bounded_queue(loop):
    total, piece = scaled(8 << 20, 1 << 20), bytes(range(256)) * 64
    with shaken(loop) as (heard, wire):
        sent = queued_max = 0

        def more(stream):
            nonlocal sent, queued_max
            while sent < total:
                sent += len(piece)
                goes_on = stream.write(piece)
                queued_max = max(queued_max, stream.write_buffer_size)
                if not goes_on:
                    return
            stream.close()

        heard.stream.on_drain = more
        more(heard.stream)
        got = bytearray()
        while data := wire.receive(10000):
            got += data
            loop.run_once(0)
        assert got == piece * (sent // len(piece))
        assert queued_max <= 65536 + 2 * len(piece)
        finish(loop)
        assert heard.errors == [None]


@pytest.mark.parametrize("direction", ["to the stream", "from the stream"])
def test_many_bytes_through_small_buffers(loop, how, direction, tmp_path):
    """The kernel takes and gives a few KiB at a time; each byte is compared."""
    total = scaled(32 << 20 if how == "tls" else 64 << 20, 2 << 20)
    block = random.Random(3).randbytes(1 << 20)
    doubled = block * 2
    wrong = []

    def check(place, data):
        for first in range(0, len(data), len(block)):
            piece = data[first : first + len(block)]
            start = (place + first) % len(block)
            if piece != doubled[start : start + len(piece)]:
                wrong.append(place)

    def narrow(sock):
        # With less than a segment, which on loopback has 64 KiB, TCP would wait for its timers.
        size = 4096 if how == "unix" else 1 << 17
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    state = {"sent": 0, "received": 0}
    ends = []

    def begun(stream):
        narrow(stream.socket)
        stream.on_close = lambda stream, error: ends.append(error)
        if direction == "to the stream":
            stream.on_data = on_data
        else:
            stream.on_drain = more
            more(stream)

    def on_data(stream, data):
        check(state["received"], data)
        state["received"] += len(data)

    def more(stream):
        while state["sent"] < total:
            start = state["sent"] % len(block)
            size = min(50000, total - state["sent"])
            state["sent"] += size
            if not stream.write(doubled[start : start + size]):
                return
        stream.close()

    def other_end():
        with contextlib.ExitStack() as stack:
            if how == "tls":
                sock = stack.enter_context(secure_client(listener.sockname))
            else:
                sock = stack.enter_context(client_of(listener, how))
            narrow(sock)
            place = 0
            if direction == "to the stream":
                while place < total:
                    size = min(50000, total - place)
                    sock.sendall(doubled[place % len(block) : place % len(block) + size])
                    place += size
                if how == "tls":
                    with contextlib.suppress(OSError):
                        sock.unwrap()
            else:
                while data := sock.recv(65536):
                    check(place, data)
                    place += len(data)
                state["received"] = place

    address = str(tmp_path / "listening") if how == "unix" else ("127.0.0.1", 0)
    listener = loop.listen(address, begun, tls=server_context() if how == "tls" else None)
    thread = threading.Thread(target=other_end)
    thread.start()
    run_until(loop, lambda: ends, 2 * BOUND)
    listener.close()
    finish(loop)
    thread.join()
    assert not wrong
    assert state["received"] == total
    assert ends == [None]


def test_more_streams_of_tls_than_buffers(loop):
    count = scaled(200, 70)
    got = {}
    ends = []

    def begun(stream):
        got[stream] = bytearray()
        stream.on_data = lambda stream, data: got[stream].extend(data)
        stream.on_close = lambda stream, error: ends.append(error)

    listener = loop.listen(("127.0.0.1", 0), begun, tls=server_context())
    context = client_context()
    said = os.urandom(20000)
    with many_fds_allowed(2 * count), contextlib.ExitStack() as stack:
        wires = []
        for _ in range(count):
            wires.append(Wire(loop, stack.enter_context(client_of(listener)), context))
            wires[-1].handshake()
        run_until(loop, lambda: len(got) == count)
        for wire in wires:  # all of it is there before the loop looks
            wire.ssl.write(said)
            wire.sock.sendall(wire.outgoing.read())
        for wire in wires:
            wire.say_goodbye()
        run_until(loop, lambda: len(ends) == count)
    listener.close()
    finish(loop)
    assert ends == [None] * count
    assert all(data == said for data in got.values())


def test_a_greedy_peer_does_not_starve_a_modest_one(loop, how, tmp_path):
    """While one connection has always something to be read, each question of another one is answered at once."""
    with connected(loop, how, tmp_path) as (greedy, sender), stream_and_peer(loop) as (stream, peer):
        stream.on_data = lambda stream, data: stream.write(data)
        peer.setblocking(False)
        flood = bytes(1 << 18)

        def pour(watcher, events):
            with contextlib.suppress(BlockingIOError):
                if how == "tls":
                    if not sender.outgoing.pending:
                        sender.ssl.write(flood)
                    left = sender.outgoing.read(65536)
                    sent = sender.sock.send(left)
                    assert sent == len(left) or watcher.stop()  # a part of a record would be missed
                else:
                    sender.sock.send(flood)

        watcher = loop.io(sender.sock, "w", pour)
        for _ in range(10):
            loop.run_once(0)
        assert greedy.data
        for _ in range(20):
            peer.send(b"modest")
            iterations = 0
            while True:
                loop.run_once(0)
                iterations += 1
                with contextlib.suppress(BlockingIOError):
                    assert peer.recv(100) == b"modest"
                    break
                assert iterations < 50
        watcher.destroy()
        greedy.stream.abort()
        stream.abort()
        finish(loop)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["close", "write_eof", "abort"])
def test_both_ends_close_at_the_same_time(loop, how, first, tmp_path):
    with two_streams(loop, how, tmp_path) as (a, b):
        heard = [Heard(a), Heard(b)]
        settle(loop)
        for stream in (a, b):
            stream.write(b"last words")
            getattr(stream, first)()
            getattr(stream, first)()
            if first == "write_eof":
                stream.close()
            stream.close()
        finish(loop)
        for one in heard:
            assert one.calls[-1] == "close"
            # Who closes with something unread resets the other one.
            assert one.errors[0] is None or isinstance(one.errors[0], (ConnectionResetError, BrokenPipeError))
            one.errors.clear()


def test_both_ends_have_said_all(loop, how, tmp_path):
    with two_streams(loop, how, tmp_path) as (a, b):
        heard = [Heard(a), Heard(b)]
        for one in heard:
            one.stream.write(b"last words")
            one.stream.write_eof()
        run_until(loop, lambda: all("eof" in one.calls for one in heard))
        assert [one.data for one in heard] == [b"last words"] * 2
        for one in heard:
            one.stream.close()
        finish(loop)
        assert [one.errors for one in heard] == [[None], [None]]


def test_data_and_the_end_right_behind_them(loop, tmp_path):
    """Whatever the kernel does first, both are seen."""
    got = []
    listener = loop.listen(
        str(tmp_path / "listening"), lambda stream: setattr(stream, "on_data", lambda stream, data: got.append(data))
    )
    count = scaled(2000, 100)
    for number in range(count):
        with client_of(listener, "unix") as peer:
            if number % 2:
                loop.run_once(0)
            peer.send(b"all")
            peer.shutdown(socket.SHUT_WR)
            if number % 3:
                loop.run_once(0)
        run_until(loop, lambda: not listener.connections and loop.statistics().streams == 0)
        run_until(loop, lambda number=number: len(got) == number + 1)
    listener.close()
    finish(loop)
    assert got == [b"all"] * count


ACTS = {
    "write": lambda stream: stream.write(b"w" * 100),
    "write much": lambda stream: stream.write(bytes(300000)),
    "write and close": lambda stream: (stream.write(b"w" * 30000), stream.close()),
    "write_eof": lambda stream: stream.write_eof(),
    "pause and resume": lambda stream: (stream.pause_reading(), stream.resume_reading()),
    "nobody listens": lambda stream: setattr(stream, "on_data", None),
    "close": lambda stream: stream.close(),
    "abort": lambda stream: stream.abort(),
    "close the loop": lambda stream: stream.loop.close(),
    "run the loop": lambda stream: stream.loop.run_once(0),
    "raise": lambda stream: 1 / 0,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("where", ["on_data", "on_eof", "on_drain", "on_close"])
def test_whatever_a_callback_does(loop, how, act, where, tmp_path):
    """The loop goes on, nothing is called behind on_close, and that is called once."""
    told = []
    loop.on_error = lambda source, error: told.append(type(error))
    with connected(loop, how, tmp_path) as (heard, peer):
        stream = heard.stream
        plain = getattr(heard, where)

        def strike(*arguments):
            plain(*arguments)
            ACTS[act](stream)

        setattr(stream, where, strike)
        stream.set_write_limits(0)
        with contextlib.suppress(
            OSError, RuntimeError
        ):  # an abort resets the connection, nothing is written behind write_eof()
            peer.send(b"one")
            settle(loop)
            if not stream.is_closing():
                stream.write(b"x")
            peer.send(b"two")
            peer.say_goodbye()
        for _ in range(20):
            loop.run_once(0)
        # One that is busy on other connections serves them all the same.
        with stream_and_peer(loop) as (other, other_peer):
            other.on_data = lambda stream, data: stream.write(data)
            other_peer.send(b"still here")
            other_peer.settimeout(0.001)
            got = b""
            while not got:
                loop.run_once(0)
                with contextlib.suppress(TimeoutError):
                    got = other_peer.recv(100)
            assert got == b"still here"
            other.abort()
        stream.close()
        settle(loop)
        stream.abort()
        finish(loop)
        assert heard.calls.count("close") == 1
        assert heard.calls[-1] == "close"
        expected = {"raise": {ZeroDivisionError}, "run the loop": {RuntimeError}, "close the loop": {RuntimeError}}
        allowed = expected.get(act, set())
        if act == "write" or act.startswith("write"):
            allowed = {RuntimeError}  # behind write_eof()
        assert set(told) <= allowed
        if act in expected and where in heard.calls:
            assert told
        heard.errors.clear()
    told.clear()
    loop.on_error = None


def test_the_loop_is_closed_under_traffic(nothing_left, how, tmp_path):
    from _support import made_loop

    with made_loop() as loop, connected(loop, how, tmp_path) as (heard, peer):
        heard.stream.on_data = lambda stream, data: stream.write(data * 3)
        for _ in range(5):
            if how == "tls":
                peer.ssl.write(os.urandom(30000))
                peer.push()
            else:
                peer.send(os.urandom(30000))
        loop.close()
        assert type(heard.errors.pop()) is CancelledError


def test_the_fd_is_closed_by_somebody_else(loop, tmp_path):
    """A mistake of the program: the stream is over, and the loop goes on."""
    with stream_and_peer(loop, "unix", tmp_path) as (stream, peer):
        heard = Heard(stream)
        settle(loop)
        number = stream.fileno()
        os.close(number)
        stream.write(b"to nobody")
        for _ in range(3):
            loop.run_once(0)
        stream.abort()
        finish(loop)
        assert heard.calls == ["close"]
        assert heard.errors[0] is None or heard.errors[0].errno in (errno.EBADF, errno.ECANCELED)
        heard.errors.clear()
        peer.close()


def test_fds_that_nobody_asked_for(loop, tmp_path):
    """A Unix peer may send fds along with data: the kernel closes those that nobody receives."""
    listener = loop.listen(
        str(tmp_path / "listening"), lambda stream: setattr(stream, "on_data", lambda stream, data: stream.write(data))
    )
    with client_of(listener, "unix") as peer, open("/dev/null") as file:
        peer.send(b"first")
        settle(loop)
        assert peer.recv(100) == b"first"
        peer.setblocking(False)
        loop.run_once(0.001)  # what it opens for its first wait is open
        before = open_fds()
        for _ in range(100):
            peer.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()] * 10))])
        got = b""
        while len(got) < 100:
            loop.run_once(0.01)
            with contextlib.suppress(BlockingIOError):
                got += peer.recv(1000)
        assert open_fds() == before
    run_until(loop, lambda: not listener.connections)
    listener.close()
    finish(loop)


def test_connections_that_come_and_go_over_unix_sockets(loop, tmp_path):
    listener = loop.listen(
        str(tmp_path / "listening"), lambda stream: setattr(stream, "on_data", lambda stream, data: stream.write(data))
    )
    loop.run_once(0.001)  # what it opens for its first wait is open
    before = open_fds()
    for number in range(scaled(2000, 50)):
        with client_of(listener, "unix") as peer:
            peer.setblocking(False)
            if number % 3:
                peer.send(b"hello")
            if number % 3 == 2:
                while True:
                    loop.run_once(0)
                    with contextlib.suppress(BlockingIOError):
                        assert peer.recv(100) == b"hello"
                        break
    run_until(loop, lambda: not listener.connections and loop.statistics().streams == 0)
    assert open_fds() == before
    statistics = loop.statistics()
    assert statistics.pool_buffers_in_use == statistics.timers == 0
    assert statistics.requests_in_flight == 1
    listener.close()
    finish(loop)
