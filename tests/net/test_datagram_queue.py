"""Datagram sockets: receivers without room, and the queue of what is to be sent."""

import errno
import socket

import pytest
from _datagrams import Heard, end, socket_of
from _net import settle
from _support import run_until, scaled


@pytest.fixture
def client():
    with socket_of("ipv4") as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def full_queue(datagram, *address):
    """Send until there is no room. Returns how many were taken."""
    count = 0
    while datagram.send(b"%05d" % count + bytes(995), *address):
        count += 1
    return count + 1


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "unconnected"])
def test_a_receiver_without_room(loop, tmp_path, is_connected):
    """Nothing is lost and nothing is out of order: send() tells, on_drain follows, and the loop does not spin."""
    with socket_of("unix") as peer:
        path = str(tmp_path / "peer")
        peer.bind(path)
        datagram = loop.datagram(str(tmp_path / "sender"), path if is_connected else None)
        heard = Heard(datagram)
        address = () if is_connected else (path,)
        count = full_queue(datagram, *address)
        assert datagram.write_buffer_size > 64 << 10
        before = loop.statistics().iterations
        loop.run(0.2)
        assert loop.statistics().iterations - before < 100
        assert heard.calls == []
        received = []
        peer.setblocking(False)

        def take(watcher, events):
            received.append(peer.recv(2000))

        watcher = loop.io(peer, "r", take)
        run_until(loop, lambda: len(received) == count)
        watcher.destroy()
        assert [data[:5] for data in received] == [b"%05d" % number for number in range(count)]
        assert heard.calls == ["drain"]
        assert datagram.write_buffer_size == 0
        end(loop, datagram)


def test_a_full_receiver_does_not_hold_up_others(loop, tmp_path):
    datagram = loop.datagram(str(tmp_path / "sender"))
    with socket_of("unix") as full, socket_of("unix") as free:
        full.bind(str(tmp_path / "full"))
        free.bind(str(tmp_path / "free"))
        for number in range(30):
            datagram.send(b"%d" % number, full.getsockname())
        for number in range(5):
            datagram.send(b"%d" % number, free.getsockname())
            datagram.send(b"%d" % (30 + number), full.getsockname())
        settle(loop)
        assert [free.recv(9) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        received = []
        full.setblocking(False)
        watcher = loop.io(full, "r", lambda watcher, events: received.append(full.recv(9)))
        run_until(loop, lambda: len(received) == 35)
        watcher.destroy()
        assert received == [b"%d" % number for number in range(35)]
    end(loop, datagram)


def test_many_full_receivers(loop, tmp_path):
    """More than others are let past: all is sent in the end, in the order of each receiver."""
    datagram = loop.datagram(str(tmp_path / "sender"))
    peers = [socket_of("unix") for _ in range(20)]
    received = {peer: [] for peer in peers}
    try:
        for number, peer in enumerate(peers):
            peer.bind(str(tmp_path / f"{number}"))
            peer.setblocking(False)
        for number in range(30):
            for peer in peers:
                datagram.send(b"%d" % number, peer.getsockname())
        datagram.send(b"x", str(tmp_path / "nowhere"))
        heard = Heard(datagram)
        settle(loop)

        def take(watcher, events):
            received[watcher.data].append(watcher.data.recv(9))

        watchers = [loop.io(peer, "r", take, data=peer) for peer in peers]
        run_until(loop, lambda: sum(map(len, received.values())) == 600 and heard.errors)
        for watcher in watchers:
            watcher.destroy()
        assert all(got == [b"%d" % number for number in range(30)] for got in received.values())
        assert [error.errno for error in heard.errors] == [errno.ENOENT]
    finally:
        for peer in peers:
            peer.close()
    end(loop, datagram)


def test_an_internet_socket_without_room(loop, client):
    """Its own buffer is full only where the way out is: a look at the flags of a poll that comes at once."""
    datagram = loop.datagram(remote_address=client.getsockname())
    datagram.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for number in range(scaled(300)):
        datagram.send(b"%05d" % number + bytes(900))
    run_until(loop, lambda: not datagram.write_buffer_size)
    client.setblocking(False)
    received = []
    with pytest.raises(BlockingIOError):
        while True:
            received.append(int(client.recv(1000)[:5]))
    assert received == sorted(received)
    end(loop, datagram)


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "unconnected"])
@pytest.mark.parametrize("size", [0, 1000], ids=["datagrams", "bytes"])
def test_a_full_queue(loop, tmp_path, size, is_connected):
    with socket_of("unix") as peer:
        path = str(tmp_path / "peer")
        peer.bind(path)
        datagram = loop.datagram("", path if is_connected else None)
        address = () if is_connected else (path,)
        count = 0
        with pytest.raises(BlockingIOError, match="the queue is full") as caught:
            while count < 100_000:
                datagram.send(bytes(size), *address)
                count += 1
        assert caught.value.errno == errno.EAGAIN
        assert count >= 1000
        queued = datagram.write_buffer_size
        assert (1 << 20) <= queued <= (1 << 20) + 1000 if size else count >= 65536
        with pytest.raises(BlockingIOError):
            datagram.send(bytes(size), *address)
        assert datagram.write_buffer_size == queued
        datagram.set_write_limits(1 << 20)
        if size:
            assert datagram.send(bytes(size), *address) is False
        end(loop, datagram)


def test_marks(loop, tmp_path):
    with socket_of("unix") as peer:
        peer.bind(str(tmp_path / "peer"))
        datagram = loop.datagram(None, str(tmp_path / "peer"))
        heard = Heard(datagram)
        assert datagram.write_limits == (65536, 16384)
        datagram.set_write_limits(low=10)
        assert datagram.write_limits == (40, 10)
        datagram.set_write_limits(5000)
        assert datagram.write_limits == (5000, 1250)
        datagram.set_write_limits(high=2000, low=2000)
        assert full_queue(datagram) > 3
        assert 2000 < datagram.write_buffer_size <= 3000
        datagram.set_write_limits(100_000, 50_000)
        run_until(loop, lambda: heard.calls)
        assert heard.calls == ["drain"]
        for arguments in [(-1,), (10, 11), (1 << 60,)]:
            with pytest.raises(ValueError):
                datagram.set_write_limits(*arguments)
        with pytest.raises(TypeError):
            datagram.set_write_limits("1")
        datagram.set_write_limits()
        end(loop, datagram)
