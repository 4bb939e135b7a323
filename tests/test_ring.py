"""The ring under the loop: full queues, overflow, its settings, its fd, and that nothing of it is left."""

import contextlib
import fcntl
import os
import select
import threading

import _fault
import pytest
from _fault import BOUND, unexpected
from _support import (
    close_checked,
    eventfds,
    finish,
    made_loop,
    many_fds_allowed,
    open_fds,
    pipes,
    rings,
    run_until,
    scaled,
)

from linux_event import Loop

SETTINGS = [
    {},
    {"entries": 1},
    {"entries": 8},
    {"entries": 8, "cq_entries": 8},
    {"entries": 4096, "cq_entries": 65536},
    {"entries": 5, "cq_entries": 7},
    {"sqpoll": True},
    {"sqpoll": True, "entries": 2},
    {"busy_poll": 0.001},
    {"max_events": 1},
    {"max_events": 1, "entries": 1, "cq_entries": 1},
    {"idle_wait": 0},
    {"debug": True},
]


def settings_id(arguments):
    return ",".join(f"{name}={value}" for name, value in arguments.items()) or "default"


# --- queues that are too small ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", SETTINGS, ids=settings_id)
@pytest.mark.parametrize("edge", [False, True])
def test_more_watchers_than_entries(arguments, edge):
    """Hundreds of fds become ready at once: more requests than the queue takes, more completions than it holds."""
    count = scaled(400, least=100)
    seen = {}

    def readable(watcher, events):
        assert str(events) == "r"
        seen[watcher.data] = seen.get(watcher.data, 0) + 1
        os.eventfd_read(watcher.fd)
        if len(seen) == count:
            loop.stop()

    with many_fds_allowed(count), made_loop(**arguments) as loop, eventfds(count) as fds:
        for number, fd in enumerate(fds):
            loop.io(fd, "r", readable, edge=edge, data=number)
        for turn in range(3):
            for fd in fds:
                os.eventfd_write(fd, 1)
            loop.run(timeout=BOUND)
            assert seen == dict.fromkeys(range(count), 1), f"turn {turn}"
            seen.clear()
            for _ in range(3):
                loop.run_once(0)
            assert not seen
        assert loop.statistics().requests_in_flight == count
        loop.close()


def test_overflow_is_counted_and_loses_nothing():
    """An 8-entry completion queue and hundreds of events that arrive while nobody looks."""
    count = scaled(500, least=100)
    with many_fds_allowed(count), made_loop(entries=8, cq_entries=8) as loop, eventfds(count) as fds:
        called = []

        def readable(watcher, events):
            os.eventfd_read(watcher.fd)
            called.append(watcher.data)

        watchers = [loop.io(fd, "r", readable, data=number, edge=True) for number, fd in enumerate(fds)]
        loop.run_once(0)
        for turn in range(1, 6):
            for fd in fds:
                os.eventfd_write(fd, 1)
            while len(called) < count * turn:
                assert loop.run_once(BOUND) > 0
        assert sorted(called) == sorted(list(range(count)) * 5)
        statistics = loop.statistics()
        assert statistics.cq_overflows > 0
        assert statistics.requests_in_flight == count
        for watcher in watchers:
            watcher.destroy()
        finish(loop)
        assert loop.statistics().requests_in_flight == 0
        loop.close()


def test_overflow_between_ticks_does_not_starve_timers():
    """With one event dispatched at a time, timers and deferred callbacks still get their turn."""
    count = 100
    with made_loop(entries=8, cq_entries=8, max_events=1) as loop, eventfds(count, ready=True) as fds:
        order = []
        for fd in fds:
            loop.io(fd, "r", lambda watcher, events: order.append("io"))
        loop.periodic(0.0005, lambda watcher: order.append("tick"))

        def again():
            order.append("deferred")
            loop.defer(again)

        loop.defer(again)
        run_until(loop, lambda: order.count("io") >= 3 * count and order.count("tick") >= 3)
        assert order.count("deferred") >= 3 * count
        loop.close()


