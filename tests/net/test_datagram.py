"""Datagram sockets: what comes and what is sent, pauses, errors of earlier sends."""

import errno
import os
import socket

import pytest
from _datagrams import FAMILIES, HAS_IPV6, Heard, address_of, end, socket_of
from _net import settle
from _support import finish, run_until

from linux_event import Datagram, Loop


@pytest.fixture(params=FAMILIES)
def family(request):
    if request.param == "ipv6" and not HAS_IPV6:
        pytest.skip("there is no ::1")
    return request.param


@pytest.fixture
def receiver(loop, family, tmp_path):
    """A bound datagram socket, and what it has heard."""
    datagram = loop.datagram(address_of(family, tmp_path, "receiver"))
    yield datagram
    if not loop.is_closed():
        end(loop, datagram)


@pytest.fixture
def peer(family, tmp_path):
    """A bound, blocking socket of the same family."""
    with socket_of(family) as sock:
        sock.bind(address_of(family, tmp_path, "peer"))
        yield sock


@pytest.fixture
def udp(loop):
    datagram = loop.datagram(("127.0.0.1", 0))
    yield datagram
    if not loop.is_closed():
        end(loop, datagram)


@pytest.fixture
def client():
    with socket_of("ipv4") as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


# -- Receiving ---------------------------------------------------------------------------------------------------------


def test_datagrams_come_whole_and_in_their_order(receiver, peer):
    heard = Heard(receiver)
    sent = [b"one", b"", b"three" * 1000, b"", b"", b"x" * 60000, b"last"]
    for number, data in enumerate(sent, 1):
        peer.sendto(data, receiver.sockname)
        heard.wait_for(number)
    assert heard.data == sent
    assert {address for _, address in heard.got} == {peer.getsockname()}


def test_many_at_a_time(loop, receiver, peer):
    heard = Heard(receiver)
    sent = [b"%d" % number for number in range(10)]  # so many fit into the queue of a Unix socket
    for data in sent:
        peer.sendto(data, receiver.sockname)
    heard.wait_for(10)
    assert heard.data == sent
    assert loop.statistics().pool_buffers_in_use == 0


def test_only_empty_ones(receiver, peer):
    heard = Heard(receiver)
    for _ in range(10):
        peer.sendto(b"", receiver.sockname)
    heard.wait_for(10)
    assert heard.data == [b""] * 10


def test_the_address_of_the_same_sender_is_the_same_object(receiver, peer, family, tmp_path):
    heard = Heard(receiver)
    with socket_of(family) as other:
        other.bind(address_of(family, tmp_path, "other"))
        for sender in (peer, peer, other, other, peer):
            sender.sendto(b"x", receiver.sockname)
        heard.wait_for(5)
        addresses = [address for _, address in heard.got]
        assert addresses[0] is addresses[1]
        assert addresses[2] is addresses[3]
        assert addresses == [sender.getsockname() for sender in (peer, peer, other, other, peer)]


def test_more_than_the_pool_holds(loop, udp, client):
    """The kernel finds no buffer: what has come waits in the socket, and comes then."""
    heard = Heard(udp)
    udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sent = [b"%d" % number for number in range(200)]
    for data in sent:
        client.sendto(data, udp.sockname)
    heard.wait_for(200)
    assert heard.data == sent


def test_many_sockets_share_the_pool(loop, client):
    datagrams = [loop.datagram(("127.0.0.1", 0)) for _ in range(50)]
    heard = [Heard(datagram) for datagram in datagrams]
    settle(loop)
    for number in range(5):
        for datagram in datagrams:
            client.sendto(b"%d" % number, datagram.sockname)
    for one in heard:
        one.wait_for(5)
        assert one.data == [b"0", b"1", b"2", b"3", b"4"]
    end(loop, *datagrams)


def test_one_call_at_a_time(client):
    """Datagrams count for max_events, and one socket does not keep others waiting."""
    with Loop(max_events=1) as loop:
        datagrams = [loop.datagram(("127.0.0.1", 0)) for _ in range(2)]
        order = []
        for datagram in datagrams:
            datagram.on_datagram = lambda datagram, data, address: order.append(datagram)
        settle(loop)
        for datagram in datagrams:
            for _ in range(3):
                client.sendto(b"x", datagram.sockname)
        run_until(loop, lambda: len(order) == 6)
        assert order == datagrams * 3
        end(loop, *datagrams)


