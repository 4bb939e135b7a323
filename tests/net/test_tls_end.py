"""The ends of TLS: farewells, truncation, garbage, resets, timeouts, loops that are closed; at every stage."""

import os
import socket
import ssl
import time
from concurrent.futures import CancelledError

import pytest
from _net import Heard, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, blocks_grown, finish, made_loop, open_fds, run_until, scaled
from _tls import VERSIONS, Wire, client_context, secure_stream, server_context, shaken

SIDES = ("server", "client")


def narrow(stream):
    """Let the kernel take little at a time."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


# --- farewells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", SIDES)
def test_close_sends_what_is_queued_and_says_goodbye(loop, side, version):
    said = os.urandom(3 << 20)
    with shaken(loop, side=side, version=version) as (heard, wire):
        narrow(heard.stream)
        assert heard.stream.write(said) is False
        heard.stream.close()
        assert heard.stream.is_closing()
        assert heard.stream.write(b"dropped") is False
        assert wire.receive_exactly(len(said)) == said
        assert wire.receive() == b""  # without close_notify this were an SSLEOFError
        finish(loop)
        assert heard.calls == ["close"]
        assert heard.errors == [None]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_farewell_of_the_other_end_is_the_end_of_the_data(loop, version):
    with shaken(loop, version=version) as (heard, wire):
        wire.send(b"last words")
        wire.say_goodbye()
        run_until(loop, lambda: "eof" in heard.calls)
        assert heard.calls == ["data", "eof"]
        assert heard.data == b"last words"
        wire.sock.shutdown(socket.SHUT_WR)
        settle(loop)
        assert heard.stream.write(b"and an answer")
        heard.stream.close()
        assert wire.receive() == b"and an answer" or version == "1.2"
        finish(loop)
        assert heard.errors == [None]


def test_without_on_eof_the_stream_is_closed_then(loop):
    with shaken(loop) as (heard, wire):
        heard.stream.on_eof = None
        wire.say_goodbye()
        finish(loop)
        assert heard.calls == ["close"]
        assert heard.errors == [None]


def test_the_end_is_heard_of_also_where_nobody_listens(loop):
    with secure_stream(loop) as (stream, told, wire):
        ends = []
        stream.on_eof = ends.append
        wire.handshake()
        wire.say_goodbye()
        run_until(loop, lambda: ends)
        stream.abort()
        ends.clear()


def test_data_and_end_wait_for_somebody_who_listens(loop):
    with secure_stream(loop) as (stream, told, wire):
        ends = []
        stream.on_eof = ends.append
        wire.handshake()
        wire.send(b"wait")
        settle(loop)
        wire.send(b" for me")
        wire.say_goodbye()
        wire.sock.shutdown(socket.SHUT_WR)
        settle(loop)
        assert not ends
        heard = Heard(stream)
        run_until(loop, lambda: "eof" in heard.calls)
        assert heard.data == b"wait for me"
        stream.close()
        finish(loop)
        assert heard.errors == [None]


def test_the_end_waits_for_the_end_of_a_pause(loop):
    with shaken(loop) as (heard, wire):

        def pausing(stream, data):
            heard.on_data(stream, data)
            stream.pause_reading()

        heard.stream.on_data = pausing
        wire.ssl.write(b"both at once")
        wire.say_goodbye()
        run_until(loop, lambda: heard.calls)
        settle(loop)
        assert heard.calls == ["data"]
        heard.stream.resume_reading()
        run_until(loop, lambda: heard.calls == ["data", "eof"])
        heard.stream.abort()


@pytest.mark.parametrize("behind", [b"", b"unread"])
def test_half_close(loop, behind):
    """From TLS 1.3 on the other end may go on."""
    with shaken(loop) as (heard, wire):
        if behind:
            wire.send(behind)
        heard.stream.write(b"that was all")
        heard.stream.write_eof()
        heard.stream.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            heard.stream.write(b"x")
        assert wire.receive() == b"that was all"
        assert wire.receive() == b""
        wire.pull()  # and that of TCP
        wire.send(b"but here is more")
        run_until(loop, lambda: heard.data == behind + b"but here is more")
        wire.say_goodbye()
        run_until(loop, lambda: "eof" in heard.calls)
        heard.stream.close()
        finish(loop)
        assert heard.errors == [None]


def test_half_close_while_there_is_a_pause(loop):
    """What came before is not lost: ssl cannot say goodbye with data before it."""
    with shaken(loop) as (heard, wire):

        def pausing(stream, data):
            heard.on_data(stream, data)
            stream.pause_reading()
            stream.write_eof()

        heard.stream.on_data = pausing
        wire.send(b"one")
        run_until(loop, lambda: heard.calls)
        wire.send(b"two")
        settle(loop)
        assert wire.receive() == b""
        heard.stream.on_data = heard.on_data
        heard.stream.resume_reading()
        run_until(loop, lambda: heard.data == b"onetwo")
        heard.stream.abort()


def test_half_close_in_the_handshake(loop):
    with secure_stream(loop) as (stream, told, wire):
        heard = Heard(stream)
        stream.write(b"x" * 100000)
        stream.write_eof()
        with pytest.raises(RuntimeError):
            stream.write(b"y")
        wire.handshake()
        assert wire.receive_exactly(100000) == b"x" * 100000
        assert wire.receive() == b""
        stream.close()
        finish(loop)
        assert heard.errors == [None]


# --- truncation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cut", ["between records", "in a record"])
def test_an_end_without_a_farewell_is_an_error(loop, cut, version):
    with shaken(loop, version=version) as (heard, wire):
        wire.ssl.write(b"all is")
        wire.push()
        if cut == "in a record":
            wire.ssl.write(b" well")
            wire.sock.send(wire.outgoing.read()[:-3])
        wire.sock.shutdown(socket.SHUT_WR)
        finish(loop)
        assert heard.calls == ["data", "close"]
        assert heard.data == b"all is"
        [error] = heard.errors
        assert isinstance(error, ssl.SSLEOFError)
        assert isinstance(error, OSError)


@pytest.mark.skipif(not hasattr(ssl, "OP_IGNORE_UNEXPECTED_EOF"), reason="from Python 3.10 on, with OpenSSL 3")
def test_truncation_may_be_ignored(loop):
    context = server_context()
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    with shaken(loop, context=context) as (heard, wire):
        wire.sock.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: heard.calls == ["eof"])
        heard.stream.close()
        finish(loop)
        assert heard.errors == [None]


# --- garbage ----------------------------------------------------------------------------------------------------------

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(100),
    "noise": bytes(range(7, 255)) * 50,
    "a record of another version": b"\x16\x09\x09\x00\x10" + bytes(16),
    "a hello that is none": b"\x16\x03\x01\x00\x10" + bytes(16),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_the_place_of_a_handshake_ends_that_stream_only(loop, kind):
    streams, errors = [], []
    loop.on_error = lambda source, error: errors.append((source, error))
    listener = loop.listen(("127.0.0.1", 0), streams.append, tls=server_context())
    with socket.create_connection(listener.sockname) as good, socket.create_connection(listener.sockname) as bad:
        bad.sendall(GARBAGE[kind])
        run_until(loop, lambda: errors)
        wire = Wire(loop, good)
        wire.handshake()
        run_until(loop, lambda: streams)
        heard = Heard(streams.pop())
        wire.send(b"still here")
        run_until(loop, lambda: heard.data == b"still here")
        assert listener.connections == 1
        heard.stream.abort()
    listener.close()
    finish(loop)
    [(source, error)] = errors
    assert source is listener
    assert isinstance(error, ssl.SSLError)
    errors.clear()


def test_failed_handshakes_are_no_news_by_themselves(loop, caplog):
    caplog.set_level("DEBUG", "linux_event")
    listener = loop.listen(("127.0.0.1", 0), print, tls=server_context())
    with socket.create_connection(listener.sockname) as sock:
        sock.sendall(GARBAGE["http"])
        run_until(loop, lambda: caplog.records)
    listener.close()
    finish(loop)
    [record] = caplog.records
    assert record.levelname == "DEBUG"
    assert "HTTP_REQUEST" in record.message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("paused", [False, True])
def test_garbage_later_on(loop, version, paused):
    with shaken(loop, version=version) as (heard, wire):
        if paused:
            heard.stream.pause_reading()
        wire.send(b"good")
        wire.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        if paused:
            settle(loop)
            assert heard.calls == []
            heard.stream.resume_reading()
        finish(loop)
        assert heard.calls == ["data", "close"]
        assert heard.data == b"good"
        [error] = heard.errors
        assert type(error) is ssl.SSLError
        with pytest.raises(ssl.SSLError, match="(?i)alert"):  # the other end is told
            wire.receive()


def test_garbage_before_and_behind_the_farewell(loop):
    with shaken(loop) as (heard, wire):
        wire.say_goodbye()
        wire.sock.sendall(GARBAGE["noise"])
        run_until(loop, lambda: "eof" in heard.calls)
        wire.sock.sendall(GARBAGE["noise"])
        settle(loop)
        assert heard.calls == ["eof"]
        heard.stream.close()
        finish(loop)
        assert heard.errors == [None]


def test_versions_that_do_not_meet(loop):
    with secure_stream(loop, version="1.3", peer_context=client_context("1.2")) as (stream, told, wire):
        heard = Heard(stream)
        with pytest.raises(ssl.SSLError):
            wire.handshake()
        finish(loop)
        [(whose, error)] = told
        assert isinstance(error, ssl.SSLError)
        assert heard.errors == [error]
        heard.errors.clear()


# --- resets and ends at every stage -------------------------------------------------------------------------------------


def stages(loop, wire):
    """Leads the handshake step by step; yields at each."""
    yield "nothing"
    limit = time.monotonic() + BOUND
    step = 0
    while True:
        assert time.monotonic() < limit
        try:
            wire.ssl.do_handshake()
        except ssl.SSLWantReadError:
            data = wire.outgoing.read()
            if not data:
                loop.run_once(0.001)
                wire.pull()
                continue
            step += 1
            wire.sock.send(data[: len(data) // 2])
            settle(loop)
            yield f"half {step}"
            wire.sock.send(data[len(data) // 2 :])
            settle(loop)
            yield f"whole {step}"
            wire.pull()
        else:
            wire.push()
            settle(loop)
            yield "shaken"
            return


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", ["reset", "end", "close", "abort", "loop"])
def test_an_end_at_each_stage(how, version, side, nothing_left):
    number, last = 0, None
    while last != "shaken":
        with made_loop() as loop, secure_stream(loop, side=side, version=version) as (stream, told, wire):
            heard = Heard(stream)
            for count, stage in enumerate(stages(loop, wire)):
                last = stage
                if count == number:
                    break
            number += 1
            was_done = bool(told)
            if how == "reset":
                reset(wire.sock)
            elif how == "end":
                wire.sock.shutdown(socket.SHUT_WR)
            elif how == "loop":
                loop.close()
            else:
                getattr(stream, how)()
            if how != "loop":
                finish(loop)
            expected = {
                "reset": ConnectionResetError,
                "end": ssl.SSLEOFError,
                "loop": CancelledError,
            }.get(how, type(None))
            [error] = heard.errors
            assert type(error) is expected, (stage, error)
            [(whose, told_error)] = told
            assert whose is stream
            if told_error is None:  # perhaps by what was sent last
                assert was_done or stage.startswith("whole")
            elif error is None:
                assert type(told_error) is CancelledError
            else:
                assert told_error is error
            heard.errors.clear()
            del error, told_error
    assert number > 3


@pytest.mark.parametrize("side", SIDES)
def test_close_in_the_handshake_sends_what_was_written(loop, side):
    with secure_stream(loop, side=side) as (stream, told, wire):
        heard = Heard(stream)
        said = os.urandom(200000)
        assert stream.write(said) is False
        stream.close()
        assert stream.is_closing()
        assert not stream.is_reading()
        assert stream.write(b"dropped") is False
        stream.close()
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.do_handshake()
        wire.push()
        wire.handshake()
        assert wire.receive_exactly(len(said)) == said
        assert wire.receive() == b""
        finish(loop)
        assert heard.calls == ["close"]
        assert heard.errors == [None]
        assert told == [(stream, None)]


def test_abort_drops_what_was_written_in_the_handshake(loop):
    with secure_stream(loop) as (stream, told, wire):
        heard = Heard(stream)
        stream.write(b"dropped")
        assert stream.write_buffer_size == 7
        stream.close()
        stream.abort()
        finish(loop)
        assert heard.errors == [None]
        assert type(told[0][1]) is CancelledError


def test_a_start_tls_without_callback_that_fails(loop):
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(server_context(), server_side=True)
        sock.sendall(GARBAGE["http"])
        finish(loop)
        assert isinstance(heard.errors.pop(), ssl.SSLError)


def test_a_callback_of_start_tls_that_raises(loop):
    errors = []
    loop.on_error = lambda source, error: errors.append(type(error))

    def callback(stream, error):
        raise ZeroDivisionError

    for garbage in (False, True):
        with stream_and_peer(loop) as (stream, sock):
            heard = Heard(stream)
            stream.start_tls(server_context(), callback, server_side=True)
            if garbage:
                sock.sendall(GARBAGE["http"])
                finish(loop)
                assert isinstance(heard.errors.pop(), ssl.SSLError)  # told all the same
            else:
                wire = Wire(loop, sock)
                wire.handshake()
                wire.send(b"it goes on")
                run_until(loop, lambda: heard.data == b"it goes on")
                heard.stream.abort()
                finish(loop)
    assert errors == [ZeroDivisionError, ZeroDivisionError]


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [None, 0.001, 3600])
def test_a_peer_that_stops_in_the_handshake(loop, idle):
    told = []
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(
            server_context(), lambda *got: told.append(got), server_side=True, handshake_timeout=0.03
        )
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
    with stream_and_peer(loop) as (stream, sock):
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
