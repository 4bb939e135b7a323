"""TLS: servers and clients, what a context says, certificates, and bytes that arrive as they were sent."""

import datetime
import os
import socket
import ssl

import pytest
from _net import Heard, settle, stream_and_peer
from _support import finish, run_until, scaled
from _tls import (
    VERSIONS,
    Thread,
    Wire,
    authority,
    certificate,
    client_context,
    exchange,
    secure_client,
    secure_stream,
    server_context,
    shaken,
)

SIZES = (1, 64, 4096, 4097, 16384, 16385, 100000, 1 << 20)


def echo(stream):
    stream.on_data = lambda stream, data: stream.write(data)


# --- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_server_echoes(loop, family, version, tmp_path):
    address = ("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "listening")
    facts = []

    def on_connect(stream):
        facts.append((stream.ssl_object.version(), stream.ssl_object.server_side))
        echo(stream)

    listener = loop.listen(address, on_connect, tls=server_context())

    def client():
        with secure_client(listener.sockname, client_context(version)) as sock:
            for size in SIZES:
                said = os.urandom(size)
                assert exchange(sock, said, size) == said

    Thread(client).wait(loop)
    listener.close()
    finish(loop)
    assert facts == [(f"TLSv{version}", True)]


def test_on_connect_is_called_when_the_handshake_is_done(loop):
    streams = []
    listener = loop.listen(("127.0.0.1", 0), streams.append, tls=server_context())
    with socket.create_connection(listener.sockname) as sock:
        wire = Wire(loop, sock)
        settle(loop)
        assert listener.connections == 1
        assert not streams
        wire.handshake()
        run_until(loop, lambda: streams)
        wire.send(b"before anybody listens")
        settle(loop)
        heard = Heard(streams[0])
        run_until(loop, lambda: heard.data == b"before anybody listens")
        assert streams[0].ssl_object.cipher()
        streams[0].close()
        listener.close()
        finish(loop)
        assert heard.errors == [None]
        assert streams.pop().ssl_object is None


def test_an_on_connect_that_raises_ends_the_stream(loop):
    errors = []
    loop.on_error = lambda source, error: errors.append(type(error))

    def on_connect(stream):
        raise ZeroDivisionError

    listener = loop.listen(("127.0.0.1", 0), on_connect, tls=server_context())
    with socket.create_connection(listener.sockname) as sock:
        Wire(loop, sock).handshake()
        run_until(loop, lambda: errors)
        listener.close()
        finish(loop)
    assert errors == [ZeroDivisionError]


@pytest.mark.parametrize("version", VERSIONS)
def test_alpn_and_the_name_of_the_server(loop, version):
    names = []
    context = server_context(version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda ssl_object, name, context: names.append(name)
    peer_context = client_context(version)
    peer_context.set_alpn_protocols(["http/1.1"])
    with shaken(loop, context=context, peer_context=peer_context) as (heard, wire):
        assert names == ["localhost"]
        assert heard.stream.ssl_object.selected_alpn_protocol() == "http/1.1"
        assert wire.ssl.selected_alpn_protocol() == "http/1.1"
        heard.stream.abort()
    context.sni_callback = None


def test_a_server_that_chooses_its_certificate_by_name(loop):
    other = server_context(cert=certificate("other.example"))
    context = server_context()

    def choose(ssl_object, name, context):
        if name == "other.example":
            ssl_object.context = other

    context.sni_callback = choose
    with secure_stream(loop, context=context) as (stream, _, wire):
        wire = Wire(loop, wire.sock, hostname="other.example")
        wire.handshake()
        assert ("DNS", "other.example") in wire.ssl.getpeercert()["subjectAltName"]
        stream.abort()
    context.sni_callback = None


# --- certificates ---------------------------------------------------------------------------------------------------


def demanding():
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority().cert_pem.bytes().decode())
    return context


def test_a_client_with_a_certificate(loop):
    peer_context = client_context()
    certificate("client.example").configure_cert(peer_context)
    with shaken(loop, context=demanding(), peer_context=peer_context) as (heard, wire):
        assert ("DNS", "client.example") in heard.stream.ssl_object.getpeercert()["subjectAltName"]
        wire.send(b"x")
        run_until(loop, lambda: heard.data == b"x")
        heard.stream.abort()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_the_certificate_that_is_demanded(loop, version):
    errors = []
    loop.on_error = lambda source, error: errors.append((source, error))
    listener = loop.listen(("127.0.0.1", 0), lambda stream: pytest.fail("connected"), tls=demanding())
    with socket.create_connection(listener.sockname) as sock:
        wire = Wire(loop, sock, client_context(version))
        with pytest.raises(ssl.SSLError):
            wire.handshake()
            wire.receive()  # TLS 1.3 lets the client believe that all is well
        run_until(loop, lambda: errors)
    [(source, error)] = errors
    assert source is listener
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert error.__notes__[0].startswith("in the TLS handshake with ('127.0.0.1', ")
    listener.close()
    finish(loop)
    errors.clear()


def expired():
    return certificate("localhost", not_after=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC))


