"""How streams end: close and abort from anywhere, resets, broken pipes, exceptions, the end of the loop, garbage, forks."""

import errno
import gc
import os
import socket
import threading
import weakref

import pytest
from _net import FAMILIES, Heard, bring_to, client_of, receive_all, settle, stream_and_peer
from _sockets import reset
from _support import finish, made_loop, run_until

from linux_event import Loop, LoopClosedError, WrongThreadError
from linux_event.cancellation import CancelledError
from linux_event.net.stream import stream_of_fd


@pytest.fixture(params=FAMILIES)
def both(loop, request, tmp_path):
    with stream_and_peer(loop, request.param, tmp_path) as ends:
        yield ends
        if not loop.is_closed():
            ends[0].abort()
            settle(loop)


# -- close and abort ---------------------------------------------------------------------------------------------------


def test_close_sends_what_is_queued(loop, both):
    stream, peer = both
    heard = Heard(stream)
    said = os.urandom(8 << 20)
    stream.write(said)
    stream.close()
    stream.close()
    assert stream.is_closing()
    assert not stream.is_closed()
    assert stream.write(b"dropped") is False
    got = []
    reader = threading.Thread(target=lambda: got.append(receive_all(peer)))
    reader.start()
    finish(loop)
    reader.join()
    assert got == [said]
    assert heard.calls == ["close"]
    assert heard.errors == [None]
    stream.close()
    stream.abort()
    stream.write_eof()
    stream.pause_reading()
    stream.resume_reading()
    assert stream.write(b"dropped") is False


@pytest.mark.parametrize("first", ["us", "peer", "in on_eof"])
def test_both_directions_end(loop, both, first):
    """There is nothing left to wait for: the stream ends when what is queued is sent."""
    stream, peer = both
    heard = Heard(stream)
    said = bytes(1 << 20)
    got = []
    reader = threading.Thread(target=lambda: got.append(receive_all(peer)))
    if first == "us":
        stream.write(said)
        stream.write_eof()
        settle(loop)
        assert heard.calls == []
        peer.shutdown(socket.SHUT_WR)
    else:
        peer.shutdown(socket.SHUT_WR)
        if first == "in on_eof":
            stream.on_eof = lambda stream: (heard.on_eof(stream), stream.write(said), stream.write_eof())
        else:
            run_until(loop, lambda: heard.calls)
            settle(loop)
            assert heard.calls == ["eof"]
            stream.write(said)
            stream.write_eof()
    reader.start()
    finish(loop)
    reader.join()
    assert got == [said]
    assert [call for call in heard.calls if call != "drain"] == ["eof", "close"]
    assert heard.errors == [None]


@pytest.mark.parametrize("size", [10, 60000, 3 << 20])
@pytest.mark.parametrize("how", ["no on_data", "pause, then none", "pause and none", "pause"])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_end_comes_when_nobody_asks_for_data(loop, both, size, how, at_once):
    """In a pause, or not; it is told when the pause has ended."""
    stream, peer = both
    said = os.urandom(size)
    heard = Heard(stream)

    def on_data(stream, data):
        heard.on_data(stream, data)
        if len(heard.data) == size:
            if how.startswith("pause"):
                stream.pause_reading()
            if how in ("no on_data", "pause and none"):
                stream.on_data = None

    stream.on_data = on_data
    sender = threading.Thread(target=lambda: (peer.sendall(said), at_once and peer.shutdown(socket.SHUT_WR)))
    sender.start()
    run_until(loop, lambda: len(heard.data) == size)
    sender.join()
    if not at_once:
        settle(loop)
        peer.shutdown(socket.SHUT_WR)
    settle(loop)
    if how.startswith("pause"):
        assert "eof" not in heard.calls
        if how == "pause, then none":
            stream.on_data = None
        stream.resume_reading()
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.data == said


def test_the_other_end_receives_no_more(loop):
    """It has not gone, so that no end of the data will come."""
    a, b = socket.socketpair()
    with b:
        stream = stream_of_fd(loop, a.detach())
        heard = Heard(stream)
        settle(loop)
        b.shutdown(socket.SHUT_RD)
        assert stream.write(bytes(300000)) is False
        assert stream.write(b"x") is False
        finish(loop)
        assert heard.calls == ["close"]
        assert [type(error) for error in heard.errors] == [BrokenPipeError]


