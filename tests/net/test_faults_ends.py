"""The ends of streams over each kind of connection, callbacks at the worst moment, what others do to a stream."""

import array
import contextlib
import errno
import os
import socket

import pytest
from _connections import CONNECTIONS, connected, two_streams
from _net import Heard, client_of, settle, stream_and_peer
from _support import finish, made_loop, open_fds, run_until, scaled

from linux_event.cancellation import CancelledError


@pytest.fixture(params=CONNECTIONS)
def how(request):
    return request.param


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