def unknown():
    import trustme

    return trustme.CA().issue_cert("localhost")


BAD = {
    "expired": (expired, 10),
    "unknown": (unknown, 20),
    "other name": (lambda: certificate("elsewhere.example"), 62),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_certificate_that_is_not_believed(loop, kind):
    make, code = BAD[kind]
    with secure_stream(loop, side="client", peer_context=server_context(cert=make())) as (stream, told, wire):
        heard = Heard(stream)
        stream.write(b"never sent")
        with pytest.raises(ssl.SSLError) as caught:
            wire.handshake()
            wire.receive()
        assert "ALERT" in caught.value.reason
        finish(loop)
        [(whose, error)] = told
        assert whose is stream
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert error.verify_code == code
        assert heard.errors == [error]
        assert heard.calls == ["close"]
        del error
        heard.errors.clear()


def test_no_verification_where_none_is_wanted(loop):
    context = client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with shaken(loop, side="client", context=context, peer_context=server_context(cert=expired())) as (heard, wire):
        heard.stream.write(b"sent")
        assert wire.receive() == b"sent"
        heard.stream.abort()


# --- start_tls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("version", VERSIONS)
def test_start_tls_on_a_live_stream(loop, side, version):
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        sock.sendall(b"STARTTLS\n")
        run_until(loop, lambda: heard.data)
        told = []
        big = bytes(range(256)) * 1000
        stream.write(b"go ahead\n" + big)  # goes out first, as it is
        stream.write(b"more\n")
        if side == "server":
            stream.start_tls(server_context(version), lambda *got: told.append(got), server_side=True)
        else:
            context = client_context(version)
            stream.start_tls(context, lambda *got: told.append(got), server_hostname="localhost")
        assert not told
        stream.write(b"written in the handshake")
        expected = b"go ahead\n" + big + b"more\n"
        got = bytearray()
        sock.setblocking(False)
        while len(got) < len(expected):
            loop.run_once(0.001)
            try:
                got += sock.recv(len(expected) - len(got))
            except BlockingIOError:
                continue
        assert got == expected
        context = client_context(version) if side == "server" else server_context(version)
        wire = Wire(loop, sock, context, server_side=side == "client")
        wire.handshake()
        assert wire.receive() == b"written in the handshake"
        assert told == [(stream, None)]
        wire.send(b"thanks")
        run_until(loop, lambda: heard.data == b"STARTTLS\nthanks")
        stream.close()
        finish(loop)
        assert heard.calls == ["data", "data", "close"]
        assert heard.errors == [None]
        told.clear()


def test_what_has_come_already_belongs_to_tls(loop):
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.pause_reading()
        wire = Wire(loop, sock)
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.do_handshake()
        wire.push()
        settle(loop)
        stream.start_tls(server_context(), server_side=True)  # the pause is no hindrance
        wire.handshake()
        wire.send(b"hidden")
        settle(loop)
        assert not heard.calls
        stream.resume_reading()
        run_until(loop, lambda: heard.data == b"hidden")
        stream.abort()


def test_what_was_handed_over_already_is_given_back(loop):
    """A port for both: the first bytes tell."""
    heard = []

    def on_data(stream, data):
        assert data[:1] == b"\x16"
        stream.start_tls(server_context(), server_side=True, initial_data=data)
        heard.append(Heard(stream))

    def begun(stream):
        stream.on_data = on_data

    with stream_and_peer(loop, begun=begun) as (stream, sock):
        wire = Wire(loop, sock)
        wire.handshake()
        wire.send(b"hello")
        run_until(loop, lambda: heard and heard[0].data == b"hello")
        stream.abort()


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
REFUSED = [
    (TypeError, (None,), {}),
    (TypeError, ("context",), {}),
    (TypeError, (CONTEXT, 1), {}),
    (ValueError, (CONTEXT,), {}),  # no name to check
    (ValueError, (CONTEXT,), {"server_hostname": ""}),
    (TypeError, (CONTEXT,), {"server_hostname": 1}),
    (TypeError, (CONTEXT,), {"server_side": 1}),
    (ssl.SSLError, (CONTEXT,), {"server_side": True}),
    (TypeError, (CONTEXT,), {"initial_data": bytearray(b"x")}),
    (ValueError, (CONTEXT,), {"handshake_timeout": 0}),
    (ValueError, (CONTEXT,), {"handshake_timeout": -1}),
    (ValueError, (CONTEXT,), {"handshake_timeout": float("nan")}),
    (TypeError, (CONTEXT,), {"handshake_timeout": "x"}),
]


@pytest.mark.parametrize(("kind", "args", "keywords"), REFUSED)
def test_what_start_tls_refuses(loop, kind, args, keywords):
    with stream_and_peer(loop) as (stream, sock):
        with pytest.raises(kind):
            stream.start_tls(*args, **keywords)
        assert stream.ssl_object is None
        heard = Heard(stream)  # and it goes on
        sock.sendall(b"plain")
        run_until(loop, lambda: heard.data == b"plain")
        stream.abort()


def test_start_tls_at_the_wrong_time(loop):
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        stream.start_tls(server_context(), server_side=True)
        with pytest.raises(RuntimeError, match="called already"):
            stream.start_tls(server_context(), server_side=True)
        stream.abort()
        with pytest.raises(RuntimeError):
            stream.start_tls(server_context(), server_side=True)
        finish(loop)
        with pytest.raises(RuntimeError):
            stream.start_tls(server_context(), server_side=True)
        assert heard.errors == [None]
    with stream_and_peer(loop) as (stream, sock):
        heard = Heard(stream)
        sock.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: "eof" in heard.calls)
        with pytest.raises(RuntimeError, match="both directions"):
            stream.start_tls(server_context(), server_side=True)
        stream.abort()


