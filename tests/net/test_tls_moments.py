"""TLS when something does not come, and when things happen at the worst moment: timeouts, callbacks, loops that are closed."""

import os
import socket
import ssl
from concurrent.futures import CancelledError

import pytest
from _net import Heard, settle, stream_and_peer
from _support import BOUND, blocks_grown, finish, made_loop, open_fds, run_until, scaled
from _tls import Wire, client_context, narrow, server_context, shaken

# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [None, 0.001, 3600])
def test_a_peer_that_stops_in_the_handshake(loop, idle):
    told = []
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(server_context(), lambda *got: told.append(got), server_side=True, handshake_timeout=0.03)
        stream.idle_timeout = idle
        wire = Wire(loop, sock)
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.do_handshake()
        sock.send(wire.outgoing.read()[:50])
        finish(loop)
        [error] = heard.errors
        assert type(error) is TimeoutError
        assert ("TLS handshake" in str(error)) is (idle != 0.001)
        assert told == [(stream, error)]
        heard.errors.clear()
        told.clear()


def test_a_listener_and_peers_that_stop_in_the_handshake(loop):
    errors = []
    loop.on_error = lambda source, error: errors.append(type(error))
    listener = loop.listen(("127.0.0.1", 0), print, tls=server_context(), handshake_timeout=0.02)
    with socket.create_connection(listener.sockname), socket.create_connection(listener.sockname):
        run_until(loop, lambda: len(errors) == 2)
        assert listener.connections == 0
    assert errors == [TimeoutError, TimeoutError]
    listener.close()
    finish(loop)


def test_a_handshake_that_is_done_does_not_time_out(loop):
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.idle_timeout = 3600
        stream.start_tls(server_context(), server_side=True, handshake_timeout=BOUND)
        assert loop.statistics().timers == 1
        wire = Wire(loop, sock)
        wire.handshake()
        stream.idle_timeout = None
        assert loop.statistics().timers == 0
        stream.idle_timeout = 0.01
        finish(loop)
        assert type(heard.errors.pop()) is TimeoutError
        assert stream.idle_timeout == 0.01


def test_a_handshake_without_a_limit(loop):
    with stream_and_peer(loop) as (stream, _sock):
        stream.start_tls(server_context(), server_side=True, handshake_timeout=None)
        assert loop.statistics().timers == 0
        stream.abort()


# --- the worst moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["close", "abort", "write and close", "raise"])
@pytest.mark.parametrize("where", ["handshake", "data", "eof", "drain"])
def test_callbacks_at_the_worst_moment(loop, act, where):
    failures = []
    loop.on_error = lambda source, error: failures.append(type(error))

    def strike(stream):
        if act == "write and close":
            stream.write(b"w" * 20000)
            stream.write(b"w")
        if act == "raise":
            stream.write(b"w")
            raise ZeroDivisionError
        stream.abort() if act == "abort" else stream.close()

    def secured(stream, error):
        if where == "handshake" and error is None:
            strike(stream)

    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(server_context(), secured, server_side=True)
        if where == "data":
            stream.on_data = lambda stream, data: strike(stream)
        elif where == "eof":
            stream.on_eof = strike
        elif where == "drain":
            stream.on_drain = strike
        wire = Wire(loop, sock)
        wire.handshake()
        expected = b""
        if where == "drain":
            expected = b"d" * (1 << 20)
            narrow(stream)
            run_until(loop, lambda: stream.ssl_object.version())
            settle(loop)
            assert stream.write(expected) is False
        if where != "handshake":
            wire.ssl.write(b"one")
            wire.ssl.write(b"two")
            wire.say_goodbye()
        if act == "abort":
            with pytest.raises(OSError):  # SSLEOFError, or a reset
                while wire.receive():
                    pass
        else:
            if act == "raise":
                expected += b"w"
            if act == "write and close":
                expected += b"w" * 20001
            assert wire.receive_exactly(len(expected)) == expected if expected else True
            if act == "raise":
                stream.close()
            assert wire.receive() == b""
        if act == "raise":
            stream.abort()
        finish(loop)
        assert heard.errors == [None]
        assert failures == ([ZeroDivisionError] if act == "raise" else [])


def test_a_loop_that_is_closed_under_traffic(nothing_left):
    with made_loop() as loop, shaken(loop) as (heard, wire):
        narrow(heard.stream)
        heard.stream.on_data = lambda stream, data: stream.write(data * 3)
        for _ in range(10):
            wire.ssl.write(os.urandom(50000))
        wire.push()
        settle(loop)
        assert heard.stream.write_buffer_size
        loop.close()
        assert type(heard.errors.pop()) is CancelledError


def test_a_loop_that_is_dropped_with_its_streams(nothing_left):
    import gc

    from linux_event import Loop

    loop = Loop()
    with socket.socket() as sock:
        listener = loop.listen(("127.0.0.1", 0), print, tls=server_context())
        sock.connect(listener.sockname)
        while not listener.connections:
            loop.run_once(0.01)
        with pytest.warns(ResourceWarning):
            del loop, listener
            gc.collect()


def test_connections_that_come_and_go(loop):
    listener = loop.listen(("127.0.0.1", 0), None, tls=server_context())(
        lambda stream: setattr(stream, "on_data", lambda stream, data: stream.write(data))
    )
    contexts = client_context("1.2"), client_context("1.3")
    count = scaled(100, 5)

    def round():
        for number in range(count):
            with socket.create_connection(listener.sockname) as sock:
                wire = Wire(loop, sock, contexts[number % 2])
                if number % 10 == 7:
                    sock.send(b"garbage garbage")
                    continue
                wire.handshake()
                wire.send(b"hello")
                assert wire.receive() == b"hello"
                if number % 3:
                    wire.say_goodbye()
        run_until(loop, lambda: not listener.connections)

    round()
    before = open_fds()
    assert blocks_grown(round, rounds=3) < 100
    assert open_fds() == before
    listener.close()
    finish(loop)