@pytest.mark.parametrize("entries", [1, 8])
def test_start_and_stop_of_more_than_the_queue_holds(entries):
    """Starts and stops without a run between them: each must find room for its request."""
    count = scaled(300, least=50)
    with made_loop(entries=entries) as loop, pipes(1) as [pipe]:
        watchers = [loop.io(pipe.r, "r", unexpected, start=False) for _ in range(count)]
        for _ in range(3):
            for watcher in watchers:
                watcher.start()
            for watcher in watchers:
                watcher.stop()
        finish(loop)
        loop.run_once(0)
        assert loop.statistics().requests_in_flight == 0
        for watcher in watchers:
            watcher.start()
        loop.run_once(0)
        assert loop.statistics().requests_in_flight == count
        loop.close()


@pytest.mark.parametrize("arguments", SETTINGS, ids=settings_id)
def test_close_with_everything_in_flight(arguments):
    count = scaled(200, least=50)
    before = open_fds()
    with eventfds(count) as fds:
        loop = Loop(**arguments)
        for fd in fds:
            loop.io(fd, "r", unexpected)
            loop.io(fd, "r", unexpected, edge=True)
        loop.run_once(0)
        for fd in fds:
            os.eventfd_write(fd, 1)
        close_checked(loop)
    assert open_fds() == before


def test_close_before_anything_was_submitted(pipe):
    """Requests that are queued and not yet the kernel's are dropped."""
    loop = Loop(entries=8)
    for _ in range(100):
        loop.io(pipe.r, "r", unexpected)
    close_checked(loop)


def test_closed_loops_hold_no_file(pair):
    """After close the kernel has let go of the fds that were watched: the peer sees the end at once."""
    ours, theirs = pair
    with made_loop() as loop:
        for edge in (False, True):
            loop.io(ours, "r", unexpected, edge=edge)
            loop.io(ours, "r", unexpected, edge=edge)
        loop.run_once(0)
        loop.close()
        number = os.dup(ours.fileno())
        os.close(number)
        ours.close()
        assert theirs.recv(1) == b""


# --- the life of a request -------------------------------------------------------------------------------------------


def test_requests_in_flight_are_what_the_kernel_has(loop):
    """The kernel lists the polls of a ring in /proc: as many as the statistics say, and the loop's own."""

    def polls():
        with open(f"/proc/self/fdinfo/{ring}") as file:
            text = file.read()
        assert "PollList" in text
        return text.partition("PollList:")[2].partition("CqOverflowList")[0].count("op=")

    [ring] = rings(open_fds())
    loop.timer(0.001, lambda watcher: None)
    finish(loop)
    own = polls()
    with eventfds(20) as fds:
        watchers = [loop.io(fd, "r", unexpected) for fd in fds]
        loop.run_once(0)
        assert polls() - own == loop.statistics().requests_in_flight == 20
        for watcher in watchers[:5]:
            watcher.stop()
        finish_cancels(loop, 15)
        assert polls() - own == 15
        for watcher in watchers:
            watcher.destroy()
        finish_cancels(loop, 0)
        assert polls() == own


def finish_cancels(loop, left):
    """Run iterations until only *left* requests are in flight."""
    for _ in range(10):
        if loop.statistics().requests_in_flight == left:
            return
        loop.run_once(0)
    assert loop.statistics().requests_in_flight == left


def test_no_request_without_a_change(loop):
    """A watcher that only gets events costs no submission: its poll is a multishot."""
    with pipes(1) as [pipe]:
        loop.io(pipe.r, "r", lambda watcher, events: pipe.take())
        pipe.put()
        loop.run_once(BOUND)
        loop.run_once(0)
        before = loop.statistics()
        for _ in range(100):
            pipe.put()
            assert loop.run_once(BOUND) == 1
        after = loop.statistics()
        assert after.callbacks - before.callbacks == 100
        assert after.submissions == before.submissions
        loop.close()


def test_one_system_call_for_many_starts():
    with made_loop() as loop, eventfds(100) as fds:
        loop.run_once(0)
        before = loop.statistics()
        for fd in fds:
            loop.io(fd, "r", unexpected)
        loop.run_once(0)
        after = loop.statistics()
        # The loop's own requests may be among them.
        assert 100 <= after.submissions - before.submissions <= 103
        assert after.syscalls - before.syscalls <= 3
        loop.close()


