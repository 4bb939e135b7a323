"""BufferPool: what it counts, how far it grows, and when its memory goes."""

import resource
import socket
import weakref

import pytest
from _support import blocks_grown, finish, made_loop, run_until, scaled

from linux_event import BufferPool, Loop, LoopClosedError
from linux_event.statistics import PoolStatistics


def test_statistics(loop):
    pool = BufferPool(loop, 3, 100, limit=1000)
    at_first = pool.statistics()
    assert at_first == PoolStatistics(
        buffers=3, size=100, bytes=300, provided=3, in_use=0, waiting=0, exhausted=0, grown=0
    )
    with pytest.raises(AttributeError):
        at_first.buffers = 4
    assert pool.loop is loop
    assert repr(pool) == "<BufferPool buffers=3 size=100 in_use=0>"
    assert not pool.is_closed()
    pool.close()
    assert repr(pool) == "<BufferPool buffers=0 size=100 closed>"


def test_defaults_are_a_few_mebibytes_at_most(loop):
    pool = BufferPool(loop)
    assert 0 < pool.statistics().bytes <= 4 << 20


def test_data_that_wait_are_counted(loop, pair):
    a, b = pair
    pool = BufferPool(loop, 8, 4)
    seen = []

    def count(result, error):
        seen.append((pool.statistics().in_use, loop.statistics().pool_buffers_in_use, pool.statistics().provided))

    op = loop.recv_many(b, count, pool=pool)
    a.send(b"x" * 16)
    run_until(loop, lambda: len(seen) == 4)
    # The buffer of the piece that the callback has got is back already.
    assert seen == [(3, 3, 5), (2, 2, 6), (1, 1, 7), (0, 0, 8)]
    op.cancel()
    finish(loop)


@pytest.mark.parametrize(("limit", "most"), [(2 * 64, 2), (3 * 64, 3), (100 * 64, 100), (None, 1024)])
def test_growth(loop, pair, limit, most):
    """A pool that is short doubles, up to its limit, and not further."""
    a, b = pair
    pool = BufferPool(loop, 2, 64, limit=limit)
    counts = {2}
    got = 0

    def on_data(result, error):
        nonlocal got
        got += len(result or b"")
        counts.add(pool.statistics().buffers)

    loop.recv_many(b, on_data, pool=pool)
    sent = 0
    for _ in range(scaled(30, least=10)):
        sent += a.send(b"x" * 60_000)
        run_until(loop, lambda sent=sent: got == sent)
    a.close()
    finish(loop)
    grown = sorted(counts)
    assert grown[-1] <= most
    assert grown == [2] + [min(2 * count, most) for count in grown[:-1]]
    assert pool.statistics().grown == len(grown) - 1
    assert pool.statistics().exhausted >= len(grown) - 1
    assert pool.statistics().in_use == 0


def test_what_is_not_needed_is_kept_back(loop, pair):
    """After a burst fewer buffers are provided again: those that are stay in the cache."""
    a, b = pair
    pool = BufferPool(loop, 64, 16)
    got = 0

    def on_data(result, error):
        nonlocal got
        got += len(result or b"")

    loop.recv_many(b, on_data, pool=pool)
    assert pool.statistics().provided == 64
    for i in range(20_000):
        a.send(b"y")
        run_until(loop, lambda i=i: got > i)
        if pool.statistics().provided < 64 // 2:
            break
    left = pool.statistics()
    assert left.buffers == 64
    assert 8 - 8 // 4 <= left.provided < 32
    # And they come back when they are needed.
    a.send(b"x" * 16 * 64)
    want = got + 16 * 64
    run_until(loop, lambda: got == want)
    assert pool.statistics().provided > left.provided
    assert pool.statistics().grown == 0
    a.close()
    finish(loop)


def test_two_pools_on_one_loop(loop):
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    with a, b, c, d, BufferPool(loop, 2, 3) as small, BufferPool(loop, 2, 7) as large:
        got = {"small": [], "large": []}
        loop.recv_many(b, lambda result, error: got["small"].append(result), pool=small)
        loop.recv_many(d, lambda result, error: got["large"].append(result), pool=large)
        a.send(b"0123456789")
        c.send(b"0123456789")
        a.close()
        c.close()
        finish(loop)
        assert got == {"small": [b"012", b"345", b"678", b"9", b""], "large": [b"0123456", b"789", b""]}