def test_abort_drops_what_is_queued(loop, both):
    stream, peer = both
    heard = Heard(stream)
    stream.write(b"small")
    stream.write(bytearray(64 << 20))
    stream.abort()
    stream.abort()
    assert heard.calls == []
    finish(loop)
    assert heard.calls == ["close"]
    assert heard.errors == [None]
    assert len(receive_all(peer)) < 64 << 20


def test_abort_after_close(loop, both):
    stream, peer = both
    heard = Heard(stream)
    stream.write(bytes(64 << 20))
    settle(loop)
    stream.close()
    settle(loop)
    assert heard.calls == []
    stream.abort()
    finish(loop)
    assert heard.errors == [None]
    receive_all(peer)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("is_armed", [True, False])
def test_the_other_end_sees_the_end(loop, both, how, is_armed):
    stream, peer = both
    if is_armed:
        stream.on_data = lambda stream, data: None
        settle(loop)
    getattr(stream, how)()
    assert receive_all(peer) == b""  # although nobody runs the loop
    finish(loop)
    assert stream.is_closed()


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_in_on_data_with_more_data_behind(loop, both, how):
    stream, peer = both
    heard = Heard(stream)

    def once(stream, data):
        heard.on_data(stream, data)
        getattr(stream, how)()

    stream.on_data = once
    loop.run_once(0)
    for _ in range(5):
        peer.sendall(b"x" * 100)
    run_until(loop, lambda: heard.is_over)
    assert heard.calls == ["data", "close"]
    assert heard.errors == [None]
    assert loop.statistics().pool_buffers_in_use == 0


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("where", ["on_drain", "on_eof", "on_close", "on_connect"])
def test_the_end_in_other_callbacks(loop, how, where):
    ends = []

    def begun(stream):
        stream.on_close = lambda stream, error: (ends.append(error), getattr(stream, how)())
        if where == "on_connect":
            getattr(stream, how)()
            stream.on_data = ends.append

    with stream_and_peer(loop, begun=begun) as (stream, peer):
        if where == "on_drain":
            stream.set_write_limits(0)
            stream.on_drain = lambda stream: getattr(stream, how)()
            stream.write(b"x")
        elif where == "on_eof":
            stream.on_data = lambda stream, data: None
            stream.on_eof = lambda stream: getattr(stream, how)()
            peer.shutdown(socket.SHUT_WR)
        elif where == "on_close":
            stream.abort()
        finish(loop)
    assert ends == [None]


def test_close_of_another_stream_with_data_collected(loop):
    """Both have data in one iteration: the one that is served first closes the other."""
    calls = []
    with stream_and_peer(loop) as (a, peer_a), stream_and_peer(loop) as (b, peer_b):
        for stream, other in ((a, b), (b, a)):
            stream.on_data = lambda stream, data, other=other: (calls.append("data"), other.close())
            stream.on_close = lambda stream, error: calls.append(("close", error))
        settle(loop)
        peer_a.sendall(b"a")
        peer_b.sendall(b"b")
        run_until(loop, lambda: ("close", None) in calls)
        assert calls == ["data", ("close", None)]
        a.abort()
        b.abort()
        finish(loop)
    assert calls == ["data", ("close", None), ("close", None)]


def test_data_that_are_parked_are_dropped_by_close(loop, both):
    stream, peer = both
    heard = Heard(stream)
    settle(loop)
    stream.pause_reading()
    peer.sendall(b"parked")
    settle(loop)
    stream.close()
    finish(loop)
    assert heard.calls == ["close"]


# -- Failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["quiet", "reading", "paused", "queued", "closing", "without on_data", "half closed"])
def test_a_reset_at_every_stage(loop, stage):
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        bring_to(stage, loop, heard, peer.sendall)
        reset(peer)
        if stage == "paused":
            settle(loop)
            stream.resume_reading()
        finish(loop)
        assert [call for call in heard.calls if call != "data"] == ["close"]
        [error] = heard.errors
        assert isinstance(error, (ConnectionResetError, BrokenPipeError)), error
        assert error.errno in (errno.ECONNRESET, errno.EPIPE)


