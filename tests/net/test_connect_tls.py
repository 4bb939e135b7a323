"""connect_stream(tls=...): the stream is handed over when the handshake is done, or the reason why it is not."""

import contextlib
import socket
import ssl

import pytest
from _net import Heard, run_until_called
from _support import finish, made_loop, run_until
from _tls import Thread, certificate, client_context, server_context

CLIENT = ("127.0.0.1", 0)


class Called:
    """The callback: keeps what it was told, and listens to the stream."""

    def __init__(self):
        self.calls = []

    def __call__(self, stream, error):
        self.calls.append((stream, error))
        self.heard = Heard(stream) if stream is not None else None

    @property
    def error(self):
        [(stream, error)] = self.calls
        assert stream is None
        return error


@pytest.fixture
def serve(loop):
    """Listens with TLS and says a word to everybody, at once."""
    with contextlib.ExitStack() as stack:

        def serve(context=None, word=b"welcome"):
            def connected(stream):
                stream.on_data = lambda stream, data: stream.write(data)
                stream.write(word)

            listener = loop.listen(CLIENT, connected, tls=context or server_context())
            stack.callback(listener.close)
            return listener.sockname

        yield serve


def ended(loop, called):
    """Closes the stream, and waits for its end."""
    [(stream, error)] = called.calls
    assert error is None
    stream.close()
    run_until(loop, lambda: called.heard.is_over)
    assert called.heard.errors == [None]
    called.calls.clear()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("timeout", [None, 30])
def test_both_sides_talk(loop, serve, version, timeout):
    address = serve(server_context(version))
    called = Called()
    operation = loop.connect_stream(address, called, tls=client_context(version), timeout=timeout)
    run_until_called(loop, called)
    [(stream, error)] = called.calls
    assert error is None
    assert stream.ssl_object.version() == f"TLSv{version}"
    assert operation.result() is stream
    stream.write(b"!" * 100_000)
    run_until(loop, lambda: len(called.heard.data) == 100_007)
    assert called.heard.data == b"welcome" + b"!" * 100_000
    del operation, stream
    ended(loop, called)


def test_the_name_is_that_of_the_address_or_the_one_given(loop, serve):
    address = serve(server_context(cert=certificate("name.test")))
    called = Called()
    loop.connect_stream(address, called, tls=client_context())
    run_until_called(loop, called)
    assert isinstance(called.error, ssl.SSLCertVerificationError)
    assert "127.0.0.1" in str(called.error)
    assert called.error.__notes__ == [f"in the TLS handshake with {address!r}"]
    again = Called()
    loop.connect_stream(address, again, tls=client_context(), server_hostname="name.test")
    run_until_called(loop, again)
    ended(loop, again)


def test_nobody_has_signed_it(loop, serve):
    called = Called()
    loop.connect_stream(serve(), called, tls=ssl.create_default_context(), timeout=30)
    run_until_called(loop, called)
    assert isinstance(called.error, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_the_other_end_does_not_speak_it(loop, answer):
    def connected(stream):
        stream.on_data = lambda stream, data: (stream.write(answer), stream.close())

    with loop.listen(CLIENT, connected) as listener:
        called = Called()
        loop.connect_stream(listener.sockname, called, tls=client_context())
        run_until_called(loop, called)
        assert isinstance(called.error, ssl.SSLError if answer else (ssl.SSLError, ConnectionResetError))


@pytest.fixture
def mute():
    """Accepts, by the kernel, and says nothing."""
    with socket.create_server(CLIENT) as server:
        yield server


def test_a_timeout_covers_the_handshake(loop, mute):
    called = Called()
    loop.connect_stream(mute.getsockname(), called, tls=client_context(), timeout=0.05)
    run_until_called(loop, called)
    assert isinstance(called.error, TimeoutError)
    finish(loop)


def test_cancel_in_the_handshake(loop):
    with socket.create_server(CLIENT) as server:
        called = Called()
        operation = loop.connect_stream(server.getsockname(), called, tls=client_context())
        accepting = Thread(server.accept)
        peer, _ = accepting.wait(loop)
        accepting.result = None
        with peer:
            hello = Thread(lambda: peer.recv(1 << 16))
            assert hello.wait(loop)[:1] == b"\x16"
            assert operation.cancel()
            run_until_called(loop, called)
            assert type(called.error).__name__ == "CancelledError"
            gone = Thread(lambda: peer.recv(1))
            with contextlib.suppress(ConnectionResetError):
                assert gone.wait(loop) == b""
        finish(loop)


def test_the_loop_is_closed_in_the_handshake():
    with made_loop() as loop, socket.create_server(CLIENT) as server:
        called = Called()
        loop.connect_stream(server.getsockname(), called, tls=client_context())
        accepting = Thread(server.accept)
        peer, _ = accepting.wait(loop)
        accepting.result = None
        with peer:
            assert Thread(lambda: peer.recv(1 << 16)).wait(loop)[:1] == b"\x16"
            loop.close()
            assert type(called.error).__name__ == "CancelledError"


def test_a_callback_that_raises(loop, serve):
    told = []
    loop.on_error = lambda source, error: told.append(error)

    def raises(stream, error):
        raise ValueError("on purpose")

    loop.connect_stream(serve(), raises, tls=client_context())
    run_until(loop, lambda: told)
    assert [type(error) for error in told] == [ValueError]
