"""IOWatcher: level and edge, several on one fd, poll assigned, very many."""

import os
import time

import pytest
from _support import BOUND, eventfds, finish, many_fds_allowed, pipes, run_until, scaled

from linux_event import Events

READ, WRITE, PRIORITY, ERROR, HANGUP = (Events[n] for n in ("READ", "WRITE", "PRIORITY", "ERROR", "HANGUP"))


def collect(loop, fd, poll, **keywords):
    """Watch the fd; returns the watcher and a list of the events it is called with."""
    seen = []
    return loop.io(fd, poll, lambda watcher, events: seen.append(events), **keywords), seen


# --- level --------------------------------------------------------------------------------------------------------


def test_called_once_per_iteration_as_long_as_ready(loop, pipe):
    watcher, seen = collect(loop, pipe.r, "r")
    assert loop.run_once(0) == 0
    pipe.put(b"abc")
    for _ in range(10):
        assert loop.run_once(0) == 1
    assert seen == [READ] * 10
    assert pipe.take() == b"abc"
    for _ in range(3):
        assert loop.run_once(0) == 0
    pipe.put()
    assert loop.run_once() == 1
    assert watcher.is_active()


def test_ready_before_the_start(loop, pipe):
    pipe.put()
    _, seen = collect(loop, pipe.r, "r")
    assert loop.run_once(0) == 1
    assert loop.run_once() == 1
    assert seen == [READ, READ]


def test_one_byte_at_a_time(loop, pipe):
    got = []

    def on_read(watcher, events):
        got.append(pipe.take(1))
        if got[-1] == b"":
            watcher.stop()

    loop.io(pipe.r, "r", on_read)
    pipe.put(b"hello")
    pipe.close_write()
    finish(loop)
    assert got == [b"h", b"e", b"l", b"l", b"o", b""]


def test_data_that_arrives_between_read_and_the_next_wait(loop, pipe):
    got = []

    def on_read(watcher, events):
        got.append(pipe.take())
        if len(got) < 5:
            pipe.put(b"%d" % len(got))

    loop.io(pipe.r, "r", on_read)
    pipe.put(b"0")
    run_until(loop, lambda: len(got) == 5)
    assert loop.run_once(0) == 0
    assert got == [b"0", b"1", b"2", b"3", b"4"]


def test_what_was_consumed_before_the_wait_is_not_reported(loop, pipe):
    _, seen = collect(loop, pipe.r, "r")
    for times in (1, 2, 3):
        loop.run_once(0)
        for _ in range(times):
            pipe.put()
            assert pipe.take() == b"x"
        loop.run_once(0)
        loop.defer(pipe.take)
        pipe.put()
        loop.run_once(0)
    assert seen == []


def test_writable(loop, pipe):
    watcher, seen = collect(loop, pipe.w, "w")
    assert loop.run_once(0) == 1
    assert loop.run_once(0) == 1
    pipe.fill()
    assert loop.run_once(0) == 0
    assert loop.run_once(0.01) == 0
    while pipe.take():
        pass
    assert loop.run_once() == 1
    assert seen == [WRITE] * 3
    assert watcher.is_active()


def test_only_what_was_asked_for(loop, pair):
    a, b = pair
    _, reads = collect(loop, a, "r")
    _, writes = collect(loop, a, "w")
    _, both = collect(loop, a, "rw")
    loop.run_once(0)
    assert (reads, writes, both) == ([], [WRITE], [WRITE])
    b.send(b"x")
    loop.run_once(0)
    assert (reads, writes, both) == ([READ], [WRITE] * 2, [WRITE, READ | WRITE])


def test_stop_and_start_report_again(loop, pipe):
    watcher, seen = collect(loop, pipe.r, "r")
    pipe.put()
    for expected in range(1, 5):
        loop.run_once(0)
        assert len(seen) == expected
        watcher.stop()
        assert loop.run_once(0) == 0
        watcher.start()


