"""Bytes through streams: all of them, in order, once, however they come and whatever is short."""

import hashlib
import os
import random
import socket
import threading

import pytest
from _net import FAMILIES, Heard, client_of, receive_all, settle, stream_and_peer
from _sockets import reset
from _support import BOUND, blocks_grown, finish, made_loop, many_fds_allowed, open_fds, run_until, scaled

PATTERN = os.urandom(1 << 20)


def pattern(start, count):
    """Bytes that differ wherever something was lost, doubled or exchanged."""
    return b"".join(
        PATTERN[
            place % len(PATTERN) : place % len(PATTERN)
            + min(count - (place - start), len(PATTERN) - place % len(PATTERN))
        ]
        for place in pieces(start, count)
    )


def pieces(start, count):
    place = start
    while place < start + count:
        yield place
        place += len(PATTERN) - place % len(PATTERN)


def test_the_pattern_is_one():
    assert pattern(10, 100) == PATTERN[10:110]
    assert pattern((1 << 20) - 10, 20) == PATTERN[-10:] + PATTERN[:10]
    assert len(pattern(5, 3 << 20)) == 3 << 20


class Pump(threading.Thread):
    """Sends so many bytes of the pattern on a blocking socket, in pieces of random sizes, and checks what comes back."""

    def __init__(self, sock, total, seed, *, piece=300000, slowly=False):
        super().__init__()
        self.sock, self.total, self.random = sock, total, random.Random(seed)
        self.piece = piece
        self.slowly = slowly
        self.received = 0
        self.wrong = None

    def run(self):
        reader = threading.Thread(target=self.read)
        reader.start()
        sent = 0
        while sent < self.total:
            count = min(self.random.randint(1, self.piece), self.total - sent)
            self.sock.sendall(pattern(sent, count))
            sent += count
        self.sock.shutdown(socket.SHUT_WR)
        reader.join()

    def read(self):
        while data := self.sock.recv(1000 if self.slowly else 1 << 19):
            if data != pattern(self.received, len(data)):
                self.wrong = self.received
            self.received += len(data)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("entries", [2, 256])
def test_an_echo_of_many_bytes(family, entries, tmp_path):
    """A gigabyte in all at full scale, with back pressure, on eight connections at a time."""
    total = scaled(1 << 30, 1 << 22) // 4 // 8
    ends = []
    with made_loop(entries=entries) as loop:

        def begun(stream):
            stream.on_data = echo
            stream.on_drain = lambda stream: stream.resume_reading()
            stream.on_close = lambda stream, error: ends.append(error)

        def echo(stream, data):
            if not stream.write(data):
                stream.pause_reading()

        address = ("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "socket")
        listener = loop.listen(address, begun)
        pumps = [Pump(client_of(listener, family), total, seed) for seed in range(8)]
        for pump in pumps:
            pump.start()
        run_until(loop, lambda: len(ends) == len(pumps), 10 * BOUND)
        listener.close()
        for pump in pumps:
            pump.join()
            pump.sock.close()
    assert ends == [None] * len(pumps)
    assert [pump.wrong for pump in pumps] == [None] * len(pumps)
    assert [pump.received for pump in pumps] == [total] * len(pumps)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_byte_at_a_time(loop, family, tmp_path):
    count = scaled(5000, 200)
    with stream_and_peer(loop, family, tmp_path) as (stream, peer):
        heard = Heard(stream)
        got = []
        reader = threading.Thread(target=lambda: got.append(receive_all(peer)))
        reader.start()
        for place in range(count):
            peer.send(PATTERN[place : place + 1])
            stream.write(PATTERN[place : place + 1])
            loop.run_once(0)
        peer.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: "eof" in heard.calls)
        assert heard.data == PATTERN[:count]
        stream.close()
        finish(loop)
        reader.join()
        assert got == [PATTERN[:count]]


def test_more_streams_than_buffers(loop):
    """The pool of the loop begins with few buffers: streams that find none go on when there is one."""
    count = 300
    ends, got = [], {}

    def begun(stream):
        got[stream] = hashlib.sha256()
        stream.on_data = lambda stream, data: got[stream].update(data)
        stream.on_close = lambda stream, error: ends.append(error)

    listener = loop.listen(("127.0.0.1", 0), begun)
    with many_fds_allowed(2 * count):
        peers = [client_of(listener) for _ in range(count)]
        run_until(loop, lambda: len(got) == count)
        for peer in peers:
            peer.sendall(PATTERN[:50000])
        for peer in peers:
            peer.close()
        run_until(loop, lambda: len(ends) == count)
        listener.close()
        finish(loop)
    assert ends == [None] * count
    assert {hash.digest() for hash in got.values()} == {hashlib.sha256(PATTERN[:50000]).digest()}


