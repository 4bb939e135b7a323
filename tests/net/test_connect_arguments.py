"""connect_stream: the local address, and arguments that are refused."""

import errno
import socket
import ssl
import threading

import pytest
from _net import Called, connect_failed, run_until_called, talked
from _sockets import listening
from _support import finish

from linux_event import Loop, LoopClosedError, WrongThreadError

LOCAL = "127.0.0.1"


@pytest.fixture
def server():
    with socket.create_server((LOCAL, 0)) as server:
        server.settimeout(60)
        yield server


@pytest.fixture
def refusing():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        yield sock.getsockname()


# -- The local address -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.7", b"127.0.0.7", "localhost", b"localhost", "", None, "127.0.0.1"])
def test_the_local_address(loop, server, host):
    called = Called()
    loop.connect_stream(server.getsockname(), called, local_address=(host, 0))
    run_until_called(loop, called)
    name = host.decode() if type(host) is bytes else host
    assert called.stream.sockname[0] == (name if name and name[0] == "1" else LOCAL)
    assert called.stream.sockname[1]
    assert talked(server, called, loop)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
@pytest.mark.parametrize("host", ["::1", b"::1", "localhost", "", None])
def test_the_local_address_of_ipv6(loop, host, tmp_path):
    with listening("tcp6", tmp_path) as server:
        called = Called()
        loop.connect_stream(server.getsockname(), called, local_address=[host, 0])
        run_until_called(loop, called)
        assert called.stream.sockname[0] == "::1"
        assert talked(server, called, loop)


def test_the_local_port(loop, server, refusing):
    """One that has been used a moment ago can be used again."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        port = sock.getsockname()[1]
    for _ in range(3):
        called = Called()
        loop.connect_stream(server.getsockname(), called, local_address=(LOCAL, port))
        run_until_called(loop, called)
        assert called.stream.sockname == (LOCAL, port)
        assert talked(server, called, loop)
        refused = connect_failed(loop, refusing, local_address=(LOCAL, port))
        assert isinstance(refused, ConnectionRefusedError)


def test_a_local_path(loop, tmp_path):
    with listening("unix", tmp_path) as server:
        called = Called()
        loop.connect_stream(server.getsockname(), called, local_address=str(tmp_path / "mine"))
        run_until_called(loop, called)
        assert called.stream.sockname == str(tmp_path / "mine")
        assert talked(server, called, loop)


def test_a_local_address_that_is_not_of_this_machine(loop, server):
    error = connect_failed(loop, server.getsockname(), local_address=("192.0.2.1", 0))
    assert error.errno == errno.EADDRNOTAVAIL
    assert error.filename == server.getsockname()
    assert "192.0.2.1" in str(error)


@pytest.mark.parametrize(("host", "local"), [(LOCAL, "::1"), ("::1", LOCAL)])
def test_a_local_address_of_another_family(loop, host, local):
    error = connect_failed(loop, (host, 1), local_address=(local, 0))
    assert error.errno == errno.EAFNOSUPPORT
    assert error.filename == (host, 1)
    assert repr(local) in str(error)


# -- Arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "options", "kind", "text"),
    [
        (7, {}, TypeError, r"address must be \(host, port\) or the path of a Unix socket, not 7"),
        ((LOCAL,), {}, TypeError, "address must be"),
        ((LOCAL, 1, 2, 3, 4), {}, TypeError, "address must be"),
        ((7, 1), {}, TypeError, "host must be a str"),
        ((LOCAL, 65536), {}, ValueError, "port must be within"),
        ((LOCAL, -1), {}, ValueError, "port must be within"),
        ((LOCAL, True), {}, TypeError, "port must be an int"),
        ((LOCAL, 1.5), {}, TypeError, "port must be an int"),
        (("a\0b", 1), {}, ValueError, "NUL"),
        ("", {}, ValueError, "the path is empty"),
        ("a\0b", {}, ValueError, "NUL"),
        ("x" * 200, {}, OSError, "too long"),
        ((LOCAL, 1), {"timeout": -1}, ValueError, "timeout must be"),
        ((LOCAL, 1), {"timeout": float("nan")}, ValueError, "timeout must be"),
        ((LOCAL, 1), {"timeout": "1"}, TypeError, "timeout must be"),
        ((LOCAL, 1), {"server_hostname": "x"}, ValueError, "server_hostname is for tls alone"),
        ((LOCAL, 1), {"tls": True}, TypeError, "must be an ssl.SSLContext, not bool"),
        (
            (LOCAL, 1),
            {"tls": ssl.create_default_context(), "server_hostname": b"x"},
            TypeError,
            "must be a str, not bytes",
        ),
        ((None, 1), {"tls": ssl.create_default_context()}, ValueError, "server_hostname must be given"),
        ("/nowhere", {"tls": ssl.create_default_context()}, ValueError, "server_hostname must be given"),
        ((LOCAL, 1), {"local_address": "x"}, TypeError, "local_address must be"),
        ((LOCAL, 1), {"local_address": (7, 1)}, TypeError, "host of local_address must be a str"),
        ((LOCAL, 1), {"local_address": ("example.org", 1)}, ValueError, "host of local_address must be a numeric"),
        ((LOCAL, 1), {"local_address": (LOCAL, 70000)}, ValueError, "port must be within"),
        ((LOCAL, 1), {"local_address": ("", 70000)}, ValueError, "port must be within"),
        ((LOCAL, 1), {"local_address": (LOCAL, 1, 2)}, TypeError, "local_address must be"),
        ((LOCAL, 1), {"local_address": ("::1%nowhere", 1)}, OSError, "nowhere"),
        ("/x", {"local_address": (LOCAL, 1)}, TypeError, "address of an AF_UNIX socket"),
        ("/x", {"callback": 7}, TypeError, "callback must be callable"),
        ("/x", {"callback": print, "on_error": print}, TypeError, "not both forms"),
    ],
)
def test_bad_arguments(loop, address, options, kind, text):
    with pytest.raises(kind, match=text):
        loop.connect_stream(address, **options)
    assert loop.statistics().operations_in_flight == 0
    finish(loop)


def test_in_a_chain(loop, server):
    with loop.link(), pytest.raises(ValueError, match="connect_stream is more than one request"):
        loop.connect_stream(server.getsockname(), print)
    finish(loop)


def test_a_closed_loop_and_another_thread(server):
    with Loop() as loop:
        loop.run_once(0)
        errors = []

        def call():
            try:
                loop.connect_stream(server.getsockname(), print)
            except WrongThreadError as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert len(errors) == 1
    with pytest.raises(LoopClosedError):
        loop.connect_stream(server.getsockname(), print)