def test_a_stopped_watcher_hears_nothing(loop, pipe):
    watcher, seen = collect(loop, pipe.r, "r")
    loop.run_once(0)
    watcher.stop()
    pipe.put()
    loop.timer(0.01, lambda w: None)
    finish(loop)
    assert seen == []


# --- edge ---------------------------------------------------------------------------------------------------------


def test_edge_is_called_once_for_each_new_event(loop, pipe):
    _, seen = collect(loop, pipe.r, "r", edge=True)
    assert loop.run_once(0) == 0
    for expected in range(1, 5):
        pipe.put()
        assert loop.run_once(0) == 1
        for _ in range(3):
            assert loop.run_once(0) == 0
        assert seen == [READ] * expected


def test_edge_on_an_fd_that_is_ready_already(loop, pipe):
    pipe.put()
    _, seen = collect(loop, pipe.r, "r", edge=True)
    assert loop.run_once(0) == 1
    assert loop.run_once(0.01) == 0
    assert seen == [READ]


def test_edge_restarted_on_a_ready_fd_reports_it(loop, pipe):
    pipe.put()
    watcher, seen = collect(loop, pipe.r, "r", edge=True)
    loop.run_once(0)
    watcher.stop().start()
    assert loop.run_once(0) == 1
    assert loop.run_once(0) == 0
    assert seen == [READ, READ]


def test_edge_of_writability(loop, pipe):
    _, seen = collect(loop, pipe.w, "w", edge=True)
    assert loop.run_once(0) == 1
    assert loop.run_once(0) == 0
    pipe.fill()
    while pipe.take():
        pass
    run_until(loop, lambda: len(seen) >= 2)
    assert set(seen) == {WRITE}


def test_level_and_edge_on_one_fd(loop, pipe):
    _, level = collect(loop, pipe.r, "r")
    _, edge = collect(loop, pipe.r, "r", edge=True)
    pipe.put()
    for _ in range(5):
        loop.run_once(0)
    assert len(level) == 5
    assert len(edge) == 1


