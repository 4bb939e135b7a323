"""recv_many: its callbacks, cancellation, timeouts, arguments, and the end of its loop."""

import _testcapi
import contextlib
import errno
import gc
import os
import socket
import sys
import threading
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import pytest
from _fault import run_script
from _streams import KINDS, Heard, ends, reset
from _support import (
    BOUND,
    blocks_grown,
    close_checked,
    finish,
    made_loop,
    open_fds,
    run_until,
    scaled,
    tcp_pair,
    unused_fd,
)

from linux_event import BufferPool, Loop, LoopClosedError, Operation, WrongThreadError

# -- Callbacks ---------------------------------------------------------------------------------------------------------


def test_both_forms_of_callbacks(loop, pair):
    a, b = pair
    got, failed, done = [], [], []
    op = loop.recv_many(b, on_success=got.append, on_error=failed.append)
    assert isinstance(op, Operation)
    assert op.loop is loop
    op.add_done_callback(done.append)
    assert "recv_many" in repr(op)
    assert "in flight" in repr(op)
    with pytest.raises(InvalidStateError):
        op.result()
    a.send(b"1")
    assert got == []  # never within a call
    run_until(loop, lambda: got)
    assert done == []
    a.close()
    finish(loop)
    assert got == [b"1", b""]
    assert failed == []
    assert done == [op]


def test_an_error_goes_to_on_error(loop, pair):
    failed, unheard = [], []
    loop.on_error = lambda source, error: unheard.append(error)
    with tcp_pair() as (a, b), tcp_pair() as (c, d):
        loop.recv_many(b, on_success=lambda data: None, on_error=failed.append)
        loop.recv_many(d, on_success=lambda data: None)
        reset(a)
        reset(c)
        finish(loop)
    assert [type(error) for error in failed] == [ConnectionResetError]
    assert [type(error) for error in unheard] == [ConnectionResetError]


def test_a_callback_that_raises_loses_nothing(loop, pair):
    a, b = pair
    got, raised = [], []
    loop.on_error = lambda source, error: raised.append((source, error.args[0]))

    def fail(result, error):
        got.append(result)
        raise ValueError(len(got))

    op = loop.recv_many(b, fail, pool=BufferPool(loop, 4, 4))
    a.send(b"abcdefghij")
    a.close()
    finish(loop)
    assert got == [b"abcd", b"efgh", b"ij", b""]
    assert raised == [(op, 1), (op, 2), (op, 3), (op, 4)]


def test_ctrl_c_in_a_callback_loses_nothing(loop, pair):
    a, b = pair
    got = []

    def interrupt(result, error):
        got.append(result)
        raise KeyboardInterrupt

    loop.recv_many(b, interrupt, pool=BufferPool(loop, 4, 4))
    a.send(b"abcdefghij")
    a.close()
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            loop.run(BOUND)
    finish(loop)
    assert got == [b"abcd", b"efgh", b"ij", b""]


def test_stop_leaves_nothing_behind_that_was_collected(loop, pair):
    a, b = pair
    got = []

    def stop(result, error):
        got.append(result)
        loop.stop()

    loop.recv_many(b, stop, pool=BufferPool(loop, 4, 4))
    a.send(b"abcdefghij")
    a.close()
    loop.run(BOUND)
    assert got[:3] == [b"abcd", b"efgh", b"ij"]
    loop.run(BOUND)
    assert got == [b"abcd", b"efgh", b"ij", b""]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_cancel_in_a_callback(loop, kind):
    with ends(kind) as (a, b):
        pool = BufferPool(loop, 4, 4)
        got = []

        def cancel(result, error):
            got.append((result, type(error)))
            if error is None:
                assert op.cancel()
                assert op.cancel()
                assert op.done()

        op = loop.recv_many(b, cancel, pool=pool)
        a.send(b"abcdefghijklmnop" * 100)
        finish(loop)
        assert got == [(b"abcd", type(None)), (None, CancelledError)]
        assert op.cancelled()
        assert pool.statistics().in_use == 0
        with pytest.raises(CancelledError):
            op.result()
        pool.close()


def test_cancel_after_the_end_was_collected(loop, pair):
    """The data and the end are in the memory of the loop: nothing of them comes any more."""
    a, b = pair
    got = []

    def cancel(result, error):
        got.append(result)
        op.cancel()

    op = loop.recv_many(b, cancel, pool=BufferPool(loop, 4, 4))
    a.send(b"abcdefgh")
    a.close()
    finish(loop)
    assert got == [b"abcd", None]
    assert loop.statistics().pool_buffers_in_use == 0


def test_cancel_before_the_kernel_has_heard_of_it(loop, pair):
    heard = Heard()
    op = loop.recv_many(pair[1], heard)
    assert op.cancel()
    assert heard.ends == []
    finish(loop)
    assert [type(error) for error in heard.ends] == [CancelledError]


