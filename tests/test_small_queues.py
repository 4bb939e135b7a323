"""Queues that are too small for what is in flight, and watchers that come and go faster than the kernel answers."""

import os

import pytest
from _fault import unexpected
from _support import BOUND, eventfds, finish, made_loop, many_fds_allowed, pipes, run_until, scaled

from linux_event import Events

# --- queues that are too small ------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 2, 8])
@pytest.mark.parametrize("edge", [False, True])
def test_submission_queue_full(entries, edge):
    count = scaled(1000, least=300)
    with made_loop(entries=entries) as loop, many_fds_allowed(count) as count, eventfds(count) as fds:
        called = []

        def on_read(watcher, events):
            called.append(watcher.fd)
            os.eventfd_read(watcher.fd)

        kept = [loop.io(fd, "r", on_read, edge=edge) for fd in fds]
        loop.run_once(0)
        for fd in fds:
            os.eventfd_write(fd, 1)
        run_until(loop, lambda: len(called) >= count)
        assert sorted(called) == fds
        for watcher in kept:
            watcher.stop().start()
        for fd in fds:
            os.eventfd_write(fd, 1)
        run_until(loop, lambda: len(called) >= 2 * count)
        assert sorted(called) == sorted(fds * 2)
        for watcher in kept:
            watcher.destroy()
        loop.timer(0, lambda w: None)
        finish(loop)


@pytest.mark.parametrize("cq_entries", [8, 16, None])
@pytest.mark.parametrize("edge", [False, True])
def test_completion_queue_overflow(cq_entries, edge):
    with made_loop(entries=8, cq_entries=cq_entries) as loop, pipes(300) as many:
        got = {}

        def on_read(watcher, events):
            got.setdefault(watcher.data, []).append(many[watcher.data].take())

        kept = [loop.io(pipe.r, "r", on_read, data=n, edge=edge) for n, pipe in enumerate(many)]
        loop.run_once(0)
        for round in range(4):
            got.clear()
            for pipe in many:
                pipe.put(b"%d" % round)
            run_until(loop, lambda: len(got) == 300)
            assert {b"".join(parts) for parts in got.values()} == {b"%d" % round}
        assert loop.statistics().cq_overflows > 0
        assert all(w.is_active() for w in kept)


def test_overflow_while_callbacks_stop_and_start():
    with made_loop(entries=8, cq_entries=8) as loop, pipes(200) as many:
        got = []

        def on_read(watcher, events):
            got.append(many[watcher.data].take())
            kept[watcher.data - 1].stop().start()

        kept = [loop.io(pipe.r, "r", on_read, data=n) for n, pipe in enumerate(many)]
        for _ in range(3):
            for pipe in many:
                pipe.put()
            run_until(loop, lambda: b"".join(got).count(b"x") == 200)
            got.clear()


def test_destroying_everything_while_the_queue_is_overflowed():
    with made_loop(entries=8, cq_entries=8) as loop, pipes(300) as many:
        kept = [loop.io(pipe.r, "r", unexpected) for pipe in many]
        loop.run_once(0)
        for pipe in many:
            pipe.put()
        for watcher in kept:
            watcher.destroy()
        loop.timer(0.001, lambda w: None)
        finish(loop)
        assert loop.statistics().requests_in_flight == 0


def test_close_while_the_queue_is_overflowed():
    with made_loop(entries=8, cq_entries=8) as loop, pipes(300) as many:
        for pipe in many:
            loop.io(pipe.r, "r", print)
        loop.run_once(0)
        for pipe in many:
            pipe.put()


def test_many_events_on_one_edge_watcher_of_a_small_ring(pipe):
    with made_loop(entries=1, cq_entries=1) as loop:
        got = []
        loop.io(pipe.r, "r", lambda w, events: got.append(pipe.take()), edge=True)
        loop.run_once(0)
        for _ in range(200):
            pipe.put()
        run_until(loop, lambda: sum(map(len, got)) == 200)
        pipe.put()
        run_until(loop, lambda: sum(map(len, got)) == 201)


# --- start and stop around the kernel -----------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [False, True])
def test_cancel_races(loop, pipe, edge):
    called = []
    watcher = loop.io(pipe.r, "r", lambda w, events: called.append(events), edge=edge)
    pipe.put()
    for _ in range(scaled(2000, least=200)):
        watcher.stop().start()
        loop.run_once(0)
        watcher.stop()
        loop.run_once(0)
        watcher.start()
    assert set(called) == {Events.READ}
    watcher.destroy()
    loop.timer(0, lambda w: None)
    finish(loop)
    assert loop.statistics().requests_in_flight == 0


def test_a_stop_just_after_the_event_wins(loop, pipe):
    called = []
    for _ in range(scaled(500, least=50)):
        watcher = loop.io(pipe.r, "r", lambda w, events: called.append(events))
        loop.run_once(0)
        pipe.put()
        watcher.destroy()
        loop.run_once(0)
        pipe.take()
    assert called == []


def test_watchers_that_come_and_go_do_not_pile_up_requests(loop, pipe):
    loop.timer(BOUND, print)
    for _ in range(scaled(2000, least=200)):
        loop.io(pipe.r, "r", print).destroy()
        watcher = loop.io(pipe.r, "r", print)
        loop.run_once(0)
        watcher.destroy()
    loop.run_once(0)
    loop.run_once(0)
    assert loop.statistics().requests_in_flight == 0
    assert len(loop.watchers) == 1