# --- several on one fd --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True])
def test_any_number_of_watchers_on_one_fd(loop, pipe, edge):
    count = scaled(300, least=50)
    called = []
    kept = [loop.io(pipe.r, "r", lambda w, e: called.append(w.data), data=n, edge=edge) for n in range(count)]
    assert loop.io_watchers[pipe.r] == tuple(kept)
    loop.run_once(0)
    pipe.put()
    run_until(loop, lambda: len(set(called)) == count)
    if edge:
        assert sorted(called) == list(range(count))
    for watcher in kept[::2]:
        watcher.destroy()
    called.clear()
    pipe.put()
    run_until(loop, lambda: len(set(called)) == count // 2)
    assert {n % 2 for n in called} == {1}


def test_readers_and_writers_of_one_socket_are_independent(loop, pair):
    a, b = pair
    reader, reads = collect(loop, a, "r")
    writer, writes = collect(loop, a, "w")
    b.send(b"x")
    loop.run_once(0)
    writer.stop()
    loop.run_once(0)
    reader.destroy()
    writer.start()
    loop.run_once(0)
    assert len(reads) == 2
    assert len(writes) == 2


def test_the_same_file_through_two_numbers(loop, pipe):
    other = os.dup(pipe.r)
    _, one = collect(loop, pipe.r, "r")
    _, two = collect(loop, other, "r")
    pipe.put()
    loop.run_once(0)
    assert one == two == [READ]
    for watcher in list(loop.watchers.values()):
        watcher.destroy()
    os.close(other)


# --- poll assigned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True])
def test_poll_assigned_while_active(loop, pair, edge):
    a, b = pair
    watcher, seen = collect(loop, a, "r", edge=edge)
    assert loop.run_once(0) == 0
    watcher.poll = "w"
    assert watcher.poll == WRITE
    assert watcher.is_active()
    assert loop.run_once(0) == 1
    assert seen == [WRITE]
    watcher.poll = READ
    assert loop.run_once(0) == 0
    b.send(b"x")
    assert loop.run_once(0) == 1
    assert seen == [WRITE, READ]
    watcher.poll = "rw"
    assert loop.run_once(0) == 1
    assert seen == [WRITE, READ, READ | WRITE]
    watcher.poll = "w"
    assert loop.run_once(0) == 1
    assert seen[3:] == [WRITE]
    assert loop.statistics().active_watchers == 1


def test_poll_assigned_while_inactive(loop, pair):
    watcher, seen = collect(loop, pair[0], "r", start=False)
    watcher.poll = "w"
    assert not watcher.is_active()
    assert loop.run_once(0) == 0
    watcher.start()
    assert loop.run_once(0) == 1
    assert seen == [WRITE]


def test_poll_assigned_many_times_before_it_is_submitted(loop, pair):
    watcher, seen = collect(loop, pair[0], "r")
    for n in range(scaled(1000, least=100)):
        watcher.poll = "rw" if n % 2 else "r"
    watcher.poll = "w"
    loop.run_once(0)
    loop.run_once(0)
    assert seen == [WRITE, WRITE]


def test_poll_assigned_in_the_callback(loop, pair):
    a, b = pair
    seen = []

    def on_event(watcher, events):
        seen.append(str(events))
        watcher.poll = "r" if events & WRITE else "w"

    b.send(b"x")
    loop.io(a, "w", on_event)
    for _ in range(6):
        assert loop.run_once(0) == 1
    assert seen == ["w", "r"] * 3


def test_poll_assigned_by_another_of_the_batch_drops_what_is_no_longer_asked(loop, pair):
    a, b = pair
    b.send(b"x")
    loop.io(a, "r", lambda w, events: (setattr(other, "poll", "w"), w.destroy()), priority=1)
    other, seen = collect(loop, a, "r")
    loop.run_once(0)
    loop.run_once(0)
    assert set(seen) == {WRITE}


def test_poll_of_a_destroyed_watcher(loop, pipe):
    watcher = loop.io(pipe.r, "r", print)
    watcher.destroy()
    with pytest.raises(RuntimeError, match="destroyed"):
        watcher.poll = "w"
    assert watcher.poll == READ
    assert watcher.fd == pipe.r


# --- many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True])
def test_ten_thousand_fds(loop, edge):
    with many_fds_allowed(scaled(10_000, least=500)) as count, eventfds(count) as fds:
        called = []

        def on_read(watcher, events):
            called.append(watcher.fd)
            os.eventfd_read(watcher.fd)

        kept = [loop.io(fd, "r", on_read, edge=edge) for fd in fds]
        loop.run_once(0)
        assert loop.statistics().requests_in_flight == count
        for round in range(3):
            some = fds[round::100]
            for fd in some:
                os.eventfd_write(fd, 1)
            called.clear()
            run_until(loop, lambda some=some: len(called) >= len(some))
            assert loop.run_once(0) == 0
            assert sorted(called) == some
        for fd in fds:
            os.eventfd_write(fd, 1)
        called.clear()
        run_until(loop, lambda: len(called) >= count)
        assert sorted(called) == fds
        for watcher in kept:
            watcher.destroy()
        assert len(loop.watchers) == 0


def test_a_million_events_through_one_watcher(loop, pipe):
    left = [scaled(100_000, least=5000)]

    def on_read(watcher, events):
        pipe.take()
        left[0] -= 1
        if left[0]:
            pipe.put()
        else:
            watcher.stop()

    loop.io(pipe.r, "r", on_read)
    pipe.put()
    finish(loop)
    assert left == [0]


def test_a_ping_between_two_ends(loop):
    with pipes(2) as [there, back]:
        count = scaled(5000, least=500)
        turns = []

        def on_there(watcher, events):
            there.take()
            back.put()

        def on_back(watcher, events):
            back.take()
            turns.append(1)
            if len(turns) == count:
                loop.stop()
            else:
                there.put()

        loop.io(there.r, "r", on_there)
        loop.io(back.r, "r", on_back)
        there.put()
        began = time.monotonic()
        loop.run(BOUND)
        assert time.monotonic() - began < BOUND
        assert len(turns) == count