def test_a_unix_sender_without_a_name(loop, tmp_path):
    datagram = loop.datagram(str(tmp_path / "receiver"))
    heard = Heard(datagram)
    with socket_of("unix") as sender:
        sender.sendto(b"x", datagram.sockname)
        heard.wait_for(1)
    assert heard.got == [(b"x", None)]
    end(loop, datagram)


def test_one_that_is_too_long_is_told(loop, tmp_path):
    datagram = loop.datagram(str(tmp_path / "receiver"))
    heard = Heard(datagram)
    with socket_of("unix") as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender.bind(str(tmp_path / "sender"))
        for data in (bytes(208 << 10), bytes(300_000), b"next"):
            sender.sendto(data, datagram.sockname)
            settle(loop)  # its buffer has no room for more than one
        heard.wait_for(2)
        assert heard.data == [bytes(208 << 10), b"next"]
        assert heard.calls == ["datagram", "error", "datagram"]
        assert heard.errors[0].errno == errno.EMSGSIZE
        assert "300000 bytes" in str(heard.errors[0])
        assert heard.errors[0].filename == sender.getsockname()
        assert loop.statistics().pool_buffers_in_use == 0
    end(loop, datagram)


# -- Sending -----------------------------------------------------------------------------------------------------------


def test_what_is_sent_arrives(loop, receiver, peer):
    sent = [b"one", b"", bytearray(b"two"), memoryview(b"three"), b"x" * 60000]
    for data in sent:
        assert receiver.send(data, peer.getsockname()) is True
        settle(loop)
        assert peer.recvfrom(1 << 17) == (bytes(data), receiver.sockname)
    assert receiver.write_buffer_size == 0


def test_a_buffer_is_copied(loop, udp, client):
    data = bytearray(b"before")
    udp.send(data, client.getsockname())
    data[:] = b"after!"
    data.append(1)  # nothing holds it
    settle(loop)
    assert client.recv(100) == b"before"


def test_an_echo(loop, receiver, peer):
    receiver.on_datagram = lambda datagram, data, address: datagram.send(data, address)
    for data in (b"hello", b"", b"x" * 1000):
        peer.sendto(data, receiver.sockname)
        before = loop.statistics().callbacks
        run_until(loop, lambda before=before: loop.statistics().callbacks > before)
        settle(loop)
        assert peer.recvfrom(2000) == (data, receiver.sockname)


def test_what_is_sent_in_one_iteration_leaves_by_one_call(loop, udp, client):
    settle(loop)
    before = loop.statistics().syscalls
    sent = [b"%d" % number for number in range(50)]
    for data in sent:
        assert udp.send(data, client.getsockname())
    assert udp.write_buffer_size == sum(map(len, sent))
    loop.run_once(0)
    assert loop.statistics().syscalls - before <= 2
    assert udp.write_buffer_size == 0
    assert [client.recv(100) for _ in sent] == sent


