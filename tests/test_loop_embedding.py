"""Loop: its fd inside other event loops, and the two ways of polling, sqpoll and busy_poll."""

import asyncio
import os
import select
import selectors
import signal
import threading
import time

import _fault
import pytest
from _fault import unexpected
from _support import BOUND, Pipe, eventfds, made_loop, pipes, run_until

needs_strace = pytest.mark.skipif(_fault.strace_missing() is not None, reason=str(_fault.strace_missing()))

# --- inside another event loop ------------------------------------------------------------------------------------


def readable(loop, timeout=BOUND):
    return bool(select.select([loop.fileno()], [], [], timeout)[0])


def test_fileno_is_readable_when_a_watched_fd_is(loop, pipe):
    called = []
    loop.io(pipe.r, "r", lambda w, events: called.append(pipe.take()))
    loop.run_once(0)
    assert not readable(loop, 0)
    pipe.put(b"now")
    assert readable(loop)
    assert loop.run_once(0) == 1
    assert called == [b"now"]
    assert not readable(loop, 0)


def test_fileno_is_readable_as_long_as_a_level_triggered_fd_is(loop, pipe):
    called = []
    loop.io(pipe.r, "r", lambda w, events: called.append(pipe.take(1)))
    loop.run_once(0)
    pipe.put(b"abc")
    while readable(loop, 0.05 if len(called) == 3 else BOUND):
        loop.run_once(0)
    assert called == [b"a", b"b", b"c"]


@pytest.mark.parametrize("edge", [True, False])
def test_what_happens_to_an_eventfd_is_shown_each_time(loop, edge):
    """The kernel puts off a sign that it would have to give while an eventfd is written to, and does so once for a
    registration."""
    with eventfds(2) as fds:
        called = []
        for fd in fds:
            loop.io(fd, "r", lambda w, events: called.append(os.eventfd_read(w.fd)), edge=edge)
        loop.run_once(0)
        for times in range(1, 10):
            for fd in fds:
                os.eventfd_write(fd, 1)
            while len(called) < times * len(fds):
                assert readable(loop)
                loop.run_once(0)
        assert called == [1] * len(called)


def test_each_signal_is_shown(loop):
    caught = []
    loop.signal(signal.SIGUSR1, lambda w, number: caught.append(number))
    loop.run_once(0)
    for times in range(1, 10):
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(caught) < times:
            assert readable(loop)
            loop.run_once(0)


def test_fileno_is_readable_when_a_timer_is_due(loop):
    fired = []
    loop.timer(0.02, fired.append)
    loop.run_once(0)
    began = time.monotonic_ns()
    while not fired:
        assert readable(loop)
        loop.run_once(0)
    assert time.monotonic_ns() - began < BOUND * 1e9
    assert not readable(loop, 0)


def test_fileno_is_readable_when_a_callback_is_deferred(loop, pipe):
    called = []
    loop.io(pipe.r, "r", print)
    loop.run_once(0)
    for method in (loop.defer, loop.post):
        assert not readable(loop, 0)
        method(called.append, 1)
        assert readable(loop)
        loop.run_once(0)
    assert called == [1, 1]


def test_fileno_is_readable_for_what_was_started_since_the_last_iteration(loop, pipe):
    called = []
    loop.run_once(0)
    fd = loop.fileno()
    pipe.put()
    loop.io(pipe.r, "r", lambda w, events: called.append(pipe.take()))
    poller = selectors.DefaultSelector()
    with poller:
        poller.register(fd, selectors.EVENT_READ)
        assert poller.select(BOUND)
        loop.run_once(0)
    assert called == [b"x"]