@pytest.mark.parametrize(
    ("kind", "keywords"),
    [
        (TypeError, {"tls": True}),
        (ssl.SSLError, {"tls": CONTEXT}),
        (ValueError, {"handshake_timeout": 0}),
        (TypeError, {"handshake_timeout": "1"}),
    ],
)
def test_what_listen_refuses(loop, kind, keywords):
    with pytest.raises(kind):
        loop.listen(("127.0.0.1", 0), print, **keywords)


# --- much -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_tens_of_mebibytes_in_both_directions_at_once(loop, version):
    size = scaled(32 << 20, 1 << 20)
    there, back = os.urandom(size), os.urandom(size)
    heard, left = [], [memoryview(back)]

    def feed(stream):
        while left[0]:
            piece, left[0] = left[0][:50000], left[0][50000:]
            if not stream.write(piece):
                return

    def on_connect(stream):
        heard.append(Heard(stream))
        stream.on_drain = feed
        feed(stream)

    listener = loop.listen(("127.0.0.1", 0), on_connect, tls=server_context(version))

    def client():
        with secure_client(listener.sockname) as sock:
            assert exchange(sock, there, size) == back
            sock.unwrap()  # and the other end answers

    peer = Thread(client)
    run_until(loop, lambda: heard and "eof" in heard[0].calls)
    assert heard[0].data == there
    heard[0].stream.close()
    peer.wait(loop)
    listener.close()
    finish(loop)
    assert heard[0].errors == [None]