def test_pauses_at_random(loop):
    """Small pieces and big ones, pauses and their ends: nothing is lost, in particular not where a stream changes its size."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    total = scaled(32 << 20, 1 << 20)
    with stream_and_peer(loop) as (stream, peer):
        received = 0
        wrong = []

        def on_data(stream, data):
            nonlocal received
            if data != pattern(received, len(data)):
                wrong.append(received)
            received += len(data)
            stream.write(data)
            what = chance.randrange(8)
            if what == 0:
                stream.pause_reading()
                loop.timer(chance.choice((0, 0.001)), lambda timer: stream.resume_reading())
            elif what == 1:
                stream.pause_reading()
                stream.resume_reading()
            elif what == 2:
                stream.on_data = None
                loop.defer(give_back)

        def give_back():
            if not stream.is_closing():
                stream.on_data = on_data

        stream.on_data = on_data
        ended = []
        stream.on_close = lambda stream, error: ended.append(error)
        pump = Pump(peer, total, seed, piece=chance.choice((3000, 30000, 300000)))
        pump.start()
        run_until(loop, lambda: ended)
        pump.join()
        assert ended == [None]
        assert not wrong
        assert received == total
        assert pump.wrong is None
        assert pump.received == total
        finish(loop)


def test_a_broadcast_takes_few_system_calls(loop):
    count = scaled(1000, 100)
    streams = []
    listener = loop.listen(("127.0.0.1", 0), streams.append)
    with many_fds_allowed(2 * count):
        peers = [client_of(listener) for _ in range(count)]
        run_until(loop, lambda: len(streams) == count)
        settle(loop)
        before = loop.statistics().syscalls
        for stream in streams:
            stream.write(b"to all")
        run_until(loop, lambda: not any(stream.write_buffer_size for stream in streams))
        assert loop.statistics().syscalls - before <= count // 100 + 5
        for peer in peers:
            assert peer.recv(100) == b"to all"
            peer.close()
        listener.close()
        for stream in streams:
            stream.close()
        finish(loop)


def test_connections_that_come_and_go_leave_nothing(loop):
    chance = random.Random(7)
    seen = []

    def begun(stream):
        stream.on_data = lambda stream, data: stream.write(data)
        stream.on_close = lambda stream, error: seen.append(1)
        what = chance.randrange(6)
        if what == 0:
            stream.close()
        elif what == 1:
            stream.abort()
        elif what == 2:
            stream.write(bytes(100000))
            stream.close()

    listener = loop.listen(("127.0.0.1", 0), begun)

    def some():
        before = len(seen)
        peers = [client_of(listener) for _ in range(20)]
        for number, peer in enumerate(peers):
            if number % 3 == 0:
                reset(peer)
            elif number % 3 == 1:
                peer.sendall(b"hello")
        loop.run_once(0)
        for peer in peers:
            peer.close()
        run_until(loop, lambda: len(seen) == before + 20)
        seen.clear()

    some()
    fds = open_fds()
    for _ in range(scaled(100, 5)):
        some()
    assert open_fds() == fds
    assert blocks_grown(some) <= 2
    statistics = loop.statistics()
    assert (statistics.streams, statistics.listeners, listener.connections) == (0, 1, 0)
    assert statistics.pool_buffers_in_use == statistics.timers == 0
    assert statistics.requests_in_flight == 1
    listener.close()
    finish(loop)


def test_an_idle_stream_takes_less_than_a_kib(loop):
    """Beyond the socket: what the process allocates for one more of them."""
    count = scaled(2000, 500)
    streams = []

    def on_data(stream, data):
        pass

    def begun(stream):
        stream.on_data = on_data
        streams.append(stream)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    listener = loop.listen(("127.0.0.1", 0), begun)
    with many_fds_allowed(2 * count) as allowed:
        count = min(count, allowed // 2)
        peers = [client_of(listener) for _ in range(100)]
        run_until(loop, lambda: len(streams) == 100)
        peers += [client_of(listener) for _ in range(count)]
        before = resident()
        run_until(loop, lambda: len(streams) == 100 + count)
        settle(loop)
        each = (resident() - before) / count
        assert each <= 1024, each
        for peer in peers:
            peer.close()
        listener.close()
        finish(loop)
