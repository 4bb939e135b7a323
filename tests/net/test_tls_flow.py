"""TLS and time: bytes one by one, pauses, backpressure, what is sent together, new keys, and another implementation's client."""

import os
import re
import shutil
import ssl
import subprocess

import pytest
from _net import Heard, settle
from _support import finish, run_until, scaled
from _tls import VERSIONS, authority, narrow, secure_stream, server_context, shaken


def records(data):
    """The types and lengths of the records in some bytes."""
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        found.append((data[at], length))
        at += 5 + length
    assert at == len(data)
    return found


# --- little by little -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_byte_at_a_time(loop, side, version):
    with secure_stream(loop, side=side, version=version) as (stream, told, wire):
        heard = Heard(stream)
        wire.portion = 1
        wire.handshake()
        said = os.urandom(300)
        for at in range(0, 300, 50):
            wire.send(said[at : at + 50])
        run_until(loop, lambda: len(heard.data) == 300)
        assert heard.data == said
        wire.say_goodbye()
        run_until(loop, lambda: "eof" in heard.calls)
        stream.close()
        finish(loop)
        assert heard.errors == [None]
        told.clear()


def test_many_small_records_make_few_calls(loop):
    with shaken(loop) as (heard, wire):
        said = [b"%d " % number for number in range(3000)]
        for piece in said:
            wire.ssl.write(piece)
        wire.push()
        expected = b"".join(said)
        run_until(loop, lambda: len(heard.data) == len(expected))
        assert heard.data == expected
        assert len(heard.calls) < 100
        heard.stream.abort()


def test_big_writes_arrive_in_pieces_as_they_come(loop):
    said = os.urandom(scaled(8 << 20, 1 << 20))
    with shaken(loop) as (heard, wire):
        for at in range(0, len(said), 1 << 19):
            wire.ssl.write(said[at : at + (1 << 19)])
        wire.push()
        run_until(loop, lambda: sum(map(len, heard.pieces)) == len(said))
        assert heard.data == said
        heard.stream.abort()


# --- pauses -----------------------------------------------------------------------------------------------------------


def test_a_pause_after_each_piece(loop):
    said = os.urandom(scaled(2 << 20, 1 << 18))
    with shaken(loop) as (heard, wire):

        def pausing(stream, data):
            heard.on_data(stream, data)
            stream.pause_reading()
            loop.defer(stream.resume_reading)

        heard.stream.on_data = pausing
        for at in range(0, len(said), 60000):
            wire.send(said[at : at + 60000])
        wire.say_goodbye()
        run_until(loop, lambda: "eof" in heard.calls)
        assert heard.data == said
        heard.stream.abort()


def test_a_pause_stops_the_other_end(loop):
    with shaken(loop) as (heard, wire):
        heard.stream.pause_reading()
        assert not heard.stream.is_reading()
        sent = 0
        for _ in range(3000):
            wire.ssl.write(bytes(16384))
            data = wire.outgoing.read()
            try:
                count = wire.sock.send(data)
            except BlockingIOError:
                break
            loop.run_once(0)
            sent += count
            if count < len(data):
                break
        else:
            pytest.fail("everything was taken")
        assert not heard.calls
        heard.stream.abort()


def test_a_stream_without_on_data_keeps_what_comes(loop):
    with secure_stream(loop) as (stream, told, wire):
        wire.handshake()
        for number in range(5):
            wire.send(b"%d" % number)
            settle(loop)
        heard = Heard(stream)
        run_until(loop, lambda: heard.data == b"01234")
        stream.on_data = None
        wire.send(b"5")
        settle(loop)
        stream.on_data = heard.on_data
        run_until(loop, lambda: heard.data == b"012345")
        stream.abort()
        told.clear()


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_in_an_iteration_is_one_record(loop):
    with shaken(loop) as (heard, wire):
        settle(loop)
        wire.pull()
        wire.incoming.read()
        for number in range(100):
            assert heard.stream.write(b"%02d" % number)
        assert heard.stream.write_buffer_size == 200
        settle(loop)
        [(kind, length)] = records(wire.sock.recv(1 << 16))
        assert kind == 23
        assert 200 < length < 250
        heard.stream.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        settle(loop)
        assert len(records(wire.sock.recv(1 << 16))) == 1
        heard.stream.abort()


def test_what_is_written_within_on_data_is_one_record(loop):
    with shaken(loop) as (heard, wire):
        heard.stream.on_data = lambda stream, data: [stream.write(bytes([byte])) for byte in data]
        wire.send(b"a" * 100)
        run_until(loop, lambda: heard.stream.write_buffer_size == 0)
        assert wire.receive() == b"a" * 100
        heard.stream.abort()