def test_a_write_to_a_connection_that_was_reset(loop):
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        stream.pause_reading()
        reset(peer)
        assert stream.write(b"x" * 100000) is False or stream.write(b"y") in (True, False)
        finish(loop)
        assert heard.calls == ["close"]
        assert isinstance(heard.errors[0], (ConnectionResetError, BrokenPipeError))


@pytest.mark.parametrize("size", [100, 100000])
def test_a_broken_pipe_is_an_error_of_the_stream(loop, tmp_path, size):
    with stream_and_peer(loop, "unix", tmp_path) as (stream, peer):
        heard = Heard(stream)
        heard_eof = []
        stream.on_eof = lambda stream: (heard_eof.append(1), stream.write(bytes(size)))
        peer.close()
        finish(loop)
        assert heard_eof == [1]
        assert heard.calls == ["close"]
        assert isinstance(heard.errors[0], BrokenPipeError)
        assert heard.errors[0].errno == errno.EPIPE


def test_what_came_before_a_broken_pipe_is_handed_over(loop, tmp_path):
    """The other end answers and goes, while it is still being written to."""
    with stream_and_peer(loop, "unix", tmp_path) as (stream, peer):
        heard = Heard(stream)
        stream.on_data = None
        stream.write(bytes(64 << 20))
        settle(loop)
        peer.sendall(b"enough")
        peer.close()
        stream.on_data = heard.on_data
        finish(loop)
        assert heard.data == b"enough"
        assert heard.calls == ["data", "close"]
        assert isinstance(heard.errors[0], (BrokenPipeError, ConnectionResetError))


@pytest.mark.parametrize("where", ["on_data", "on_eof", "on_drain", "on_close"])
def test_exceptions_go_to_on_error(loop, where):
    told = []
    loop.on_error = lambda source, error: told.append((source, error))

    def fail(*arguments):
        raise ValueError(where)

    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        setattr(stream, where, fail)
        stream.set_write_limits(0)
        stream.write(b"x")
        peer.sendall(b"1")
        run_until(loop, lambda: len(told) == (where in ("on_data", "on_drain")))
        peer.sendall(b"2")
        peer.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: "eof" in heard.calls or (where == "on_eof" and told))
        stream.close()
        finish(loop)
        assert {type(error) for _, error in told} == {ValueError}
        assert {source for source, _ in told} == {stream}
        told.clear()
        heard.stream = None
    loop.on_error = None


def test_ctrl_c_in_on_data_leaves_run(loop):
    with stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)

        def interrupt(stream, data):
            heard.on_data(stream, data)
            raise KeyboardInterrupt

        stream.on_data = interrupt
        peer.sendall(b"1")
        with pytest.raises(KeyboardInterrupt):
            loop.run(60)
        peer.sendall(b"2")
        stream.on_data = heard.on_data
        run_until(loop, lambda: heard.data == b"12")
        stream.close()
        finish(loop)


# -- The end of the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["quiet", "queued", "closing", "parked", "ended"])
def test_the_loop_is_closed_under_a_stream(state):
    with made_loop() as loop, stream_and_peer(loop) as (stream, peer):
        heard = Heard(stream)
        if state in ("queued", "closing"):
            stream.write(bytearray(64 << 20))
            settle(loop)
            if state == "closing":
                stream.close()
        elif state == "parked":
            settle(loop)
            stream.pause_reading()
            peer.sendall(b"parked")
            settle(loop)
        elif state == "ended":
            stream.abort()
        loop.close()
        assert heard.calls == ["close"]
        [error] = heard.errors
        assert error is None if state == "ended" else type(error) is CancelledError
        with_end = receive_all(peer)
        assert state in {"queued", "closing"} or with_end == b""
        stream.close()
        stream.abort()
        assert stream.write(b"x") is False


