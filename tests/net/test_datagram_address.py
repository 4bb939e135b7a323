"""Datagram sockets: the addresses that they are made of, and sockets that are given."""

import errno
import os
import pathlib
import socket

import pytest
from _datagrams import HAS_IPV6, Heard, address_of, end, socket_of
from _net import settle
from _support import finish, run_until

from linux_event import Loop

ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="there is no ::1")


@pytest.mark.parametrize(
    "local, host",
    [
        (("127.0.0.1", 0), "127.0.0.1"),
        (["127.0.0.1", 0], "127.0.0.1"),
        ((b"127.0.0.1", 0), "127.0.0.1"),
        (("localhost", 0), "127.0.0.1"),
        (("", 0), "0.0.0.0"),
        ((None, 0), "0.0.0.0"),
        (None, "0.0.0.0"),
        pytest.param(("::1", 0), "::1", marks=ipv6),
        pytest.param(("::", 0), "::", marks=ipv6),
        pytest.param(("", 0, 0, 0), "::", marks=ipv6),
    ],
)
def test_hosts(loop, local, host):
    with loop.datagram(local) as datagram:
        assert datagram.sockname[0] == host
        assert datagram.sockname[1]
        assert datagram.sockname == datagram.socket.getsockname()
    finish(loop)


@ipv6
def test_one_port_of_both_families(loop):
    """ "::" is IPv6 alone: another socket has the same port of IPv4."""
    first = loop.datagram(("::", 0))
    second = loop.datagram(("", first.sockname[1]))
    assert first.sockname[1] == second.sockname[1]
    end(loop, first, second)


@ipv6
def test_the_family_of_the_other_address(loop):
    datagram = loop.datagram(("", 0), ("::1", 9))
    assert datagram.peername == ("::1", 9, 0, 0)
    datagram.send(b"x", ("::1", 9))
    other = loop.datagram(("::1", 0), ("localhost", 9))
    assert other.peername == ("::1", 9, 0, 0)
    end(loop, datagram, other)


def test_localhost_as_remote_address(loop):
    datagram = loop.datagram(remote_address=("localhost", 9))
    assert datagram.peername == ("127.0.0.1", 9)
    assert datagram.sockname[0] == "127.0.0.1"
    end(loop, datagram)


@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "path"])
def test_paths(loop, tmp_path, form):
    path = tmp_path / "socket"
    datagram = loop.datagram(form(path))
    assert datagram.sockname == str(path)
    assert path.is_socket()
    heard = Heard(datagram)
    with socket_of("unix") as client:
        client.bind(str(tmp_path / "client"))
        client.sendto(b"ask", str(path))
        heard.wait_for(1)
        datagram.send(b"answer", form(tmp_path / "client"))
        settle(loop)
        assert client.recv(100) == b"answer"
    end(loop, datagram)
    assert not path.exists()


@pytest.mark.parametrize("name", ["\0linux_event %d", b"\0linux_event \xff %d"])
def test_abstract_names(loop, name):
    name = name % os.getpid()
    datagram = loop.datagram(name)
    assert datagram.sockname == os.fsencode(name)
    heard = Heard(datagram)
    client = loop.datagram("", name)
    assert client.sockname.startswith(b"\0")  # one that the kernel has made up
    client.send(b"x")
    heard.wait_for(1)
    assert heard.got == [(b"x", client.sockname)]
    end(loop, datagram, client)