@pytest.mark.parametrize("when", ["before", "after"])
def test_buffers_of_every_kind(loop, when):
    import array

    small, big = os.urandom(100), os.urandom(300000)
    kinds = [small, bytearray(small), memoryview(small), array.array("I", small), big, bytearray(big)]
    kinds += [memoryview(big)[: 1 << 15], array.array("I", big), b"", bytearray(b"small again"), b"end"]
    expected = b"".join(bytes(kind) for kind in kinds)
    with secure_stream(loop) as (stream, told, wire):
        if when == "after":
            wire.handshake()
            run_until(loop, lambda: told)
        for kind in kinds:
            stream.write(kind)
            if type(kind) is bytearray and len(kind) < 4096:
                kind[:] = bytes(len(kind))  # small ones are copied
        stream.close()
        wire.handshake()
        assert wire.receive_exactly(len(expected)) == expected
        assert wire.receive() == b""
        finish(loop)
        told.clear()


def test_a_write_of_what_is_no_buffer(loop):
    with shaken(loop) as (heard, wire):
        for bad in ("text", None, 1):
            with pytest.raises(TypeError):
                heard.stream.write(bad)
        with pytest.raises(BufferError):
            heard.stream.write(memoryview(b"abcdef")[::2])
        heard.stream.write(b"good")
        assert wire.receive() == b"good"
        heard.stream.abort()


def test_backpressure(loop):
    with shaken(loop) as (heard, wire):
        stream = heard.stream
        narrow(stream)
        stream.set_write_limits(100000, 10000)
        said, count = os.urandom(50000), 0
        while stream.write(said):
            count += 1
            assert count < 1000
        assert stream.write_buffer_size > 100000
        assert "drain" not in heard.calls
        got = wire.receive_exactly((count + 1) * len(said))
        assert got == said * (count + 1)
        run_until(loop, lambda: "drain" in heard.calls)
        assert heard.calls.count("drain") == 1
        assert stream.write_buffer_size <= 10000
        stream.abort()


def test_backpressure_in_the_handshake(loop):
    with secure_stream(loop) as (stream, told, wire):
        heard = Heard(stream)
        assert stream.write(b"x" * 60000)
        assert not stream.write(b"y" * 60000)
        settle(loop)
        assert heard.calls == []
        assert stream.write_buffer_size == 120000
        stream.set_write_limits(1, 0)
        settle(loop)
        assert heard.calls == []
        wire.handshake()
        assert wire.receive_exactly(120000) == b"x" * 60000 + b"y" * 60000
        run_until(loop, lambda: "drain" in heard.calls)
        stream.abort()
        told.clear()


def test_writes_to_a_connection_that_is_gone(loop):
    from _sockets import reset

    with shaken(loop) as (heard, wire):
        heard.stream.pause_reading()
        reset(wire.sock)
        for _ in range(100):
            heard.stream.write(b"x" * 20000)
            loop.run_once(0)
        finish(loop)
        [error] = heard.errors
        assert isinstance(error, ConnectionResetError | BrokenPipeError)
        assert heard.stream.write(b"x") is False
        assert heard.stream.write_buffer_size == 0