def test_cancel_while_it_waits_for_a_buffer(loop):
    with contextlib.ExitStack() as stack:
        pool = BufferPool(loop, 1, 4, limit=4)
        pairs = [stack.enter_context(ends()) for _ in range(5)]
        heard = [Heard() for _ in pairs]
        ops = []
        waited = []

        def first(result, error):
            if result:
                # All the others have found no buffer.
                waited.append(pool.statistics().waiting)
                for op in ops[1:]:
                    op.cancel()
                waited.append(pool.statistics().waiting)
            heard[0](result, error)

        for (_, b), one in zip(pairs, heard, strict=True):
            ops.append(loop.recv_many(b, one if ops else first, pool=pool))
        for a, _ in pairs:
            a.send(b"abcdefgh")
            a.close()
        finish(loop)
        assert waited[:2] == [5, 1]
        assert heard[0].data == b"abcdefgh"
        assert [type(one.ends[0]) for one in heard[1:]] == [CancelledError] * 4


@pytest.mark.parametrize("timeout", [0, 0.02])
@pytest.mark.parametrize("is_flooded", [False, True])
def test_timeout(loop, pair, timeout, is_flooded):
    a, b = pair
    heard = Heard()
    a.send(b"early")
    op = loop.recv_many(b, heard, timeout=timeout)

    def flood(watcher, events):
        if op.done():
            watcher.destroy()
        else:
            with contextlib.suppress(BlockingIOError):
                a.send(b"x" * 1000)

    if is_flooded:
        loop.io(a, "w", flood)
    finish(loop)
    (error,) = heard.ends
    assert type(error) is TimeoutError
    assert error.errno == errno.ETIMEDOUT
    assert not op.cancelled()
    if timeout:
        assert heard.data.startswith(b"early")
    assert heard.data == (b"early" + b"x" * len(heard.data))[: len(heard.data)]


def test_an_end_within_the_timeout(loop, pair):
    a, b = pair
    heard = Heard()
    loop.recv_many(b, heard, timeout=BOUND)
    a.close()
    finish(loop)
    assert heard.ends == [b""]
    assert loop.statistics().timers == 0


def test_operations_that_start_and_cancel_each_other(loop):
    """Each callback ends its operation and begins the next one on the same socket: each piece comes once."""
    with ends("tcp") as (a, b):
        pieces, count = [], scaled(200)
        ops = []

        def on_data(result, error):
            if error is not None:
                assert type(error) is CancelledError
                if len(pieces) < count:
                    begin()
                return
            pieces.append(result)
            ops[-1].cancel()

        def begin():
            ops.append(loop.recv_many(b, on_data))
            a.send(b"%d," % len(pieces))

        begin()
        finish(loop)
        assert b"".join(pieces) == b"".join(b"%d," % i for i in range(count))


def test_a_busy_connection_starves_nobody():
    with made_loop(max_events=4) as loop, ends() as (a, b), ends() as (c, d):
        order = []
        loop.recv_many(b, lambda result, error: order.append("busy"), pool=BufferPool(loop, 64, 1))
        loop.recv_many(d, lambda result, error: order.append("quiet"))
        loop.run_once(0)
        a.send(b"x" * 60)
        c.send(b"y")
        loop.timer(0, lambda watcher: order.append("timer"))
        loop.defer(loop.defer, order.append, "deferred")
        while len(order) < 63:
            assert loop.run_once(0) <= 4 + 2
        # Within the first two portions all have had their turn.
        assert {"busy", "quiet", "timer", "deferred"} == set(order[:10])
        a.close()
        c.close()
        finish(loop)


def test_memory_that_runs_out_loses_nothing(pair):
    if sys.gettrace():
        pytest.skip("the tracing of lines fails before what is tested does")
    a, b = pair
    data = os.urandom(2000)
    failures = 0
    with made_loop() as loop:
        loop.on_error = lambda source, error: None
        heard = []
        append = heard.append

        def on_data(result, error):
            append(result)

        loop.recv_many(b, on_data, pool=BufferPool(loop, 4, 100, limit=400))
        loop.run_once(0)
        for start in range(0, len(data), 100):
            a.send(data[start : start + 100])
            for n in range(12):
                _testcapi.set_nomemory(n, n + 1)
                try:
                    loop.run_once(0)
                except MemoryError:
                    failures += 1
                finally:
                    _testcapi.remove_mem_hooks()
        run_until(loop, lambda: sum(map(len, heard)) >= len(data))
        assert b"".join(heard) == data
        a.close()
        finish(loop)
        assert heard[-1] == b""


# -- Arguments ---------------------------------------------------------------------------------------------------------