# --- the fd of the ring ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", SETTINGS, ids=settings_id)
def test_every_fd_is_close_on_exec_and_closed_by_close(arguments):
    before = open_fds()
    with made_loop(**arguments) as loop, pipes(1) as [pipe]:
        loop.io(pipe.r, "r", unexpected)
        loop.signal("USR1", unexpected)
        loop.timer(3600, unexpected)
        loop.run_once(0)
        loop.post(lambda: None)
        loop.run_once(0)
        ours = set(open_fds()) - set(before) - {pipe.r, pipe.w}
        assert len(rings({fd: open_fds()[fd] for fd in ours})) == 1
        assert loop.fileno() in open_fds()
        for fd in set(open_fds()) - set(before):
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, open_fds()[fd]
        loop.close()
    assert open_fds() == before


def test_one_ring_for_each_loop():
    before = rings(open_fds())
    with contextlib.ExitStack() as stack:
        loops = [stack.enter_context(made_loop()) for _ in range(20)]
        assert len(rings(open_fds())) == len(before) + len(loops)
        assert len({loop.fileno() for loop in loops}) == len(loops)
    assert rings(open_fds()) == before


def test_many_loops_one_after_the_other():
    before = open_fds()
    for _ in range(scaled(200)):
        with Loop() as loop:
            loop.timer(0, lambda watcher: None)
            loop.run()
    assert open_fds() == before


def test_dup_of_the_ring_stays_the_users(loop, pipe):
    """The user's own copy of the fd does not keep watched files busy after close, and is his to close."""
    loop.io(pipe.r, "r", unexpected)
    copies = [os.dup(fd) for fd in {loop.fileno(), *rings(open_fds())}]
    loop.run_once(0)
    loop.close()
    pipe.put()
    # Whether they look readable then is the kernel's affair: asking must do no harm.
    select.select(copies, [], [], 0)
    for copy in copies:
        os.close(copy)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", SETTINGS, ids=settings_id)
def test_every_setting_does_everything(arguments):
    with made_loop(**arguments) as loop, pipes(1) as [pipe]:
        called = []

        def readable(watcher, events):
            called.append(pipe.take())
            if called.count(b"x") < 50:
                pipe.put()
            else:
                watcher.destroy()

        loop.io(pipe.r, "r", readable)
        loop.timer(0.001, lambda watcher: called.append("timer"))
        loop.periodic(0.001, lambda watcher: (called.append("tick"), watcher.destroy()))
        loop.idle(lambda watcher: (called.append("idle"), watcher.destroy()))
        loop.signal("USR1", lambda watcher, signum: (called.append("signal"), watcher.destroy()))
        loop.timer(0.002, lambda watcher: os.kill(os.getpid(), 10))
        loop.defer(called.append, "deferred")
        thread = threading.Timer(0.002, loop.post, (called.append, "posted"))
        thread.start()
        pipe.put()
        finish(loop)
        thread.join()
        loop.run_once(0)
        for what, times in {
            b"x": 50,
            "timer": 1,
            "tick": 1,
            "idle": 1,
            "signal": 1,
            "deferred": 1,
            "posted": 1,
        }.items():
            assert called.count(what) == times, what


def test_sqpoll_has_a_thread_of_the_kernel_until_close():
    def kernel_threads():
        names = []
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read())
        return [name for name in names if name.startswith("iou-sqp")]

    with made_loop(sqpoll=True) as loop:
        loop.timer(0, lambda watcher: None)
        loop.run()
        _fault.wait_until(lambda: len(kernel_threads()) == 1)
        loop.close()
        _fault.wait_until(lambda: not kernel_threads())


def test_sqpoll_wakes_the_thread_that_went_to_sleep(pipe):
    """The kernel's thread sleeps when nothing was submitted for a while: a later start must wake it."""

    def is_asleep():
        with open(f"/proc/self/fdinfo/{ring}") as file:
            fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        task = int(fields["SqThread"])
        with open(f"/proc/self/task/{task}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"

    with made_loop(sqpoll=True) as loop:
        [ring] = rings(open_fds())
        for _ in range(2):
            loop.run_once(0)
            _fault.wait_until(is_asleep)
            called = []
            watcher = loop.io(pipe.r, "r", lambda watcher, events, called=called: called.append(pipe.take()))
            pipe.put()
            while not called:
                assert loop.run_once(BOUND) == 1
            watcher.destroy()
        loop.close()
