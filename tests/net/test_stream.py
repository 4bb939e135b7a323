"""Streams: what comes, what is written, the marks of the queue, half closing, and what a stream tells of itself."""

import array
import os
import re
import socket

import pytest
from _net import FAMILIES, Heard, settle, stream_and_peer
from _support import BOUND, finish, run_until

from linux_event import Stream


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def both(loop, family, tmp_path):
    with stream_and_peer(loop, family, tmp_path) as ends:
        yield ends
        ends[0].abort()
        settle(loop)


# -- Receiving ---------------------------------------------------------------------------------------------------------


def test_data_come_in_order(loop, both):
    stream, peer = both
    heard = Heard(stream)
    for number in range(100):
        peer.sendall(b"%03d" % number)
        if number % 10 == 0:
            loop.run_once(0)
    run_until(loop, lambda: len(heard.data) == 300)
    assert heard.data == b"".join(b"%03d" % number for number in range(100))
    assert set(heard.calls) == {"data"}


def test_without_on_data_nothing_is_received(loop, both):
    stream, peer = both
    peer.sendall(b"early")
    settle(loop)
    assert not stream.is_reading()
    assert loop.statistics().pool_buffers_in_use == 0
    heard = Heard(stream)
    assert stream.is_reading()
    run_until(loop, lambda: heard.data == b"early")


def test_receiving_begins_when_on_connect_has_returned(loop, family, tmp_path):
    made = []

    def begun(stream):
        made.append(Heard(stream))
        loop.defer(made.append, "deferred")

    with stream_and_peer(loop, family, tmp_path, begun) as (stream, peer):
        peer.sendall(b"hello")
        run_until(loop, lambda: made[0].data == b"hello")
        peer.close()
        run_until(loop, lambda: "eof" in made[0].calls)
        stream.close()
        finish(loop)
    assert made[0].calls == ["data", "eof", "close"]


def test_on_data_can_be_changed_and_taken_away(loop, both):
    stream, peer = both
    first, second = [], []
    stream.on_data = lambda stream, data: first.append(data)
    peer.sendall(b"1")
    run_until(loop, lambda: first)
    stream.on_data = None
    peer.sendall(b"2")
    settle(loop)
    peer.sendall(b"3")
    settle(loop)
    assert (first, second) == ([b"1"], [])
    stream.on_data = lambda stream, data: second.append(data)
    run_until(loop, lambda: b"".join(second) == b"23")
    assert first == [b"1"]