def test_close(loop, pair):
    _, b = pair
    pool = BufferPool(loop, 2, 8)
    op = loop.recv_many(b, lambda result, error: None, pool=pool)
    with pytest.raises(RuntimeError, match="used by 1 operations"):
        pool.close()
    loop.run_once(0)
    op.cancel()
    finish(loop)
    pool.close()
    pool.close()
    assert pool.is_closed()
    with pytest.raises(RuntimeError, match="closed"), pool:
        pass
    with BufferPool(loop) as other:
        assert not other.is_closed()
    assert other.is_closed()


def test_closed_with_its_loop(pair):
    with made_loop() as loop:
        pool = BufferPool(loop, 2, 8)
        loop.recv_many(pair[1], lambda result, error: None, pool=pool)
        loop.run_once(0)
    assert pool.is_closed()
    pool.close()
    assert pool.statistics().in_use == 0
    with pytest.raises(LoopClosedError):
        BufferPool(loop)


def test_dropped_while_it_is_used(loop, pair):
    """The operation keeps it alive; after that it is gone, and its number is free again."""
    a, b = pair
    got = []
    pool = BufferPool(loop, 2, 8)
    op = loop.recv_many(b, lambda result, error: got.append(result), pool=pool)
    del pool
    a.send(b"x")
    run_until(loop, lambda: got == [b"x"])
    op.cancel()
    finish(loop)


def test_memory_is_given_back(loop):
    def use():
        for _ in range(5):
            BufferPool(loop, 16, 1 << 20).close()
            BufferPool(loop, 16, 1 << 20)

    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = mapped()
    assert blocks_grown(use) <= 0
    assert mapped() - pages < 16 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def mapped():
    """Bytes of address space in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "text"),
    [
        ((0,), {}, ValueError, "count"),
        ((-1,), {}, ValueError, "count"),
        ((32769,), {}, ValueError, "count"),
        (("2",), {}, TypeError, "count"),
        ((2, 0), {}, ValueError, "size"),
        ((2, 1 << 31), {}, ValueError, "size"),
        ((2, 1.5), {}, TypeError, "size"),
        ((2, 64), {"limit": 127}, ValueError, "limit"),
        ((2, 64), {"limit": "128"}, TypeError, "limit"),
        ((32768, 1 << 30), {}, MemoryError, "no memory"),
    ],
)
def test_bad_arguments(loop, arguments, keywords, error, text):
    with pytest.raises(error, match=text):
        BufferPool(loop, *arguments, **keywords)


def test_the_loop_has_to_be_one():
    with pytest.raises(TypeError, match="loop must be a Loop, not int"):
        BufferPool(3)
    with pytest.raises(TypeError):
        BufferPool()


def test_init_is_called_once(loop):
    pool = BufferPool(loop, count=1, size=1)
    with pytest.raises(RuntimeError, match="twice"):
        pool.__init__(loop)


def test_never_initialised():
    pool = BufferPool.__new__(BufferPool)
    assert pool.is_closed()
    pool.close()
    assert pool.statistics().buffers == 0


def test_an_odd_number_of_buffers(loop, pair):
    a, b = pair
    data = bytes(range(256)) * 4
    for count in (1, 3, 5, 33):
        got = []
        pool = BufferPool(loop, count, 7, limit=7 * count)
        op = loop.recv_many(b, lambda result, error, got=got: got.append(result), pool=pool)
        a.send(data)
        run_until(loop, lambda got=got: sum(map(len, got)) == len(data))
        assert b"".join(got) == data
        op.cancel()
        finish(loop)


def test_collected_with_its_loop():
    loop = Loop()
    pool = BufferPool(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop, pool
    assert gone() is None


def test_closed_by_the_conversion_of_a_timeout(loop, pair):
    """It is in use from the moment that it was looked at."""
    pool = BufferPool(loop, 4, 100)
    tried = []

    class Closing:
        def __index__(self):
            with pytest.raises(RuntimeError, match="is used by 1 operations"):
                pool.close()
            tried.append(True)
            return 5

    class Failing:
        def __index__(self):
            raise ValueError("no number")

    a, b = pair
    calls = []
    operation = loop.recv_many(a, lambda *call: calls.append(call), pool=pool, timeout=Closing())
    b.send(b"abc")
    run_until(loop, lambda: calls)
    operation.cancel()
    finish(loop)
    assert tried
    assert calls[0] == (b"abc", None)
    with pytest.raises(ValueError, match="no number"):
        loop.recv_many(a, print, pool=pool, timeout=Failing())
    pool.close()