def test_bad_arguments(loop, pair, pipe):
    _, b = pair
    callback = print
    with made_loop() as other:
        foreign = BufferPool(other)
        closed = BufferPool(loop)
        closed.close()
        for arguments, keywords, error, text in (
            ((b,), {}, TypeError, "recv_many needs a callback"),
            ((b,), {"on_error": callback}, TypeError, "recv_many needs a callback"),
            ((b, 3), {}, TypeError, "callback"),
            ((b, callback), {"on_success": callback}, TypeError, "both forms"),
            ((b, callback), {"pool": 3}, TypeError, "pool must be a BufferPool or None, not int"),
            ((b, callback), {"pool": foreign}, ValueError, "belongs to another loop"),
            ((b, callback), {"pool": closed}, RuntimeError, "closed"),
            ((b, callback), {"timeout": -1}, ValueError, "timeout"),
            ((b, callback), {"timeout": "1"}, TypeError, "timeout"),
            (("b", callback), {}, TypeError, "fd"),
            ((-1, callback), {}, ValueError, "fd"),
            ((unused_fd(), callback), {}, OSError, "Bad file descriptor"),
            ((pipe.r, callback), {}, OSError, "not a socket|non-socket"),
            ((b, callback, 5), {}, TypeError, "positional"),
        ):
            with pytest.raises(error, match=text):
                loop.recv_many(*arguments, **keywords)
    assert loop.statistics().operations_in_flight == 0
    with pytest.raises(TypeError, match="cannot be created"):
        type(loop.recv_many(b, callback, timeout=0))()
    with pytest.raises(ValueError, match="cannot be part of a chain"), loop.link():
        loop.recv_many(b, callback)
    loop.on_error = lambda source, error: None
    loop.close()
    with pytest.raises(LoopClosedError):
        loop.recv_many(b, callback)


def test_what_the_kernel_refuses_is_the_end(loop):
    """A socket that is not connected."""
    with socket.socket() as sock:
        heard = Heard()
        loop.recv_many(sock, heard)
        finish(loop)
        (error,) = heard.ends
        assert error.errno == errno.ENOTCONN
        assert error.filename == sock.fileno()


def test_another_thread_is_refused(loop, pair):
    loop.run_once(0)
    seen = []

    def use():
        for call in (lambda: loop.recv_many(pair[1], print), lambda: BufferPool(loop)):
            try:
                call()
            except WrongThreadError as error:
                seen.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(seen) == 2


# -- The end of the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize("arguments", [{}, {"sqpoll": True}, {"entries": 8, "cq_entries": 8}], ids=repr)
def test_loop_closed_under_flood(iterations, arguments):
    before = open_fds()
    with contextlib.ExitStack() as stack:
        loop = Loop(**arguments)
        heard = [Heard() for _ in range(20)]
        pool = BufferPool(loop, 4, 64, limit=512)
        for number, one in enumerate(heard):
            a, b = stack.enter_context(ends())
            loop.recv_many(b, one, pool=pool if number % 2 else None)
            a.send(b"x" * 5000)
        for _ in range(iterations):
            loop.run_once(0)
        close_checked(loop)
        for one in heard:
            assert [type(error) for error in one.ends] == [CancelledError]
            assert one.data == b"x" * len(one.data)
        assert pool.statistics().in_use == 0
        assert pool.is_closed()
    assert open_fds() == before


def test_the_other_end_sees_the_close_at_once(loop, pair):
    """Nothing is in flight on the socket when the last callback has run, so that closing it is seen."""
    a, b = pair
    seen = []

    def on_data(result, error):
        seen.append(result)
        if not result:
            b.close()

    op = loop.recv_many(b, on_data)
    a.send(b"x")
    run_until(loop, lambda: seen)
    op.cancel()
    run_until(loop, lambda: len(seen) == 2)
    assert a.recv(10) == b""


def test_a_dropped_loop_is_collected(pair):
    def make():
        """Everything refers to everything else."""
        loop = Loop()
        pool = BufferPool(loop, 2, 64)
        ops = []
        ops.append(loop.recv_many(pair[0], lambda result, error: ops))
        ops.append(loop.recv_many(pair[1], lambda result, error: pool, pool=pool))
        loop.run_once(0)
        return weakref.ref(loop)

    with pytest.warns(ResourceWarning, match="unclosed"):
        gone = make()
        gc.collect()
    assert gone() is None


def test_nothing_leaks(pair):
    a, b = pair

    def use():
        with Loop() as loop:
            for _ in range(20):
                op = loop.recv_many(b, lambda result, error: None)
                a.send(b"x" * 50_000)
                loop.run_once(0)
                op.cancel()
                loop.run(BOUND)

    assert blocks_grown(use) <= 0


def test_a_forked_child(loop, pair):
    a, b = pair
    heard = Heard()
    pool = BufferPool(loop, 2, 64)
    loop.recv_many(b, heard, pool=pool)
    a.send(b"x" * 1000)
    loop.run_once(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(RuntimeError, match="forked child"):
                loop.recv_many(a, heard)
            loop.close()
            pool.close()
            status = 0 if pool.is_closed() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    a.send(b"y")
    a.close()
    finish(loop)
    assert heard.data == b"x" * 1000 + b"y"


def test_interpreter_exit_under_flood():
    run_script("""
        import socket
        from linux_event import BufferPool, Loop
        loop = Loop()
        a, b = socket.socketpair()
        op = loop.recv_many(b, lambda result, error: None, pool=BufferPool(loop, 1, 8, limit=8))
        a.send(b"x" * 1000)
        loop.run_once(0)
        loop.close()
    """).check(stdout="")