def test_more_than_one_call_takes(loop, udp, client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sent = [b"%d" % number for number in range(500)]
    for data in sent:
        udp.send(data, client.getsockname())
    settle(loop)
    assert udp.write_buffer_size == 0
    received = []
    client.setblocking(False)
    while len(received) < 300:  # the buffer of the receiver may be smaller than asked for
        received.append(client.recv(100))
    assert received == sent[: len(received)]


def test_new_addresses_and_the_same_one(loop, udp, client):
    with socket_of("ipv4") as other:
        other.bind(("127.0.0.1", 0))
        for number in range(20):
            target = client if number % 3 else other
            host, port = target.getsockname()
            udp.send(b"%d" % number, (host, port))
            udp.send(b"%d" % number, (host.encode(), port))
        settle(loop)
        assert [client.recv(9) for _ in range(26)] == [b"%d" % n for n in range(20) if n % 3 for _ in "12"]
        assert [other.recv(9) for _ in range(14)] == [b"%d" % n for n in range(20) if not n % 3 for _ in "12"]


def test_a_path_object_is_asked_each_time(loop, tmp_path):
    class Path:
        name = ""

        def __fspath__(self):
            return str(tmp_path / self.name)

    datagram = loop.datagram(str(tmp_path / "sender"))
    with socket_of("unix") as first, socket_of("unix") as second:
        first.bind(str(tmp_path / "first"))
        second.bind(str(tmp_path / "second"))
        path = Path()
        for name in ("first", "second"):
            path.name = name
            datagram.send(name.encode(), path)
        settle(loop)
        assert first.recv(100) == b"first"
        assert second.recv(100) == b"second"
    end(loop, datagram)


@pytest.mark.parametrize(
    "address, error, text",
    [
        (None, ValueError, "not connected"),
        (("localhost", 1), ValueError, "loop.resolve"),
        (("127.0.0.1", 65536), ValueError, "port must be within"),
        (("::1", 1), ValueError, "numeric address of that family"),
        (("127.0.0.1",), TypeError, "must be a tuple"),
        ("path", TypeError, "must be a tuple"),
        (7, TypeError, "must be a tuple"),
    ],
)
def test_bad_addresses(loop, udp, address, error, text):
    with pytest.raises(error, match=text):
        udp.send(b"x", address)
    assert udp.write_buffer_size == 0


@pytest.mark.parametrize("data", ["text", None, 7, [b"x"]])
def test_bad_data(loop, udp, data):
    with pytest.raises(TypeError):
        udp.send(data, ("127.0.0.1", 9))
    with pytest.raises(BufferError):
        udp.send(memoryview(b"abcd")[::2], ("127.0.0.1", 9))


def test_an_address_that_closes_it(loop, tmp_path):
    class Path:
        def __fspath__(self):
            datagram.abort()
            return str(tmp_path / "x")

    datagram = loop.datagram(str(tmp_path / "sender"))
    assert datagram.send(b"x", Path()) is False
    finish(loop)


def test_a_broadcast_has_to_be_asked_for(loop):
    target = ("255.255.255.255", 9)
    plain = loop.datagram(("127.0.0.1", 0))
    asking = loop.datagram(("127.0.0.1", 0), broadcast=True)
    heard, other = Heard(plain), Heard(asking)
    plain.send(b"x", ("<broadcast>", 9))
    asking.send(b"x", target)
    run_until(loop, lambda: heard.errors)
    assert heard.errors[0].errno == errno.EACCES
    assert heard.errors[0].filename == ("<broadcast>", 9)
    assert all(error.errno != errno.EACCES for error in other.errors)  # there may be no way out
    assert asking.socket.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
    end(loop, plain, asking)


# -- Connected ---------------------------------------------------------------------------------------------------------


def test_connected(loop, family, peer, tmp_path):
    datagram = loop.datagram(address_of(family, tmp_path, "connected"), peer.getsockname())
    heard = Heard(datagram)
    assert datagram.peername == peer.getsockname()
    datagram.send(b"one")
    datagram.send(b"two", peer.getsockname())
    datagram.send(b"three", address=datagram.peername)
    settle(loop)
    assert [peer.recvfrom(100) for _ in range(3)] == [(data, datagram.sockname) for data in (b"one", b"two", b"three")]
    for data in (b"a", b"", b"b"):
        peer.sendto(data, datagram.sockname)
    heard.wait_for(3)
    assert heard.got == [(data, peer.getsockname()) for data in (b"a", b"", b"b")]
    assert heard.got[0][1] is heard.got[1][1] is heard.got[2][1]
    with pytest.raises(ValueError, match="is connected to"):
        datagram.send(
            b"x", address_of(family, tmp_path, "other") if "ipv" not in family else (peer.getsockname()[0], 9)
        )
    end(loop, datagram)


def test_connected_without_a_local_address(loop, family, peer):
    datagram = loop.datagram(remote_address=peer.getsockname())
    datagram.send(b"hello")
    settle(loop)
    assert peer.recv(100) == b"hello"
    assert repr(peer.getsockname()) in repr(datagram)
    end(loop, datagram)


def test_nobody_there(loop):
    """An error of an earlier datagram is told; those that are sent meanwhile are not lost with it."""
    with socket_of("ipv4") as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    datagram = loop.datagram(remote_address=address)
    heard = Heard(datagram)
    for count in range(1, 4):
        datagram.send(b"x")
        run_until(loop, lambda count=count: len(heard.errors) >= count)
    assert [error.errno for error in heard.errors] == [errno.ECONNREFUSED] * 3
    assert heard.errors[0].filename == address
    with socket_of("ipv4") as back:
        back.bind(address)
        datagram.send(b"again")
        settle(loop)
        assert back.recv(100) == b"again"
        back.sendto(b"answer", datagram.sockname if datagram.sockname[1] else datagram.socket.getsockname())
        heard.wait_for(1)
    assert heard.data == [b"answer"]
    end(loop, datagram)


def test_an_error_that_waits_costs_no_datagram(loop):
    """Without on_datagram nothing is received, and the next send meets the error of the one before."""
    with socket_of("ipv4") as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    datagram = loop.datagram(remote_address=address)
    errors = []
    datagram.on_error = lambda datagram, error: errors.append(error)
    datagram.send(b"lost")
    settle(loop)
    assert not errors
    with socket_of("ipv4") as back:
        back.bind(address)
        datagram.send(b"one")
        datagram.send(b"two")
        settle(loop)
        assert [back.recv(100), back.recv(100)] == [b"one", b"two"]
    assert [error.errno for error in errors] == [errno.ECONNREFUSED]
    end(loop, datagram)


def test_no_memory_for_an_error(loop, monkeypatch):
    """It is told later."""
    with socket_of("ipv4") as gone:
        gone.bind(("127.0.0.1", 0))
        datagram = loop.datagram(remote_address=gone.getsockname())
    heard = Heard(datagram)
    told, failures, strerror = [], [2], os.strerror
    loop.on_error = lambda source, error: told.append(type(error))

    def short(number):
        if failures[0]:
            failures[0] -= 1
            raise MemoryError
        return strerror(number)

    monkeypatch.setattr(os, "strerror", short)
    datagram.send(b"x")
    run_until(loop, lambda: heard.errors)
    assert told == [MemoryError] * 2
    assert [error.errno for error in heard.errors] == [errno.ECONNREFUSED]
    loop.on_error = None
    end(loop, datagram)


@pytest.mark.parametrize("is_heard", [True, False])
def test_one_that_the_kernel_refuses(loop, udp, client, is_heard):
    told = []
    if is_heard:
        udp.on_error = lambda datagram, error: told.append((datagram, error))
    else:
        loop.on_error = lambda source, error: told.append((source, error))
    udp.send(b"before", client.getsockname())
    udp.send(bytes(70000), client.getsockname())
    udp.send(b"after", client.getsockname())
    run_until(loop, lambda: told)
    settle(loop)
    assert [client.recv(100), client.recv(100)] == [b"before", b"after"]
    assert [(source, error.errno, error.filename) for source, error in told] == [
        (udp, errno.EMSGSIZE, client.getsockname())
    ]


def test_unix_receivers_that_are_not_there(loop, tmp_path):
    datagram = loop.datagram(str(tmp_path / "sender"))
    heard = Heard(datagram)
    with socket_of("unix") as dead, socket_of("unix") as alive:
        alive.bind(str(tmp_path / "alive"))
        dead.bind(str(tmp_path / "dead"))
        dead.close()
        for name in ("nowhere", "dead", "alive"):
            datagram.send(name.encode(), str(tmp_path / name))
        run_until(loop, lambda: len(heard.errors) == 2)
        settle(loop)
        assert alive.recv(100) == b"alive"
    assert [error.errno for error in heard.errors] == [errno.ENOENT, errno.ECONNREFUSED]
    assert [error.filename for error in heard.errors] == [str(tmp_path / "nowhere"), str(tmp_path / "dead")]
    end(loop, datagram)


def test_a_connected_unix_receiver_that_goes(loop, tmp_path):
    with socket_of("unix") as sock:
        sock.bind(str(tmp_path / "receiver"))
        datagram = loop.datagram(None, str(tmp_path / "receiver"))
    heard = Heard(datagram)
    datagram.send(b"x")
    run_until(loop, lambda: heard.errors)
    assert heard.errors[0].errno == errno.ECONNREFUSED
    assert heard.errors[0].filename == str(tmp_path / "receiver")
    end(loop, datagram)


# -- Pauses ------------------------------------------------------------------------------------------------------------


def test_nothing_is_received_without_on_datagram(loop, receiver, peer):
    peer.sendto(b"early", receiver.sockname)
    settle(loop)
    assert not receiver.is_reading()
    assert loop.statistics().requests_in_flight == 0
    heard = Heard(receiver)
    assert receiver.is_reading()
    heard.wait_for(1)
    receiver.on_datagram = None
    assert not receiver.is_reading()
    peer.sendto(b"late", receiver.sockname)
    settle(loop)
    receiver.on_datagram = heard.on_datagram
    heard.wait_for(2)
    assert heard.data == [b"early", b"late"]


def test_a_pause_loses_nothing(loop, receiver, peer):
    heard = Heard(receiver)
    settle(loop)
    sent = []
    for number in range(20):
        sent.append(b"%d" % number)
        if number % 4 == 1:
            receiver.pause_reading()
            receiver.pause_reading()
        peer.sendto(sent[-1], receiver.sockname)
        if number % 4 == 3:
            settle(loop)
            assert len(heard.got) <= number - 2
            assert loop.statistics().pool_buffers_in_use == 0
            receiver.resume_reading()
            receiver.resume_reading()
            heard.wait_for(number + 1)
    assert heard.data == sent
    assert heard.got[0][1] == peer.getsockname()


def test_a_pause_in_the_callback(loop, udp, client):
    got = []

    def once(datagram, data, address):
        got.append(data)
        datagram.pause_reading()

    udp.on_datagram = once
    settle(loop)
    sent = [b"%d" % number for number in range(10)]
    for data in sent:
        client.sendto(data, udp.sockname)
    run_until(loop, lambda: got)
    for count in range(1, 10):
        settle(loop)
        assert len(got) == count
        udp.resume_reading()
        run_until(loop, lambda count=count: len(got) > count)
    assert got == sent


def test_a_long_one_in_a_pause(loop, tmp_path):
    datagram = loop.datagram(str(tmp_path / "receiver"))
    heard = Heard(datagram)
    settle(loop)
    datagram.pause_reading()
    with socket_of("unix") as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender.sendto(b"first", datagram.sockname)
        sender.sendto(bytes(300_000), datagram.sockname)
        settle(loop)
        assert heard.calls == []
        datagram.resume_reading()
        settle(loop)
        sender.sendto(b"last", datagram.sockname)
        heard.wait_for(2)
    assert heard.data == [b"first", b"last"]
    assert heard.calls == ["datagram", "error", "datagram"]
    assert heard.errors[0].filename == datagram.fileno()  # the sender has no name
    end(loop, datagram)


def test_an_error_in_a_pause(loop):
    with socket_of("ipv4") as gone:
        gone.bind(("127.0.0.1", 0))
        datagram = loop.datagram(remote_address=gone.getsockname())
    heard = Heard(datagram)
    settle(loop)
    datagram.pause_reading()
    datagram.send(b"x")
    run_until(loop, lambda: heard.errors)
    assert heard.errors[0].errno == errno.ECONNREFUSED
    datagram.resume_reading()
    datagram.send(b"x")
    run_until(loop, lambda: len(heard.errors) == 2)
    end(loop, datagram)


# -- What it is --------------------------------------------------------------------------------------------------------


def test_attributes(loop, udp):
    assert type(udp) is Datagram
    assert udp.loop is loop
    assert udp.data is None
    udp.data = "mine"
    assert udp.data == "mine"
    assert udp.peername is None
    assert udp.sockname == udp.socket.getsockname()
    assert udp.socket is udp.socket
    assert udp.fileno() == udp.socket.fileno()
    assert (udp.on_datagram, udp.on_error, udp.on_drain, udp.on_close) == (None,) * 4
    for name in ("on_datagram", "on_error", "on_drain", "on_close"):
        setattr(udp, name, print)
        assert getattr(udp, name) is print
        with pytest.raises(TypeError, match=f"{name} must be callable"):
            setattr(udp, name, 1)
        setattr(udp, name, None)
    assert repr(udp) == f"<Datagram {udp.sockname!r} queued=0 open>"
    assert loop.statistics().datagrams == 1
    assert loop.statistics().operations_in_flight == 0
    assert not udp.is_closing()
    assert not os.get_inheritable(udp.fileno())


def test_it_is_made_by_a_loop(loop):
    with pytest.raises(TypeError, match="call datagram"):
        Datagram(loop)
    with pytest.raises(TypeError, match="loop must be a Loop"):
        Loop.datagram(object())
