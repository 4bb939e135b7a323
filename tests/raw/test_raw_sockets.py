"""Raw requests on sockets."""

import array
import os
import socket
import struct
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EBADF, ECONNREFUSED, EINVAL, ENOTCONN, ENOTSOCK, EOPNOTSUPP

import pytest
from _raw import inet, unix

from linux_event import Ring


@pytest.fixture
def server(nothing_left):
    """A listening TCP socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_socket(driver):
    fd = driver.do("socket", socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    assert not os.get_inheritable(fd)
    with socket.socket(fileno=fd) as made:
        assert made.family == socket.AF_INET
        assert made.type == socket.SOCK_STREAM
        assert not os.get_blocking(fd)
    assert driver.do("socket", 1000, socket.SOCK_STREAM) == -EAFNOSUPPORT
    driver.ring.register_files(2)
    assert driver.do("socket", socket.AF_INET, socket.SOCK_STREAM, file_index=1) == 0
    assert driver.do("shutdown", 1, socket.SHUT_RDWR, flags=Ring.FIXED_FILE) == -ENOTCONN


def test_a_server_made_of_raw_requests(driver, tmp_path, pipe):
    if "BIND" not in driver.ring.features:
        with pytest.raises(NotImplementedError, match=r"6\.11"):
            driver.ring.listen(0)
        return
    fd = driver.do("socket", socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(fileno=fd) as listener:
        assert driver.do("bind", listener, unix(tmp_path / "s")) == 0
        assert driver.do("listen", listener, 5) == 0
        with socket.socket(socket.AF_UNIX) as client:
            accepting = driver.ring.accept(listener)
            assert driver.do("connect", client, unix(tmp_path / "s")) == 0
            (fd,) = driver.all(accepting)
            os.close(fd)
        with socket.socket(socket.AF_UNIX) as other:
            assert driver.do("bind", other, unix(tmp_path / "s")) == -EADDRINUSE
    assert driver.do("listen", pipe.r) == -ENOTSOCK


def test_accept_and_connect(driver, server):
    peer = bytearray(16)
    told = []
    driver.ring.accept(server, lambda *said: told.append(said), address=peer, accept_flags=socket.SOCK_NONBLOCK)
    with socket.socket() as client:
        assert driver.do("connect", client, inet(server.getsockname())) == 0
        driver.until(lambda: told)
        fd = told[0][0]
        assert bytes(peer) == inet(client.getsockname())
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
        os.close(fd)
    with socket.socket() as client, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert driver.do("connect", client, inet(unused.getsockname())) == -ECONNREFUSED
        assert driver.do("accept", unused) == -EINVAL  # it does not listen


def test_accept_many(driver, server):
    told = []
    request = driver.ring.accept(server, lambda *said: told.append(said), multishot=True)
    clients = [socket.create_connection(server.getsockname()) for _ in range(20)]
    driver.until(lambda: len(told) == 20)
    assert all(flags & Ring.CQE_F_MORE for _, flags in told)
    for fd, _ in told:
        os.close(fd)
    assert not request.done()
    driver.ring.cancel(request)
    driver.until(request.done)
    assert request.result() < 0
    assert len(told) == 21
    for client in clients:
        client.close()
    with pytest.raises(TypeError, match="callback"):
        driver.ring.accept(server, multishot=True)
    with pytest.raises(ValueError, match="address"):
        driver.ring.accept(server, print, multishot=True, address=bytearray(16))


def test_connections_that_arrive_after_a_cancel_are_closed(driver, server):
    """Those that wait for their callback too: the check of every test for fds that are left would find them."""
    told = []

    def once(res, flags):
        told.append(res)
        if res >= 0:
            os.close(res)
            request.cancel()

    request = driver.ring.accept(server, once, multishot=True)
    driver.turn()
    clients = [socket.create_connection(server.getsockname()) for _ in range(10)]
    driver.until(request.done)
    driver.until(lambda: driver.ring.statistics().operations_in_flight == 0)
    assert len(told) == 2
    assert told[1] < 0
    for client in clients:
        client.close()


def test_connections_of_a_ring_that_is_closed(server):
    told = []
    with Ring(8) as ring:
        ring.accept(server, lambda *said: told.append(said), multishot=True)
        ring.submit()
        clients = [socket.create_connection(server.getsockname()) for _ in range(10)]
        ring.submit_and_wait(5)
    assert [res < 0 for res, flags in told] == [True]
    for client in clients:
        client.close()


def test_shutdown(driver, pair, pipe):
    a, b = pair
    assert driver.do("shutdown", a, socket.SHUT_WR) == 0
    assert b.recv(1) == b""
    assert driver.do("shutdown", a, 7) == -EINVAL
    assert driver.do("shutdown", pipe.r, socket.SHUT_RD) == -ENOTSOCK


def test_send_and_recv(driver, pair, pipe):
    a, b = pair
    buffer = bytearray(10)
    receiving = driver.ring.recv(b, buffer)
    assert driver.do("send", a, b"hello") == 5
    assert driver.all(receiving) == [5]
    assert bytes(buffer) == b"hello" + bytes(5)
    a.send(b"0123456789abc")
    assert driver.do("recv", b, memoryview(buffer)[:4], socket.MSG_WAITALL, poll_first=True) == 4
    assert driver.do("recv", b, buffer, socket.MSG_DONTWAIT) == 9
    a.close()
    assert driver.do("recv", b, buffer) == 0
    assert driver.do("send", b, b"x", socket.MSG_NOSIGNAL) < 0
    assert driver.do("send", pipe.w, b"x") == -ENOTSOCK
    assert driver.do("recv", pipe.r, buffer) == -ENOTSOCK


def test_send_without_copying(driver, server, pipe):
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        told = []
        data = bytearray(b"z" * 10000)
        request = driver.ring.send_zc(client, data, callback=lambda *said: told.append(said))
        driver.until(request.done)
        assert told[0] == (10000, Ring.CQE_F_MORE)
        assert told[1][1] & Ring.CQE_F_NOTIF
        data.append(1)  # the kernel has let go of it
        assert accepted.recv(10000, socket.MSG_WAITALL) == b"z" * 10000
        request = driver.ring.sendmsg_zc(client, [b"12", b"34"], callback=lambda *said: told.append(said))
        driver.until(request.done)
        assert told[2][0] == 4
    for method, data in (("send_zc", b"x"), ("sendmsg_zc", [b"x"])):
        told = []
        request = getattr(driver.ring, method)(pipe.w, data, callback=lambda *said: told.append(said))  # noqa: B023
        driver.until(request.done)
        assert told[0][0] in (-ENOTSOCK, -EOPNOTSUPP)


def test_datagrams(driver):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        buffers = [bytearray(3), bytearray(100)]
        sender = bytearray(128)
        receiving = driver.ring.recvmsg(b, buffers, address=sender)
        assert driver.do("sendmsg", a, [b"ab", b"cdef"], address=inet(b.getsockname())) == 6
        assert driver.all(receiving) == [6]
        assert bytes(buffers[0] + buffers[1][:3]) == b"abcdef"
        assert receiving.message == (16, 0, 0)
        assert bytes(sender[:16]) == inet(a.getsockname())
        assert driver.do("sendmsg", a, [b"x"]) < 0  # to nobody
        receiving = driver.ring.recvmsg(b, [bytearray(2)])
        a.sendto(b"12345", b.getsockname())
        assert driver.all(receiving) == [2]
        assert receiving.message[2] & socket.MSG_TRUNC
        message = bytearray(20)
        assert driver.do("send", a, b"to", address=inet(b.getsockname())) in (2, -EINVAL, -89)
        driver.ring.recv(b, message, socket.MSG_DONTWAIT)


def test_ancillary_data(driver, pair, pipe):
    a, b = pair
    control = struct.pack("=Qii", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS) + array.array("i", [pipe.r, 0]).tobytes()
    assert driver.do("sendmsg", a, [b"x"], control=control) == 1
    got = bytearray(64)
    request = driver.ring.recvmsg(b, [bytearray(10)], control=got)
    assert driver.all(request) == [1]
    assert request.message[1] == 24
    fd = struct.unpack_from("=i", got, 16)[0]
    assert os.path.sameopenfile(fd, pipe.r)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert driver.ring.recvmsg(b, [bytearray(1)], socket.MSG_DONTWAIT).message is None


def test_receiving_into_buffers_that_were_provided(driver, pair):
    a, b = pair
    memory = bytearray(4 * 100)
    assert driver.do("provide_buffers", memory, 100, 4, 3) == 0
    told = []
    request = driver.ring.recv(b, 0, callback=lambda *said: told.append(said), group=3, multishot=True)
    for number in range(4):
        a.send(bytes([number]) * 10)
        driver.until(lambda number=number: len(told) > number)
    a.send(b"more")
    driver.until(request.done)  # no buffer is left
    assert request.result() < 0
    for number, (res, flags) in enumerate(told[:4]):
        place = flags >> Ring.CQE_BUFFER_SHIFT
        assert memory[100 * place : 100 * place + res] == bytes([number]) * 10
    with pytest.raises(ValueError, match="group"):
        driver.ring.recv(b, 0, callback=print, multishot=True)


def test_addresses_as_for_the_module_socket(driver, server, tmp_path):
    with socket.socket() as client:
        assert driver.do("connect", client, server.getsockname()) == 0
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert driver.do("connect", client, tmp_path / "s") == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        assert driver.do("sendmsg", a, [b"x"], address=a.getsockname()) == 1
        if "BIND" in driver.ring.features:
            assert driver.do("bind", b, ("::1", 0)) in (0, -EADDRNOTAVAIL)


@pytest.mark.parametrize("wrong", [None, "127.0.0.1", 5, ("127.0.0.1",), ("name", 80)])
def test_what_is_no_address(driver, server, wrong):
    for method in ("connect", "bind"):
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            getattr(driver.ring, method)(server, wrong)
        with pytest.raises((TypeError, NotImplementedError)):
            getattr(driver.ring, method)(0, ("127.0.0.1", 80), flags=Ring.FIXED_FILE)
    with pytest.raises(ValueError, match="128"):
        driver.ring.connect(server, bytes(129))


def test_an_fd_that_is_not_open(driver):
    with socket.socket() as closed:
        fd = closed.fileno()
    for method, args in (("recv", (bytearray(1),)), ("send", (b"",)), ("accept", ()), ("shutdown", (0,))):
        with pytest.raises(OSError, match=str(EBADF)):
            getattr(driver.ring, method)(fd, *args)
        with pytest.raises(ValueError, match="negative"):
            getattr(driver.ring, method)(closed, *args)
