"""What can be listened on: hosts, paths, sockets that are given; and what cannot."""

import errno
import os
import pathlib
import socket
import stat

import pytest
from _net import FAMILIES, Server, client_of, echoes, receive_all, settle
from _support import finish, run_until, unused_fd

from linux_event import Listener


@pytest.fixture
def server(loop):
    server = Server()
    yield server
    if not loop.is_closed():
        server.end(loop)


# -- Addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", b"localhost", b"127.0.0.1"])
def test_ipv4(loop, server, host):
    with loop.listen((host, 0), server) as listener:
        name, port = listener.sockname
        assert name == (host if isinstance(host, str) else host.decode()).replace("localhost", "127.0.0.1")
        assert port > 0
        assert echoes(loop, server, listener)
        assert re_match(listener)
    assert listener.is_closed()


def re_match(listener):
    return repr(listener) == f"<Listener {listener.sockname!r} connections={listener.connections} open>"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
@pytest.mark.parametrize("host", ["", None, b""])
def test_all_addresses_of_both_families(loop, server, host):
    with loop.listen((host, 0), server) as listener:
        port = listener.sockname[1]
        names = []
        listener.on_connect = lambda stream: (names.append(stream.peername[0]), server(stream))
        assert echoes(loop, server, listener, socket.AF_INET, ("127.0.0.1", port))
        assert echoes(loop, server, listener, socket.AF_INET6, ("::1", port))
        assert names == ["::ffff:127.0.0.1", "::1"]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6_alone(loop, server):
    with loop.listen(("::", 0), server) as six:
        port = six.sockname[1]
        assert echoes(loop, server, six, socket.AF_INET6, ("::1", port))
        with loop.listen(("0.0.0.0", port), server) as four:
            assert echoes(loop, server, four, socket.AF_INET, ("127.0.0.1", port))
    with loop.listen(("::1", 0, 0, 0), server) as listener:
        assert listener.sockname == ("::1", listener.sockname[1], 0, 0)
        assert echoes(loop, server, listener, socket.AF_INET6)


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_a_path(loop, server, tmp_path, kind):
    path = str(tmp_path / "socket")
    with loop.listen(kind(path), server) as listener:
        assert listener.sockname == path
        assert stat.S_ISSOCK(os.lstat(path).st_mode)
        assert echoes(loop, server, listener, socket.AF_UNIX)
    assert not os.path.exists(path)
    settle(loop)


def test_a_name_in_the_abstract_namespace(loop, server, tmp_path):
    name = f"\0{tmp_path}/name"
    with loop.listen(name, server) as listener:
        assert listener.sockname == name.encode()
        assert echoes(loop, server, listener, socket.AF_UNIX)
    settle(loop)
    with loop.listen(name.encode(), server):
        pass


def test_a_stale_path_is_replaced(loop, server, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
        old.listen()
        with pytest.raises(OSError, match="in use") as caught:
            loop.listen(path, server)
        assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, path)
    with loop.listen(path, server) as listener:
        assert echoes(loop, server, listener, socket.AF_UNIX)


