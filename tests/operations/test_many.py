"""recv_many: every byte once and in order, whatever ends the request early, and the end last."""

import contextlib
import errno
import os
import random
import socket

import pytest
from _streams import KINDS, Heard, Sender, ends, reset
from _support import finish, made_loop, run_until, scaled, tcp_pair

from linux_event import BufferPool

# -- All of the data, and the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["close", "shutdown"])
@pytest.mark.parametrize("when", ["before", "after", "between"])
def test_the_end_comes_last(loop, kind, end, when):
    """Data and end may be there before the request is armed, come later, or together: no end is missed."""
    with ends(kind) as (a, b):
        heard = Heard()
        if when != "before":
            op = loop.recv_many(b, heard)
            loop.run_once(0)
        if when == "between":
            a.send(b"hello ")
            run_until(loop, lambda: heard.pieces)
        a.send(b"world")
        if end == "close":
            a.close()
        else:
            a.shutdown(socket.SHUT_WR)
        if when == "before":
            op = loop.recv_many(b, heard)
        finish(loop)
        assert heard.data == (b"hello world" if when == "between" else b"world")
        assert heard.ends == [b""]
        assert op.done()
        assert op.result() == b""
        assert op.exception() is None
        assert not op.cancelled()
        assert not op.cancel()
        assert loop.statistics().requests_in_flight == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_a_reset_is_told_after_the_data(loop, when, size):
    with tcp_pair() as (a, b):
        heard = Heard()
        if when == "after":
            op = loop.recv_many(b, heard)
            loop.run_once(0)
        if size:
            a.send(b"x" * size)
        reset(a)
        if when == "before":
            op = loop.recv_many(b, heard)
        finish(loop)
        # What of the data the kernel still has at a reset is its business; what it hands over comes first.
        assert heard.data == b"x" * len(heard.data)
        (error,) = heard.ends
        assert type(error) is ConnectionResetError
        assert error.filename == b.fileno()
        assert op.exception() is error
        with pytest.raises(ConnectionResetError):
            op.result()


def test_a_local_shutdown_is_an_end(loop, pair):
    _, b = pair
    heard = Heard()
    loop.recv_many(b, heard)
    loop.run_once(0)
    b.shutdown(socket.SHUT_RD)
    finish(loop)
    assert heard.ends == [b""]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_other_direction_stays_open(loop, kind):
    with ends(kind) as (a, b):
        heard, echo = Heard(), Heard()
        loop.recv_many(b, heard)
        loop.recv_many(a, echo)
        a.send(b"question")
        a.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: heard.ends)
        b.send(b"answer")
        b.close()
        finish(loop)
        assert heard.data == b"question"
        assert echo.data == b"answer"
        assert echo.ends == [b""]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_one_byte_at_a_time(loop, kind):
    data = bytes(range(256)) * scaled(8)
    with ends(kind) as (a, b):
        heard = Heard()
        loop.recv_many(b, heard)
        Sender(loop, a, data, portion=1)
        finish(loop)
        assert heard.data == data
        assert heard.ends == [b""]


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(
    "arguments", [{}, {"sqpoll": True}, {"entries": 8, "cq_entries": 8}, {"max_events": 1}], ids=repr
)
def test_a_hundred_mebibytes(kind, arguments):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    size = scaled(100 << 20, least=1 << 20) // (1 if not arguments else 10)
    data = random.Random(seed).randbytes(1 << 20)
    with made_loop(**arguments) as loop, ends(kind) as (a, b):
        total = 0
        done = []

        def on_data(result, error):
            nonlocal total
            assert error is None
            if not result:
                done.append(True)
                return
            start = total % len(data)
            for begin in range(0, len(result), len(data)):
                part = result[begin : begin + len(data)]
                expected = data[start : start + len(part)]
                expected += data[: len(part) - len(expected)]
                assert part == expected
            total += len(result)

        loop.recv_many(b, on_data)
        sent = 0

        def on_write(watcher, events):
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                while sent < size:
                    start = sent % len(data)
                    sent += a.send(memoryview(data)[start : start + size - sent])
                watcher.destroy()
                a.shutdown(socket.SHUT_WR)

        loop.io(a, "w", on_write)
        finish(loop)
        assert done
        assert total == size
        assert loop.statistics().pool_buffers_in_use == 0


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(
    "arguments", [{}, {"sqpoll": True}, {"entries": 8, "cq_entries": 8}, {"max_events": 1}], ids=repr
)
@pytest.mark.parametrize("limit", [128, 1024])
def test_twenty_connections_share_two_buffers(kind, arguments, limit):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    sent = [draw.randbytes(draw.randrange(scaled(10_000))) for _ in range(20)]
    with made_loop(**arguments) as loop, contextlib.ExitStack() as stack:
        pool = stack.enter_context(BufferPool(loop, 2, 64, limit=limit))
        heard = []
        for data in sent:
            a, b = stack.enter_context(ends(kind))
            heard.append(Heard())
            loop.recv_many(b, heard[-1], pool=pool)
            Sender(loop, a, data, portion=draw.choice((1, 64, 1000, 100_000)) if len(data) < 3000 else 1000)
        finish(loop)
        for one, data in zip(heard, sent, strict=True):
            assert one.data == data
            assert one.ends == [b""]
            assert max(map(len, one.pieces), default=0) <= 64
        left = pool.statistics()
        assert left.in_use == left.waiting == 0
        assert left.exhausted > 0
        assert left.buffers <= limit // 64
        assert left.grown == (0 if limit == 128 else left.grown)