class Poller:
    """One fd waited for as another event loop does: registered once, before anything has happened."""

    def __init__(self, kind, fd):
        self.kind, self.fd = kind, fd
        if kind == "epoll":
            self.waiter = select.epoll()
            self.waiter.register(fd, select.EPOLLIN)
        elif kind == "epoll edge":
            self.waiter = select.epoll()
            self.waiter.register(fd, select.EPOLLIN | select.EPOLLET)
        elif kind == "poll":
            self.waiter = select.poll()
            self.waiter.register(fd, select.POLLIN)

    def wait(self):
        """Wait until the fd is readable; returns whether it was in time."""
        began = time.monotonic()
        if self.kind == "select":
            found = select.select([self.fd], [], [], BOUND)[0]
        elif self.kind == "poll":
            found = self.waiter.poll(BOUND * 1000)
        else:
            found = self.waiter.poll(BOUND)
        return bool(found) and time.monotonic() - began < BOUND / 2

    def close(self):
        if self.kind.startswith("epoll"):
            self.waiter.close()


@pytest.fixture(params=["select", "poll", "epoll", "epoll edge"])
def poller(loop, request):
    poller = Poller(request.param, loop.fileno())
    yield poller
    poller.close()


def later(function, *args):
    """Call it in another thread, a moment after the caller went to sleep."""
    thread = threading.Timer(0.02, function, args)
    thread.start()
    return thread


def test_an_event_wakes_who_waits_for_fileno(loop, poller, pipe):
    got = []
    loop.io(pipe.r, "r", lambda w, events: got.append(pipe.take()))
    loop.run_once(0)
    for expected in range(1, 6):
        thread = later(pipe.put)
        while len(got) < expected:
            assert poller.wait()
            loop.run_once(0)
        thread.join()
    assert got == [b"x"] * 5


def test_a_timer_wakes_who_waits_for_fileno(loop, poller):
    for _ in range(5):
        fired = []
        began = time.monotonic_ns()
        loop.timer(0.01, fired.append)
        while not fired:
            assert poller.wait()
            loop.run_once(0)
        assert time.monotonic_ns() - began >= 10_000_000


def test_a_nearer_timer_started_later_wakes_who_waits_for_fileno(loop, poller):
    fired = []
    far = loop.timer(BOUND, print)
    loop.run_once(0)
    loop.timer(0.01, fired.append)
    while not fired:
        assert poller.wait()
        loop.run_once(0)
    far.stop()
    loop.timer(0.01, fired.append)
    while len(fired) < 2:
        assert poller.wait()
        loop.run_once(0)


def test_post_wakes_who_waits_for_fileno(loop, poller):
    loop.timer(BOUND, print)
    for expected in range(1, 6):
        called = []
        thread = later(loop.post, called.append, expected)
        while not called:
            assert poller.wait()
            loop.run_once(0)
        thread.join()
        assert called == [expected]


def test_what_is_deferred_or_started_outside_is_noticed(loop, poller, pipe):
    called = []
    for _ in range(3):
        loop.defer(called.append, "deferred")
        assert poller.wait()
        loop.run_once(0)
        pipe.put()
        watcher = loop.io(pipe.r, "r", lambda w, events: called.append(pipe.take()))
        assert poller.wait()
        loop.run_once(0)
        watcher.destroy()
        loop.idle(lambda w: (called.append("idle"), w.destroy()))
        while "idle" not in called:
            assert poller.wait()
            loop.run_once(0)
        assert called == ["deferred", b"x", "idle"]
        called.clear()