def test_a_pause_stops_calls_at_once_and_loses_nothing(loop, both):
    stream, peer = both
    heard = Heard(stream)

    def once(stream, data):
        heard.pieces.append(data)
        stream.pause_reading()

    stream.on_data = once
    sent = 0
    for _ in range(10):
        peer.sendall(b"abcdefgh" * 100)
        sent += 800
    run_until(loop, lambda: heard.pieces)
    for _ in range(3):
        count = len(heard.pieces)
        settle(loop)
        assert len(heard.pieces) == count
        assert not stream.is_reading()
        stream.resume_reading()
        assert stream.is_reading()
        peer.sendall(b"abcdefgh")
        sent += 8
        run_until(loop, lambda count=count: len(heard.pieces) > count)
    stream.on_data = heard.on_data
    stream.resume_reading()
    stream.resume_reading()
    run_until(loop, lambda: len(heard.data) == sent)
    assert heard.data == b"abcdefgh" * (sent // 8)
    assert loop.statistics().pool_buffers_in_use == 0


def test_a_pause_holds_the_sender_back(loop, both):
    stream, peer = both
    stream.on_data = lambda stream, data: None
    stream.pause_reading()
    peer.setblocking(False)
    count = 0
    idle = 0
    while idle < 5:
        try:
            count += peer.send(bytes(65536))
            idle = 0
        except BlockingIOError:
            idle += 1
            loop.run_once(0.01)
        assert count < 64 << 20
    heard = Heard(stream)
    stream.resume_reading()
    run_until(loop, lambda: len(heard.data) == count)


def test_short_pauses_make_no_requests(loop, both):
    stream, _peer = both
    stream.on_data = lambda stream, data: None
    settle(loop)
    before = loop.statistics().submissions
    for _ in range(10):
        stream.pause_reading()
        settle(loop)
        stream.resume_reading()
        settle(loop)
    assert loop.statistics().submissions == before


# -- Writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4096, 4097, 16384, 16385, 100000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_what_can_be_written(loop, both, size, kind):
    stream, peer = both
    said = os.urandom(size)
    data = kind(said)
    assert stream.write(data) == (stream.write_buffer_size <= 65536)
    stream.write_eof()
    heard = []
    loop.io(peer, "r", lambda watcher, events: heard.append(peer.recv(1 << 20)) or heard[-1] or watcher.destroy())
    run_until(loop, lambda: heard and not heard[-1])
    assert b"".join(heard) == said
    assert stream.write_buffer_size == 0
    if kind is bytearray:
        data += b"free to be resized"


def test_a_big_buffer_is_held_until_it_is_sent(loop, both):
    stream, peer = both
    stream.write(b"before")  # so that it is not tried at once
    settle(loop)
    peer.settimeout(BOUND)
    data = bytearray(8 << 20)
    stream.write(data)
    with pytest.raises(BufferError):
        data.append(0)
    assert stream.write_buffer_size > 0
    received = 0
    peer.setblocking(False)

    def take(watcher, events):
        nonlocal received
        received += len(peer.recv(1 << 20))

    watcher = loop.io(peer, "r", take)
    run_until(loop, lambda: received == len(data) + 6)
    watcher.destroy()
    settle(loop)
    data.append(0)


def test_small_writes_leave_together(loop, both):
    stream, peer = both
    settle(loop)
    before = loop.statistics()
    said = [b"%04d" % number for number in range(1000)]
    for piece in said:
        assert stream.write(piece)
    assert stream.write_buffer_size == 4000
    settle(loop)
    after = loop.statistics()
    assert after.submissions - before.submissions <= 2
    assert peer.recv(65536) == b"".join(said)
    assert stream.write_buffer_size == 0


def test_writes_of_all_sizes_keep_their_order(loop, both):
    stream, peer = both
    said = bytearray()
    for number in range(400):
        piece = bytes([number % 251]) * (1, 7, 4096, 4097, 5000, 20000, 3)[number % 7]
        said += piece
        stream.write(piece if number % 3 else bytearray(piece))
        if number % 50 == 0:
            loop.run_once(0)
    stream.close()
    heard = []
    loop.io(peer, "r", lambda watcher, events: heard.append(peer.recv(1 << 20)) or heard[-1] or watcher.destroy())
    finish(loop)
    assert b"".join(heard) == said


def test_writelines(loop, both):
    stream, peer = both
    assert stream.writelines([b"a", bytearray(b"b"), memoryview(b"c"), b"", b"d"]) is True
    assert stream.writelines(iter([])) is True
    with pytest.raises(TypeError, match="buffers must be bytes-like objects, not str"):
        stream.writelines([b"not sent", "text"])
    assert stream.writelines(bytes(30000) for _ in range(400)) is False
    assert stream.writelines([]) is False
    settle(loop)
    assert peer.recv(4) == b"abcd"


def test_the_marks(loop, both):
    stream, peer = both
    heard = Heard(stream)
    assert stream.write_limits == (65536, 16384)
    stream.set_write_limits(1000, 100)
    assert stream.write_limits == (1000, 100)
    assert stream.write(bytes(1000))
    assert not stream.write(b"x")
    assert stream.write_buffer_size == 1001
    assert heard.calls == []
    run_until(loop, lambda: heard.calls)
    assert heard.calls == ["drain"]
    assert stream.write(b"y")
    settle(loop)
    assert heard.calls == ["drain"]
    assert len(peer.recv(5000)) == 1002


def test_marks_by_one_of_them(loop, both):
    stream, _peer = both
    for arguments, result in (
        ((), (65536, 16384)),
        ((None, 100), (400, 100)),
        ((100,), (100, 25)),
        ((0,), (0, 0)),
        ((0, 0), (0, 0)),
    ):
        stream.set_write_limits(*arguments)
        assert stream.write_limits == result
    for arguments, error in (
        ((-1,), ValueError),
        ((10, 11), ValueError),
        ((10, -1), ValueError),
        (("1",), TypeError),
        ((1.5,), TypeError),
        ((True,), TypeError),
    ):
        with pytest.raises(error):
            stream.set_write_limits(*arguments)
    assert stream.write_limits == (0, 0)


def test_a_high_mark_of_zero(loop, both):
    stream, _peer = both
    heard = Heard(stream)
    stream.set_write_limits(0)
    assert not stream.write(b"x")
    assert stream.write(b"") is False
    run_until(loop, lambda: heard.calls == ["drain"])
    assert stream.write(b"") is True


def test_raising_the_low_mark_drains(loop, both):
    stream, peer = both
    heard = Heard(stream)
    while stream.write_buffer_size < 1 << 20:
        stream.write(bytes(1 << 16))
    settle(loop)
    assert heard.calls == []
    stream.set_write_limits(64 << 20, 32 << 20)
    run_until(loop, lambda: heard.calls)
    assert heard.calls == ["drain"]
    assert peer.recv(1)


def test_a_slow_reader_with_a_bounded_queue(loop, both):
    """Written only when it is welcome, the queue stays bounded, and all arrives."""
    stream, peer = both
    total, queued_max, sent = 8 << 20, 0, 0
    pattern = bytes(range(256)) * 64

    def more(stream):
        nonlocal sent, queued_max
        while sent < total:
            sent += len(pattern)
            goes_on = stream.write(pattern)
            queued_max = max(queued_max, stream.write_buffer_size)
            if not goes_on:
                return
        stream.close()

    stream.on_drain = more
    more(stream)
    heard = bytearray()

    def take(watcher, events):
        data = peer.recv(10000)
        heard.extend(data)
        if not data:
            watcher.destroy()

    loop.io(peer, "r", take)
    finish(loop)
    assert len(heard) == total
    assert heard == pattern * (total // len(pattern))
    assert queued_max <= 65536 + len(pattern)


# -- Half closing ------------------------------------------------------------------------------------------------------


def test_half_close_by_the_other_end(loop, both):
    stream, peer = both
    heard = Heard(stream)
    peer.sendall(b"question")
    peer.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.data == b"question"
    assert not stream.is_closing()
    assert not stream.is_reading()
    stream.write(b"answer")
    stream.close()
    assert stream.is_closing()
    assert receive_all_while(loop, peer) == b"answer"
    finish(loop)
    assert heard.calls == ["data", "eof", "close"]
    assert heard.errors == [None]


def test_half_close_by_this_end(loop, both):
    stream, peer = both
    heard = Heard(stream)
    stream.write(b"question")
    stream.write_eof()
    stream.write_eof()
    with pytest.raises(RuntimeError, match=r"write\(\) after write_eof\(\)"):
        stream.write(b"more")
    assert receive_all_while(loop, peer) == b"question"
    peer.sendall(b"answer")
    run_until(loop, lambda: heard.data == b"answer")
    peer.close()
    run_until(loop, lambda: "eof" in heard.calls)
    stream.close()
    finish(loop)
    assert heard.errors == [None]


def test_without_on_eof_it_is_closed_when_all_is_sent(loop, both):
    stream, peer = both
    heard = Heard(stream, eof=False)
    said = os.urandom(4 << 20)
    stream.on_data = lambda stream, data: stream.write(said)
    peer.sendall(b"?")
    peer.shutdown(socket.SHUT_WR)
    assert receive_all_while(loop, peer) == said
    finish(loop)
    assert heard.calls == ["close"]
    assert heard.errors == [None]


def test_the_end_is_seen_without_on_data(loop, both):
    stream, peer = both
    ended = []
    stream.on_close = lambda stream, error: ended.append(error)
    settle(loop)
    peer.close()
    finish(loop)
    assert ended == [None]


def test_the_end_waits_for_the_data(loop, both):
    """Nobody takes the data, so the end behind them is not told."""
    stream, peer = both
    heard = Heard(stream)
    stream.on_data = None
    peer.sendall(b"unread")
    peer.close()
    settle(loop)
    assert heard.calls == []
    stream.on_data = heard.on_data
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.calls == ["data", "eof"]


@pytest.mark.parametrize("pieces", [1, 3])
def test_data_and_the_end_at_once(loop, both, pieces):
    stream, peer = both
    heard = Heard(stream)
    settle(loop)
    for _ in range(pieces):
        peer.sendall(b"last words")
    peer.close()
    run_until(loop, lambda: "eof" in heard.calls)
    assert heard.data == b"last words" * pieces


# -- What it tells of itself -------------------------------------------------------------------------------------------


def receive_all_while(loop, peer):
    """All that comes until the end, while the loop runs."""
    heard = []
    loop.io(peer, "r", lambda watcher, events: heard.append(peer.recv(1 << 20)) or heard[-1] or watcher.destroy())
    run_until(loop, lambda: heard and not heard[-1])
    return b"".join(heard)


def test_names(loop, both, family):
    stream, peer = both
    assert stream.peername == peer.getsockname()
    assert stream.sockname == peer.getpeername()
    assert stream.loop is loop
    assert stream.fileno() >= 0
    assert stream.data is None
    stream.data = {"any": "thing"}
    assert stream.data == {"any": "thing"}
    assert re.fullmatch(rf"<Stream fd=\d+ peer={re.escape(repr(stream.peername))} queued=0 open>", repr(stream))
    assert not stream.is_closing()
    assert not stream.is_closed()
    peername, sockname = stream.peername, stream.sockname
    stream.abort()
    assert "closing" in repr(stream)
    settle(loop)
    assert (stream.peername, stream.sockname) == (peername, sockname)
    assert "closed" in repr(stream)
    assert stream.data == {"any": "thing"}
    assert stream.loop is loop


def test_the_name_of_the_other_end_is_known_in_on_close(loop):
    names = []
    with stream_and_peer(loop) as (stream, peer):
        stream.on_data = lambda stream, data: None
        stream.on_close = lambda stream, error: names.append(stream.peername)
        expected = peer.getsockname()
        peer.close()
        finish(loop)
        assert names == [expected]
        assert stream.sockname is None


def test_the_socket(loop, both):
    stream, _peer = both
    sock = stream.socket
    assert stream.socket is sock
    assert sock.fileno() == stream.fileno()
    assert not os.get_inheritable(sock.fileno())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    stream.abort()
    settle(loop)
    assert sock.fileno() == -1
    assert stream.socket is None


def test_tcp_has_no_delay(loop):
    with stream_and_peer(loop) as (stream, _peer):
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        stream.abort()
        settle(loop)


def test_it_cannot_be_made_by_hand():
    with pytest.raises(TypeError, match="Stream cannot be created: a Loop makes them"):
        Stream()


@pytest.mark.parametrize("name", ["on_data", "on_eof", "on_drain", "on_close"])
def test_callbacks_are_checked(loop, both, name):
    stream, _peer = both
    assert getattr(stream, name) is None
    with pytest.raises(TypeError, match=f"{name} must be callable, not int"):
        setattr(stream, name, 1)
    setattr(stream, name, print)
    assert getattr(stream, name) is print
    setattr(stream, name, None)
    assert getattr(stream, name) is None
    stream.abort()
    settle(loop)
    setattr(stream, name, print)  # of no effect: it would keep things alive
    assert getattr(stream, name) is None


def test_what_cannot_be_written(loop, both):
    stream, _peer = both
    for data, error in (
        ("text", TypeError),
        (1, TypeError),
        (None, TypeError),
        (memoryview(b"abcd")[::2], BufferError),
    ):
        with pytest.raises(error):
            stream.write(data)
    assert stream.write_buffer_size == 0