def test_other_files_are_not_replaced(loop, server, tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        loop.listen(path, server)
    assert path.read_text() == "precious"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagrams"))
        with pytest.raises(OSError, match="in use"):
            loop.listen(tmp_path / "datagrams", server)


def test_a_path_that_is_somebody_elses_is_left(loop, server, tmp_path):
    path = str(tmp_path / "socket")
    listener = loop.listen(path, server)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        listener.close()
        assert os.path.exists(path)
    os.unlink(path)
    again = loop.listen(path, server)
    os.unlink(path)
    again.close()


def test_a_relative_path(loop, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener = loop.listen("socket", server)
    monkeypatch.chdir("/")
    listener.close()
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by", ["socket", "fd"])
def test_a_socket_that_is_given(loop, server, tmp_path, family, by):
    sock = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    with sock:
        sock.bind(str(tmp_path / "socket") if family == "unix" else ("127.0.0.1", 0))
        sock.listen()
        listener = loop.listen(sock if by == "socket" else sock.fileno(), server)
        assert listener.sockname == sock.getsockname()
        assert listener.fileno() == sock.fileno()
        assert echoes(loop, server, listener, sock.family)
        assert (listener.socket is sock) == (by == "socket")
        listener.close()
        settle(loop)
        # It is the user's, and still open.
        with client_of(GivenSocket(sock), family) as client:
            sock.accept()[0].close()
            assert receive_all(client) == b""
        assert family == "tcp" or (tmp_path / "socket").exists()


class GivenSocket:
    """Stands in for a listener."""

    def __init__(self, sock):
        self.sockname = sock.getsockname()


def test_what_is_no_address(loop, server, tmp_path):
    with socket.socket() as idle, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for address, error, text in (
            (("example.org", 80), ValueError, "host must be a numeric address.*'example.org'.*resolve"),
            (("127.0.0.1", 70000), ValueError, "port must be within"),
            (("127.0.0.1", -1), ValueError, "port must be within"),
            (("127.0.0.1", "80"), TypeError, "port must be an int"),
            ((1, 80), TypeError, "host"),
            (("127.0.0.1",), TypeError, "address must be"),
            (("127.0.0.1", 0, 0), TypeError, "tuple"),
            ((), TypeError, "address must be"),
            ("", ValueError, "empty"),
            ("a\0b", ValueError, "NUL"),
            ("x" * 200, OSError, "too long"),
            (str(tmp_path / "none" / "socket"), FileNotFoundError, "No such file"),
            (("192.0.2.1", 0), OSError, "assign"),
            (None, TypeError, "fd must be"),
            (1.5, TypeError, "fd must be"),
            (-1, ValueError, "negative"),
            (unused_fd(), OSError, "Bad file descriptor"),
            (idle, ValueError, "does not listen"),
            (datagrams, ValueError, "no stream socket"),
        ):
            with pytest.raises(error, match=text):
                loop.listen(address, server)
    finish(loop)


def test_other_arguments(loop, server):
    address = ("127.0.0.1", 0)
    for keywords, error, text in (
        ({"backlog": -1}, ValueError, "backlog must be within"),
        ({"backlog": "1"}, TypeError, "backlog"),
        ({"limit": 0}, ValueError, "limit must be within"),
        ({"limit": 1.5}, TypeError, "limit"),
        ({"reuse_port": 1}, TypeError, "reuse_port"),
    ):
        with pytest.raises(error, match=text):
            loop.listen(address, server, **keywords)
    with pytest.raises(ValueError, match="reuse_port is for"):
        loop.listen("\0name", server, reuse_port=True)
    with pytest.raises(TypeError, match="on_connect must be callable"):
        loop.listen(address, 1)
    with pytest.raises(TypeError, match="Listener cannot be created"):
        Listener(loop, address, server)
    finish(loop)


def test_an_address_in_use(loop, server):
    with loop.listen(("127.0.0.1", 0), server) as listener:
        with pytest.raises(OSError, match="in use") as caught:
            loop.listen(listener.sockname, server)
        assert caught.value.filename == listener.sockname


def test_the_address_is_free_again(loop, server):
    listener = loop.listen(("127.0.0.1", 0), server)
    assert echoes(loop, server, listener)
    listener.close()
    settle(loop)
    with loop.listen(listener.sockname, server) as again:
        assert echoes(loop, server, again)


def test_reuse_port(loop):
    counts = [0, 0]

    def counting(number):
        def connected(stream):
            counts[number] += 1

        return connected

    first = loop.listen(("127.0.0.1", 0), counting(0), reuse_port=True)
    second = loop.listen(first.sockname, counting(1), reuse_port=True)
    for _ in range(64):
        client_of(first).close()
    run_until(loop, lambda: sum(counts) == 64)
    assert all(counts)
    first.close()
    second.close()
    finish(loop)