# --- openssl ------------------------------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class OpenSSL:
    """`openssl s_client`, connected to a listener that echoes."""

    def __init__(self, loop, tmp_path, *options, context=None):
        self.loop = loop
        self.heard = []
        (tmp_path / "ca.pem").write_bytes(authority().cert_pem.bytes())
        self.listener = loop.listen(("127.0.0.1", 0), self.on_connect, tls=context or server_context())
        address = "{}:{}".format(*self.listener.sockname)
        command = [
            "openssl",
            "s_client",
            "-connect",
            address,
            "-servername",
            "localhost",
            "-CAfile",
            tmp_path / "ca.pem",
        ]
        command += ["-verify_return_error", *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = b""
        loop.io(self.process.stdout, "r", self.on_output)

    def on_connect(self, stream):
        heard = Heard(stream, eof=False)
        self.heard.append(heard)

        def on_data(stream, data):
            heard.on_data(stream, data)
            stream.write(data.upper())

        stream.on_data = on_data

    def on_output(self, watcher, events):
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        if not data:
            watcher.destroy()

    def say(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait_for(self, pattern):
        run_until(self.loop, lambda: re.search(pattern, self.output))

    def end(self):
        self.process.stdin.close()
        run_until(self.loop, lambda: self.process.poll() is not None)
        self.listener.close()
        for heard in self.heard:
            heard.stream.abort()
        finish(self.loop)
        self.process.stdout.close()
        self.heard.clear()


@needs_openssl
@pytest.mark.parametrize("key", ["k", "K"])
def test_new_keys(loop, tmp_path, key):
    """TLS 1.3: K asks for new keys in both directions."""
    client = OpenSSL(loop, tmp_path, "-tls1_3", "-brief")
    client.say(b"before\n")
    client.wait_for(b"BEFORE")
    client.say(key.encode() + b"\n")
    client.wait_for(b"KEYUPDATE")
    client.say(b"after\n")
    client.wait_for(b"AFTER")
    assert client.heard[0].data == b"before\nafter\n"
    client.end()


@needs_openssl
@pytest.mark.parametrize("allowed", [True, False])
def test_renegotiation(loop, tmp_path, allowed):
    """TLS 1.2, by the client, where the context allows it."""
    context = server_context("1.2")
    if allowed:
        context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION, of which ssl knows nothing
    client = OpenSSL(loop, tmp_path, "-tls1_2", context=context)
    client.say(b"before\n")
    client.wait_for(b"BEFORE")
    [heard] = client.heard
    client.say(b"R\n")
    client.wait_for(b"RENEGOTIATING")
    if allowed:
        client.say(b"after\n")
        client.wait_for(b"AFTER")
        assert heard.data == b"before\nafter\n"
    else:
        run_until(loop, lambda: client.process.poll() is not None or heard.is_over)
    client.end()


@needs_openssl
def test_openssl_sees_the_certificate_and_the_protocol(loop, tmp_path):
    context = server_context()
    context.set_alpn_protocols(["h2"])
    client = OpenSSL(loop, tmp_path, "-alpn", "h2", context=context)
    client.wait_for(b"Verify return code: 0 \\(ok\\)")
    client.wait_for(b"ALPN protocol: h2")
    assert client.heard[0].stream.ssl_object.selected_alpn_protocol() == "h2"
    client.heard[0].stream.close()
    client.wait_for(b"closed")
    client.end()


def test_a_context_with_a_class_of_its_own(loop):
    class Counting(ssl.SSLObject):
        reads = 0

        def read(self, *args):
            type(self).reads += 1
            return super().read(*args)

    context = server_context()
    context.sslobject_class = Counting
    with shaken(loop, context=context) as (heard, wire):
        wire.send(b"hello")
        run_until(loop, lambda: heard.data == b"hello")
        assert type(heard.stream.ssl_object) is Counting
        heard.stream.abort()
    assert Counting.reads


@pytest.mark.parametrize("nonsense", [-1, 1 << 40, None])
def test_a_class_of_its_own_that_talks_nonsense(loop, nonsense):
    class Wild(ssl.SSLObject):
        def read(self, *args):
            return nonsense

    context = server_context()
    context.sslobject_class = Wild
    with shaken(loop, context=context) as (heard, wire):
        wire.send(b"hello")
        finish(loop)
        assert isinstance(heard.errors.pop(), ValueError | TypeError)


@pytest.mark.parametrize("then", ["go on", "close", "write_eof", "pause", "break"])
def test_writes_that_have_to_wait_for_the_other_end(loop, then):
    """As in the middle of a renegotiation."""

    class Stubborn(ssl.SSLObject):
        left = 2

        def write(self, data):
            if len(data) > 100000 // 2 and Stubborn.left:
                Stubborn.left -= 1
                raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "not now")
            if then == "break":
                raise ssl.SSLError(1, "broken")
            return super().write(data)

    context = server_context()
    context.sslobject_class = Stubborn
    with shaken(loop, context=context) as (heard, wire):
        stream = heard.stream
        said = os.urandom(100000)
        stream.write(b"one")
        stream.write(said)
        stream.write(b"two")
        if then == "pause":
            stream.pause_reading()
        if then == "close":
            stream.close()
            assert stream.write(b"dropped") is False
        elif then == "write_eof":
            stream.write_eof()
        settle(loop)
        if then == "break":
            finish(loop)
            assert isinstance(heard.errors.pop(), ssl.SSLError)
            return
        assert not heard.errors
        assert stream.write_buffer_size == len(said) + 3
        for number in range(3):
            wire.send(b"%d" % number)
            settle(loop)
        assert wire.receive_exactly(len(said) + 6) == b"one" + said + b"two"
        if then in ("close", "write_eof"):
            assert wire.receive() == b""
        if then == "pause":
            assert "data" not in heard.calls
            stream.resume_reading()
        if then == "close":
            finish(loop)
            assert heard.calls == ["close"]
        else:
            run_until(loop, lambda: heard.data == b"012")
        stream.abort()


def test_lost_bytes_when_closing_at_once(loop):
    """The session tickets of TLS 1.3 come after the handshake: closing with them unread must not take back what was sent."""
    said = os.urandom(1 << 20)
    for _ in range(scaled(10, 2)):
        with secure_stream(loop, side="client") as (stream, told, wire):
            narrow(stream)
            stream.write(said)
            stream.close()
            wire.handshake()
            assert wire.receive_exactly(len(said)) == said
            assert wire.receive() == b""
            finish(loop)
            told.clear()