def test_a_stale_path_is_replaced(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket_of("unix") as sock:
        sock.bind(path)
    datagram = loop.datagram(path)
    with pytest.raises(OSError) as caught:
        loop.datagram(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.filename == path
    assert os.path.exists(path)
    end(loop, datagram)


def test_a_file_is_not_replaced(loop, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(OSError) as caught:
        loop.datagram(str(path))
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "mine"


def test_a_path_of_somebody_else_stays(loop, tmp_path):
    path = tmp_path / "socket"
    datagram = loop.datagram(str(path))
    path.unlink()
    path.write_text("mine")
    end(loop, datagram)
    assert path.read_text() == "mine"


def test_reuse_port(loop):
    first = loop.datagram(("127.0.0.1", 0), reuse_port=True)
    second = loop.datagram(first.sockname, reuse_port=True)
    assert first.sockname == second.sockname
    with pytest.raises(OSError) as caught:
        loop.datagram(first.sockname)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.filename == first.sockname
    end(loop, first, second)


@pytest.mark.parametrize(
    "arguments, keywords, error, text",
    [
        ((("example.org", 1),), {}, ValueError, "loop.resolve"),
        ((None, ("example.org", 1)), {}, ValueError, "loop.resolve"),
        ((("127.0.0.1", -1),), {}, ValueError, "port must be within"),
        ((("127.0.0.1", "http"),), {}, TypeError, "port must be an int"),
        ((("127.0.0.1",),), {}, TypeError, "local_address must be"),
        ((None, (1, 2, 3, 4, 5)), {}, TypeError, "remote_address must be"),
        (((7, 1),), {}, TypeError, "host of local_address"),
        ((None, 7), {}, TypeError, "remote_address must be"),
        ((("127.0.0.1", 0), ("::1", 1)), {}, ValueError, "different families"),
        ((("127.0.0.1", 0), "path"), {}, ValueError, "different families"),
        (("with\0nul",), {}, ValueError, "NUL"),
        ((("127.0.0.1", 0),), {"reuse_port": 1}, TypeError, "reuse_port must be True or False"),
        ((("127.0.0.1", 0),), {"broadcast": None}, TypeError, "broadcast must be True or False"),
        (("path",), {"reuse_port": True}, ValueError, "reuse_port and broadcast are for"),
        (("path",), {"broadcast": True}, ValueError, "reuse_port and broadcast are for"),
        ((-1,), {}, ValueError, "fd must not be negative"),
        ((1.5,), {}, TypeError, "fd must be an int"),
    ],
)
def test_bad_arguments(loop, arguments, keywords, error, text):
    with pytest.raises(error, match=text):
        loop.datagram(*arguments, **keywords)
    assert loop.statistics().datagrams == 0


@pytest.mark.parametrize(
    "arguments, number",
    [
        ((("192.0.2.1", 0),), errno.EADDRNOTAVAIL),
        (("x" * 108,), errno.ENAMETOOLONG),
        ((None, "/nowhere/at/all"), errno.ENOENT),
        ((99999,), errno.EBADF),
    ],
)
def test_failures_of_the_kernel(loop, arguments, number):
    with pytest.raises(OSError) as caught:
        loop.datagram(*arguments)
    assert caught.value.errno == number
    assert caught.value.filename == (arguments[-1])


def test_a_failure_removes_the_file(loop, tmp_path):
    path = tmp_path / "socket"
    with pytest.raises(FileNotFoundError):
        loop.datagram(str(path), str(tmp_path / "nobody"))
    assert not path.exists()


# -- Sockets that are given --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_fd", [False, True], ids=["socket", "fd"])
def test_a_socket_that_is_given(loop, as_fd):
    with socket_of("ipv4") as sock, socket_of("ipv4") as client:
        sock.bind(("127.0.0.1", 0))
        datagram = loop.datagram(sock.fileno() if as_fd else sock, broadcast=True)
        heard = Heard(datagram)
        assert datagram.sockname == sock.getsockname()
        assert datagram.fileno() == sock.fileno()
        assert datagram.peername is None
        assert (datagram.socket is sock) is not as_fd
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        client.sendto(b"hello", sock.getsockname())
        heard.wait_for(1)
        datagram.send(b"back", client.getsockname())
        settle(loop)
        assert client.recv(100) == b"back"
        datagram.close()
        run_until(loop, lambda: heard.ends)
        assert datagram.socket is None
        assert sock.getsockname()  # still open


def test_a_pair_that_is_given(loop):
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams = [loop.datagram(sock) for sock in ends]
    heard = [Heard(datagram) for datagram in datagrams]
    datagrams[0].send(b"there")
    datagrams[1].send(b"back")
    heard[0].wait_for(1)
    heard[1].wait_for(1)
    assert heard[0].got == [(b"back", None)]
    assert heard[1].got == [(b"there", None)]
    end(loop, *datagrams)
    for sock in ends:
        sock.close()


def test_other_sockets_are_refused(loop, pair, pipe):
    with pytest.raises(ValueError, match="no datagram socket"):
        loop.datagram(pair[0])
    with pytest.raises(OSError) as caught:
        loop.datagram(pipe.r)
    assert caught.value.errno == errno.ENOTSOCK
    with socket_of("ipv4") as sock:
        with pytest.raises(ValueError, match="not for a socket that is given"):
            loop.datagram(sock, ("127.0.0.1", 9))
        with pytest.raises(ValueError, match="not for a socket that is given"):
            loop.datagram(sock, reuse_port=True)
        sock.close()
        with pytest.raises(ValueError):
            loop.datagram(sock)


def test_a_connected_socket_that_is_given(loop, tmp_path):
    with socket_of("unix") as server, socket_of("unix") as sock:
        server.bind(address_of("unix", tmp_path, "server"))
        sock.connect(server.getsockname())
        datagram = loop.datagram(sock)
        assert datagram.peername == server.getsockname()
        datagram.send(b"x")
        settle(loop)
        assert server.recv(100) == b"x"
        end(loop, datagram)


def test_the_fd_is_closed_by_somebody_else(loop):
    """Armed again it would be that of whatever has got the number since: it ends instead."""
    sock = socket_of("ipv4")
    sock.bind(("127.0.0.1", 0))
    datagram = loop.datagram(sock.fileno())
    heard = Heard(datagram)
    with socket_of("ipv4") as client:
        settle(loop)
        address = sock.getsockname()
        sock.close()
        client.sendto(b"", address)  # ends the request
        run_until(loop, lambda: heard.ends)
    assert heard.ends[0].errno == errno.EBADF
    assert heard.data == [b""]


def test_a_socket_that_was_shut_down(loop):
    """It is readable for ever, and there is nothing to read: the loop does not spin."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram = loop.datagram(ends[0])
    heard = Heard(datagram)
    settle(loop)
    ends[0].shutdown(socket.SHUT_RD)
    before = loop.statistics().iterations
    loop.run(0.1)
    assert loop.statistics().iterations - before < 50
    assert heard.calls == []
    end(loop, datagram)
    for sock in ends:
        sock.close()


def test_in_a_closed_loop():
    loop = Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.datagram(("127.0.0.1", 0))


def test_an_address_that_closes_the_loop(tmp_path):
    class Path(os.PathLike):
        def __fspath__(self):
            loop.close()
            return str(tmp_path / "socket")

    loop = Loop()
    with pytest.raises(RuntimeError, match="closed"):
        loop.datagram(Path())
    assert not (tmp_path / "socket").exists()
