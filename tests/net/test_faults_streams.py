"""What befalls streams, over each kind of connection: resets, slow ones, greedy ones."""

import contextlib
import os
import random
import socket
import ssl
import threading

import pytest
from _connections import CONNECTIONS, Plain, connected
from _net import Heard, bring_to, client_of, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, finish, many_fds_allowed, run_until, scaled
from _tls import Wire, client_context, secure_client, server_context, shaken


@pytest.fixture(params=CONNECTIONS)
def how(request):
    return request.param


# --- resets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["quiet", "reading", "paused", "queued", "closing", "without on_data", "half closed"])
def test_a_reset_behind_the_handshake(loop, stage):
    with shaken(loop) as (heard, wire):
        stream = heard.stream
        bring_to(stage, loop, heard, wire.send)
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