def test_a_shortage_does_not_spin(loop, pair):
    """While all buffers are taken nothing is armed again."""
    a, b = pair
    pool = BufferPool(loop, 1, 8, limit=8)
    before = None
    pieces = []

    def hold(result, error):
        # The only buffer is back when the callback runs: hold the loop up where it has to wait.
        pieces.append(result)

    loop.recv_many(b, hold, pool=pool)
    a.send(b"12345678" * 50)
    run_until(loop, lambda: len(pieces) == 50)
    before = loop.statistics()
    a.send(b"x")
    run_until(loop, lambda: len(pieces) == 51)
    after = loop.statistics()
    assert after.syscalls - before.syscalls <= 6
    # A pool that is quiet costs nothing.
    loop.run(0.05)
    assert loop.statistics().syscalls - after.syscalls <= 4
    a.close()
    finish(loop)
    assert b"".join(pieces) == b"12345678" * 50 + b"x"


def test_a_quiet_connection_does_not_keep_the_buffers_from_others(loop):
    """Two operations wait for the buffer; the one that is let in first finds its data gone."""
    with ends() as (a, b), ends() as (c, d):
        pool = BufferPool(loop, 1, 4, limit=4)
        first, second = [], Heard()

        def rob(result, error):
            first.append(result)
            if len(first) == 1:
                b.recv(100)

        op = loop.recv_many(b, rob, pool=pool)
        loop.recv_many(d, second, pool=pool)
        a.send(b"abcdefgh")
        c.send(b"12345678")
        c.close()
        run_until(loop, lambda: second.ends)
        assert second.data == b"12345678"
        op.cancel()
        finish(loop)
        assert first[0] == b"abcd"


def test_big_streams_get_big_buffers_and_small_ones_again(loop):
    with ends("tcp") as (a, b):
        heard = Heard()
        op = loop.recv_many(b, heard)
        data = os.urandom(4 << 20)
        left = memoryview(data)

        def on_write(watcher, events):
            nonlocal left
            left = left[a.send(left) :]
            if not left:
                watcher.destroy()

        loop.io(a, "w", on_write)
        run_until(loop, lambda: len(heard.data) == len(data))
        assert heard.data == data
        assert max(map(len, heard.pieces)) > 16384
        for i in range(40):
            count = len(heard.pieces)
            a.send(b"%d" % i)
            run_until(loop, lambda count=count: len(heard.pieces) > count)
        del heard.pieces[:]
        a.send(b"y" * 40_000)
        run_until(loop, lambda: len(heard.data) == 40_000)
        assert max(map(len, heard.pieces)) == 16384
        op.cancel()
        finish(loop)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_datagrams_are_pieces_and_have_no_end(loop, kind):
    if kind == "udp":
        b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        b.bind(("127.0.0.1", 0))
        a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        a.connect(b.getsockname())
    else:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        got = []
        op = loop.recv_many(b, lambda result, error: got.append(result))
        for data in (b"one", b"", b"", b"four", b"x" * 20_000, b"six"):
            a.send(data)
        run_until(loop, lambda: len(got) == 6)
        assert got == [b"one", b"", b"", b"four", b"x" * 16384, b"six"]
        assert not op.done()
        op.cancel()
        finish(loop)


@pytest.mark.parametrize("as_number", [False, True])
def test_a_socket_closed_meanwhile_is_not_taken_for_another(loop, as_number):
    """The number of the fd belongs to another socket when the request has to be armed again: its data are not touched."""
    with ends() as (a, b), ends() as (c, d):
        heard = Heard()
        number = b.fileno()

        def on_data(result, error):
            heard(result, error)
            if len(heard.pieces) == 1:
                # It has found no buffer for the rest, and ended.
                b.close()
                os.dup2(d.fileno(), number)

        loop.recv_many(number if as_number else b, on_data, pool=BufferPool(loop, 1, 4, limit=4))
        a.send(b"abcdefgh")
        c.send(b"secret")
        finish(loop)
        assert heard.data == b"abcd"
        (error,) = heard.ends
        assert error.errno == errno.EBADF
        assert d.recv(100) == b"secret"
        os.close(number)