@pytest.mark.parametrize("entries", [1, 8, 256])
@pytest.mark.parametrize("edge", [False, True])
def test_fileno_asked_for_while_much_is_in_flight(entries, edge):
    with made_loop(entries=entries) as loop, pipes(50) as many:
        got = []

        def on_read(watcher, events):
            got.append((watcher.data, many[watcher.data].take()))

        for number, pipe in enumerate(many):
            loop.io(pipe.r, "r", on_read, data=number, edge=edge)
        loop.run_once(0)
        for pipe in many[::2]:
            pipe.put(b"before")
        stopped = [loop.io(pipe.r, "r", unexpected) for pipe in many]
        for watcher in stopped:
            watcher.destroy()
        fd = loop.fileno()
        for pipe in many[1::2]:
            pipe.put(b"after")
        while len(got) < 50:
            assert select.select([fd], [], [], BOUND)[0]
            loop.run_once(0)
        assert sorted(got) == [(n, b"after" if n % 2 else b"before") for n in range(50)]
        assert loop.fileno() == fd
        assert loop.statistics().requests_in_flight == 50


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("iterations", [0, 1])
def test_fileno_asked_for_before_a_watcher_was_submitted(loop, pipe, edge, iterations):
    with pipes(3) as others:
        for other in others:
            loop.io(other.r, "r", unexpected)
        for _ in range(iterations):
            loop.run_once(0)
        for other in others[1:]:
            loop.io(other.w, "r", unexpected).stop()
        got = []
        loop.io(pipe.r, "r", lambda w, events: got.append(pipe.take()), edge=edge)
        signal_watcher = loop.signal("USR1", lambda w, signum: got.append(signum))
        fd = loop.fileno()
        pipe.put()
        assert select.select([fd], [], [], BOUND)[0]
        loop.run_once(0)
        assert got == [b"x"]
        signal.raise_signal(signal.SIGUSR1)
        assert select.select([fd], [], [], BOUND)[0]
        loop.run_once(0)
        assert got == [b"x", signal.SIGUSR1]
        signal_watcher.destroy()
        began = time.monotonic()
        loop.close()
        assert time.monotonic() - began < BOUND / 20


def test_fileno_asked_for_in_callbacks(loop, pipe):
    fds = []
    got = []
    loop.io(pipe.r, "r", lambda w, events: (fds.append(loop.fileno()), got.append(pipe.take(1))))
    loop.timer(0, lambda w: fds.append(loop.fileno()))
    loop.defer(lambda: fds.append(loop.fileno()))
    pipe.put(b"ab")
    loop.run_once(0)
    assert got == [b"a"]
    assert len(set(fds)) == 1
    assert select.select(fds[:1], [], [], BOUND)[0]
    loop.run_once(0)
    assert got == [b"a", b"b"]
    # One alarm that turns out to be false is harmless, but there must be an end of them.
    loop.run_once(0)
    assert not select.select(fds[:1], [], [], 0)[0]
    pipe.put(b"c")
    assert select.select(fds[:1], [], [], BOUND)[0]


def test_fileno_between_an_interrupt_and_the_next_run(loop):
    def interrupt(watcher):
        raise KeyboardInterrupt

    called = []
    loop.timer(0, interrupt)
    loop.timer(0, called.append)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert select.select([loop.fileno()], [], [], BOUND)[0]
    assert loop.run_once(0) == 1
    assert len(called) == 1


def test_a_loop_embedded_still_runs_by_itself(loop, pipe):
    loop.fileno()
    test = []
    loop.io(pipe.r, "r", lambda w, events: (test.append(pipe.take()), w.destroy()))
    loop.timer(0.01, test.append)
    thread = later(pipe.put)
    loop.run(BOUND)
    thread.join()
    assert len(test) == 2


def test_inside_epoll(loop):
    fired = []
    loop.periodic(0.005, lambda w: fired.append(loop.time()))
    with select.epoll() as epoll:
        epoll.register(loop.fileno(), select.EPOLLIN)
        limit = time.monotonic() + BOUND
        while len(fired) < 5:
            assert time.monotonic() < limit
            assert epoll.poll(BOUND)
            loop.run_once(0)


def test_inside_asyncio(loop):
    async def main():
        outer = asyncio.get_running_loop()
        done = outer.create_future()
        got = []

        def on_read(watcher, events):
            got.append(pipe.take(1))
            if len(got) == 3:
                watcher.destroy()
                loop.timer(0.01, lambda w: loop.defer(done.set_result, got))

        with pipes(1) as [pipe]:
            loop.io(pipe.r, "r", on_read)
            outer.add_reader(loop.fileno(), loop.run_once, 0)
            outer.call_later(0.01, pipe.put, b"abc")
            try:
                return await asyncio.wait_for(done, BOUND)
            finally:
                outer.remove_reader(loop.fileno())

    assert asyncio.run(main()) == [b"a", b"b", b"c"]