def test_the_loop_is_closed_under_traffic(tmp_path):
    said = []
    with made_loop() as loop:
        streams = []

        def begun(stream):
            streams.append(stream)
            stream.on_data = lambda stream, data: stream.write(data)
            stream.on_close = lambda stream, error: said.append(type(error))

        listener = loop.listen(("127.0.0.1", 0), begun)
        clients = [client_of(listener) for _ in range(20)]
        for client in clients:
            client.setblocking(False)
        run_until(loop, lambda: len(streams) == 20)
        for _ in range(20):
            for client in clients:
                client.send(b"x" * 30000)
            loop.run_once(0)
        loop.close()
        assert said == [CancelledError] * 20
        assert listener.is_closed()
        for client in clients:
            client.close()
        streams.clear()


def test_calls_in_on_close_of_a_loop_that_is_closed():
    with made_loop() as loop, stream_and_peer(loop) as (stream, _peer):
        seen = []
        loop.on_error = lambda source, error: seen.append(error)

        def closed(stream, error):
            stream.close()
            stream.abort()
            seen.append(stream.write(b"x"))
            loop.listen(("127.0.0.1", 0), print)

        stream.on_close = closed
        loop.close()
        assert seen[0] is False
        assert isinstance(seen[1], LoopClosedError)


def test_a_loop_that_is_dropped():
    loop, told, streams = Loop(), [], []
    listener = loop.listen(("127.0.0.1", 0), streams.append)
    with client_of(listener) as peer:
        run_until(loop, lambda: streams)
        stream = streams.pop()
        stream.on_data = lambda stream, data: told.append(data)
        stream.on_close = lambda stream, error: told.append(error)
        stream.data = loop
        stream.write(bytes(64 << 20))
        settle(loop)
        gone = weakref.ref(stream), weakref.ref(listener)
        del stream, listener
        with pytest.warns(ResourceWarning, match="unclosed <Loop"):
            del loop
            gc.collect()
        assert [reference() for reference in gone] == [None, None]
        receive_all(peer)
    assert told == []


def test_a_stream_that_is_over_is_freed(loop):
    gone = []

    def begun(stream):
        stream.on_data = lambda data, own=stream: None
        stream.on_close = lambda stream, error, own=stream: None
        gone.append(weakref.ref(stream))

    listener = loop.listen(("127.0.0.1", 0), begun)
    with client_of(listener):
        run_until(loop, lambda: gone)
        assert gone[0]() is not None
    listener.close()
    finish(loop)
    assert gone[0]() is None  # its callbacks were cut, so that no collection is needed


def test_an_open_stream_is_kept_alive(loop):
    heard = []
    with stream_and_peer(loop) as (stream, peer):
        stream.on_data = lambda stream, data: heard.append(data)
        del stream
        gc.collect()
        peer.sendall(b"still here")
        run_until(loop, lambda: heard)
        peer.close()
        finish(loop)


# -- Threads, forks ----------------------------------------------------------------------------------------------------


def test_another_thread_is_refused(loop, both):
    stream, _peer = both
    calls = [
        lambda: stream.write(b"x"),
        lambda: stream.writelines([b"x"]),
        stream.write_eof,
        stream.pause_reading,
        stream.resume_reading,
        stream.close,
        stream.abort,
        lambda: stream.set_write_limits(1),
        lambda: setattr(stream, "on_data", print),
        lambda: setattr(stream, "idle_timeout", 1),
    ]
    refused = []

    def run():
        for call in calls:
            try:
                call()
            except WrongThreadError as error:
                refused.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(refused) == len(calls)
    assert not stream.is_closing()


def test_a_fork_leaves_the_connection_alone(loop, both):
    stream, peer = both
    heard = Heard(stream)
    settle(loop)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            refusals = 0
            for call in (
                lambda: stream.write(b"x"),
                stream.close,
                stream.abort,
                stream.resume_reading,
                stream.write_eof,
            ):
                try:
                    call()
                except RuntimeError as error:
                    refusals += "dead in a forked child" in str(error)
            loop.close()
            gc.collect()
            code = 0 if refusals == 5 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    peer.sendall(b"after the fork")
    run_until(loop, lambda: heard.data == b"after the fork")
    stream.write(b"answer")
    settle(loop)
    assert peer.recv(100) == b"answer"
    assert heard.calls == ["data"]
