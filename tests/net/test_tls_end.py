"""The ends of TLS: farewells, truncation, garbage, resets, timeouts, loops that are closed; at every stage."""

import os
import socket
import ssl
import time
from concurrent.futures import CancelledError

import pytest
from _net import Heard, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, finish, made_loop, run_until
from _tls import VERSIONS, Wire, client_context, narrow, secure_stream, server_context, shaken

SIDES = ("server", "client")


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
    with secure_stream(loop) as (stream, _told, wire):
        ends = []
        stream.on_eof = ends.append
        wire.handshake()
        wire.say_goodbye()
        run_until(loop, lambda: ends)
        stream.abort()
        ends.clear()


def test_data_and_end_wait_for_somebody_who_listens(loop):
    with secure_stream(loop) as (stream, _told, wire):
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
        finish(loop)  # both have said that they send no more: there is nothing left to wait for
        assert heard.calls[-2:] == ["eof", "close"]
        assert heard.errors == [None]


@pytest.mark.parametrize("way", ["goodbye", "cut"])
def test_the_end_comes_in_a_pause_and_nobody_asks_for_data(loop, way):
    with shaken(loop) as (heard, wire):
        heard.stream.pause_reading()
        heard.stream.on_data = None
        settle(loop)
        if way == "goodbye":
            wire.say_goodbye()
        else:
            wire.sock.shutdown(socket.SHUT_WR)
        settle(loop)
        assert heard.calls == []
        heard.stream.resume_reading()
        run_until(loop, lambda: heard.calls)
        assert heard.calls == ["eof" if way == "goodbye" else "close"]
        heard.stream.abort()


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
    with secure_stream(loop) as (stream, _told, wire):
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
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):  # the other end is told
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
        [(_whose, error)] = told
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
    with secure_stream(loop) as (stream, told, _wire):
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
                run_until(loop, lambda heard=heard: heard.data == b"it goes on")
                heard.stream.abort()
                finish(loop)
    assert errors == [ZeroDivisionError, ZeroDivisionError]