def test_inside_a_loop_of_our_own(loop):
    called = []
    pipe = Pipe()
    with made_loop() as outer:
        loop.io(pipe.r, "r", lambda w, events: (called.append(pipe.take()), outer.stop()))
        outer.io(loop.fileno(), "r", lambda w, events: loop.run_once(0))
        outer.timer(0.01, lambda w: pipe.put(b"through two"))
        outer.run(BOUND)
    pipe.close()
    assert called == [b"through two"]


@pytest.mark.parametrize("which", ["fileno", "ring"])
def test_a_loop_cannot_wait_for_itself(loop, which):
    fd = loop.fileno() if which == "fileno" else _fault.ring_fd()
    with pytest.raises(ValueError, match=f"own loop, {fd}"):
        loop.io(fd, "r", unexpected)
    assert not loop.watchers


INJECTED = """
import errno, os
import _fault
from linux_event import Loop
before = _fault.open_fds()
loop = Loop()
try:
    fd = loop.fileno()
    loop.timer(0.001, repr)
    loop.run_once()
except OSError as error:
    print(errno.errorcode[error.errno])
loop.close()
assert _fault.open_fds() == before
"""


@needs_strace
def test_fileno_where_the_kernel_refuses():
    """Not even an eventfd is left behind."""
    # The first call of the kind enables the ring.
    result = _fault.run_injected(INJECTED, "io_uring_register:error=ENOMEM:when=2")
    assert "(INJECTED)" in result.trace
    result.check("ENOMEM")


@needs_strace
def test_taking_the_sign_down_is_tried_again_or_refused():
    """An interrupted read(2) of the eventfd is made again; another error is that of the call that needed it."""
    for name, expected in (("EINTR", ""), ("EIO", "EIO")):
        result = _fault.run_injected(INJECTED, f"read:error={name}:when=1", path="anon_inode:[eventfd]")
        assert "(INJECTED)" in result.trace
        result.check(expected)


# --- sqpoll and busy_poll -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"sqpoll": True}, {"busy_poll": 0.001}, {"sqpoll": True, "busy_poll": 0.001}])
def test_polling_loops_deliver_everything(arguments):
    with made_loop(**arguments) as loop, pipes(20) as many:
        got = {}

        def on_read(watcher, events):
            got[watcher.data] = many[watcher.data].take()
            watcher.stop()

        kept = [loop.io(pipe.r, "r", on_read, data=number) for number, pipe in enumerate(many)]
        for round in range(5):
            got.clear()
            for pipe in many:
                pipe.put(b"%d" % round)
            run_until(loop, lambda: len(got) == len(many))
            assert set(got.values()) == {b"%d" % round}
            for watcher in kept:
                assert not watcher.is_active()
                watcher.start()
        fired = []
        began = time.monotonic_ns()
        loop.timer(0.01, lambda w: (fired.append(time.monotonic_ns()), loop.stop()))
        loop.run(BOUND)
        assert fired[0] - began >= 10_000_000


def test_busy_poll_spins_and_still_keeps_to_the_timeout(pipe):
    with made_loop(busy_poll=0.02) as loop:
        loop.io(pipe.r, "r", print)
        loop.run_once(0)
        spent = time.process_time()
        began = time.monotonic_ns()
        assert loop.run_once(0.01) == 0
        assert time.monotonic_ns() - began >= 10_000_000
        # The wait was shorter than the time to spin: hardly any of it was sleep.
        assert time.process_time() - spent > 0.002
        loop.timer(0.005, lambda w: None)
        began = time.monotonic_ns()
        assert loop.run_once(BOUND) == 1
        assert 5_000_000 <= time.monotonic_ns() - began < BOUND * 0.5e9


def test_busy_poll_sleeps_after_it_spun(pipe):
    with made_loop(busy_poll=0.001) as loop:
        loop.io(pipe.r, "r", print)
        loop.run_once(0)
        spent = time.process_time()
        loop.run_once(0.3)
        assert time.process_time() - spent < 0.2
