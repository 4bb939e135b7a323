"""One iteration: the order of its phases, priorities, fairness, and how many system calls it takes."""

import os
import time

import pytest
from _support import BOUND, eventfds, finish, made_loop, pipes, run_until, scaled, spend

# --- phases -------------------------------------------------------------------------------------------------------


def test_order_of_the_phases(loop, pipe):
    order = []
    loop.idle(lambda w: (order.append("idle"), w.destroy()))
    loop.io(pipe.r, "r", lambda w, events: (order.append("io"), w.destroy()), priority=-1)
    loop.timer(0, lambda w: order.append("timer"))
    loop.defer(order.append, "deferred")
    pipe.put()
    assert loop.run_once(0) == 3
    assert order == ["deferred", "timer", "io"]
    assert loop.run_once(0) == 1
    assert order == ["deferred", "timer", "io", "idle"]


@pytest.mark.parametrize("kind", ["deferred", "timer", "io", "periodic"])
def test_idle_runs_only_if_nothing_else_ran(loop, pipe, kind):
    idled = []
    loop.idle(idled.append)
    if kind == "deferred":
        loop.defer(int)
    elif kind == "timer":
        loop.timer(0, lambda w: None)
    elif kind == "periodic":
        loop.periodic(BOUND, lambda w: None, offset=0)
    else:
        loop.io(pipe.r, "r", lambda w, events: pipe.take())
        pipe.put()
    assert loop.run_once(0) == 1
    assert idled == []
    assert loop.run_once(0) == 1
    assert len(idled) == 1


def test_deferred_before_timers_and_io_of_the_same_iteration(loop, pipe):
    order = []

    def on_timer(watcher):
        order.append("timer")
        loop.defer(order.append, "deferred by timer")
        loop.timer(0, lambda w: order.append("timer of timer"))

    loop.timer(0, on_timer)
    loop.run_once(0)
    assert order == ["timer"]
    loop.run_once(0)
    assert order == ["timer", "deferred by timer", "timer of timer"]


def test_a_timer_started_in_a_deferred_callback_is_due_in_the_same_iteration(loop):
    order = []
    loop.defer(lambda: loop.timer(0, lambda w: order.append("timer")))
    assert loop.run_once(0) == 2
    assert order == ["timer"]


def test_a_timer_restarted_by_its_own_callback_fires_in_the_next_iteration(loop):
    fired = []

    def again(watcher):
        fired.append(loop.statistics().iterations)
        if len(fired) < 5:
            watcher.start()

    loop.timer(0, again)
    assert loop.run_once(0) == 1
    assert len(fired) == 1
    finish(loop)
    assert len(set(fired)) == 5


def test_the_iteration_does_not_sleep_when_a_timer_is_due(loop, pipe):
    fired = []
    loop.io(pipe.r, "r", print)
    loop.timer(0.001, fired.append)
    spend(0.002)
    began = time.monotonic()
    assert loop.run_once() == 1
    assert time.monotonic() - began < BOUND / 2


def test_the_iteration_does_not_sleep_with_a_callback_deferred_from_a_deferred_one(loop, pipe):
    called = []
    loop.io(pipe.r, "r", print)
    loop.defer(lambda: loop.defer(called.append, 1))
    began = time.monotonic()
    assert loop.run_once() == 1
    assert loop.run_once() == 1
    assert time.monotonic() - began < BOUND / 2
    assert called == [1]


# --- deferred callbacks never starve the rest ---------------------------------------------------------------------


def test_io_and_timers_go_on_between_chained_deferred_callbacks(loop, pipe):
    order = []

    def again(n):
        order.append(n)
        if n < 5:
            loop.defer(again, n + 1)

    again(0)
    loop.io(pipe.r, "r", lambda w, events: order.append("io"), ref=False)
    pipe.put()
    finish(loop)
    # After the last one nothing is left that keeps the loop going.
    assert order == [0, 1, "io", 2, "io", 3, "io", 4, "io", 5]


# --- priorities ---------------------------------------------------------------------------------------------------


def test_high_priority_first(loop):
    order = []
    with pipes(5) as many:
        for pipe, priority in zip(many, (0, 2, -2, 1, -1), strict=True):
            loop.io(pipe.r, "r", lambda w, events: (order.append(w.priority), w.stop()), priority=priority)
            pipe.put()
        for priority in (-1, 0, 2, -2, 1):
            loop.timer(0, lambda w: order.append(w.priority), priority=priority)
        assert loop.run_once(0) == 10
    assert order == [2, 2, 1, 1, 0, 0, -1, -1, -2, -2]


def test_equal_priority_in_order_of_arrival(loop):
    order = []
    with pipes(6) as many:
        kept = [loop.io(p.r, "r", lambda w, events: order.append(w.data), data=n) for n, p in enumerate(many)]
        loop.run_once(0)
        arrival = [3, 0, 5, 1, 4, 2]
        for n in arrival:
            many[n].put()
        assert loop.run_once(0) == 6
        assert order == arrival
        assert len(kept) == 6


def test_priority_and_arrival_together(loop):
    order = []
    with pipes(6) as many:
        for n, pipe in enumerate(many):
            loop.io(pipe.r, "r", lambda w, events: order.append(w.data), data=n, priority=n % 2)
        loop.run_once(0)
        for n in (4, 1, 0, 5, 2, 3):
            many[n].put()
        loop.run_once(0)
    assert order == [1, 5, 3, 4, 0, 2]


def test_timers_of_equal_priority_in_order_of_deadline_then_start(loop):
    order = []
    for name, after in (("c", 0.003), ("a", 0.001), ("b", 0.002), ("zero 1", 0), ("zero 2", 0), ("zero 3", 0)):
        loop.timer(after, lambda w: order.append(w.data), data=name)
    spend(0.005)
    assert loop.run_once(0) == 6
    assert order == ["zero 1", "zero 2", "zero 3", "a", "b", "c"]


def test_idle_watchers_by_priority(loop):
    order = []
    for name, priority in (("a", 0), ("b", 2), ("c", -2), ("d", 0), ("e", 2)):
        loop.idle(lambda w: order.append(w.data), data=name, priority=priority)
    assert loop.run_once(0) == 5
    assert order == ["b", "e", "a", "d", "c"]


def test_priority_assigned_before_the_event(loop):
    order = []
    with pipes(2) as many:
        kept = [loop.io(p.r, "r", lambda w, events: order.append(w.data), data=n) for n, p in enumerate(many)]
        for pipe in many:
            pipe.put()
        loop.run_once(0)
        assert order == [0, 1]
        kept[1].priority = 2
        loop.run_once(0)
        assert order == [0, 1, 1, 0]
        kept[0].priority = 2
        kept[1].priority = -2
        loop.run_once(0)
        assert order == [0, 1, 1, 0, 0, 1]


def test_priority_changed_while_the_event_is_pending_delivers_it_once(loop):
    called = []
    with pipes(4) as many:

        def on_read(watcher, events):
            called.append(watcher.data)
            for other in kept:
                other.priority = (other.priority + 3) % 5 - 2

        kept = [loop.io(p.r, "r", on_read, data=n) for n, p in enumerate(many)]
        for pipe in many:
            pipe.put()
        for _ in range(10):
            called.clear()
            assert loop.run_once(0) == 4
            assert sorted(called) == [0, 1, 2, 3]


# --- fairness -----------------------------------------------------------------------------------------------------


def test_at_most_max_events_before_deferred_callbacks_and_timers():
    with made_loop(max_events=4) as loop, pipes(20) as many:
        order = []

        def on_read(watcher, events):
            order.append("io")
            watcher.stop()

        kept = [loop.io(pipe.r, "r", on_read) for pipe in many]
        for pipe in many:
            pipe.put()
        while len(order) < 20:
            loop.defer(order.append, "deferred")
            timer = loop.timer(0, lambda w: order.append("timer"))
            before = len(order)
            loop.run_once(0)
            step = order[before:]
            assert step[0] == "deferred"
            assert step.count("timer") == 1
            assert step.count("io") <= 4
            assert not timer.is_active()
        run_until(loop, lambda: order.count("io") == 20)
        assert not any(watcher.is_active() for watcher in kept)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("max_events", [1, 3, 7])
def test_max_events_delays_but_loses_nothing(max_events, edge):
    with made_loop(max_events=max_events) as loop, pipes(30) as many:
        got = []

        def on_read(watcher, events):
            got.append((watcher.data, many[watcher.data].take()))

        for number, pipe in enumerate(many):
            loop.io(pipe.r, "r", on_read, data=number, edge=edge)
        for round in range(3):
            for pipe in many:
                pipe.put(b"%d" % round)
            while len(got) < 30:
                assert 1 <= loop.run_once(0) <= max_events
            assert sorted(got) == [(number, b"%d" % round) for number in range(30)]
            assert loop.run_once(0) == 0
            got.clear()


def test_watchers_that_stay_ready_all_get_their_turn():
    with made_loop(max_events=4) as loop, eventfds(12, ready=True) as fds:
        counts = dict.fromkeys(fds, 0)

        def on_read(watcher, events):
            counts[watcher.fd] += 1

        for fd in fds:
            loop.io(fd, "r", on_read)
        for _ in range(60):
            assert loop.run_once(0) <= 4
        assert sum(counts.values()) >= 60
        assert min(counts.values()) >= 60 * 4 // 12 // 2


def test_stop_leaves_nothing_behind_that_was_collected():
    with made_loop(max_events=2) as loop, eventfds(6, ready=True) as fds:
        called = []
        for fd in fds:
            loop.io(fd, "r", lambda w, events: (called.append(w.fd), loop.stop()))
        loop.run()
        assert sorted(called) == fds
        assert loop.statistics().iterations == 1


def test_deferred_callbacks_are_all_run_whatever_max_events():
    with made_loop(max_events=1) as loop:
        called = []
        for n in range(100):
            loop.defer(called.append, n)
        assert loop.run_once(0) == 100
        assert called == list(range(100))


# --- system calls -------------------------------------------------------------------------------------------------


def test_many_new_watchers_are_submitted_together(loop):
    with eventfds(100, ready=True) as fds:
        called = []
        for fd in fds:
            loop.io(fd, "r", lambda w, events: (called.append(w.fd), os.eventfd_read(w.fd)))
        loop.run_once(0)
        run_until(loop, lambda: len(called) == 100)
        assert sorted(called) == sorted(fds)
        statistics = loop.statistics()
        assert statistics.submissions >= 100
        assert statistics.completions >= 100
        assert statistics.syscalls <= 6


def test_submitting_and_waiting_are_one_system_call(loop):
    with pipes(10) as many:
        loop.io(many[0].r, "r", print)
        loop.run_once(0.001)
        for pipe in many:
            loop.io(pipe.r, "r", print)
        loop.timer(BOUND, print)
        before = loop.statistics()
        assert loop.run_once(0.01) == 0
        after = loop.statistics()
        assert after.syscalls - before.syscalls == 1
        assert after.submissions - before.submissions == 10


def test_timers_take_no_system_call_of_their_own(loop):
    for _ in range(1000):
        loop.timer(0, lambda w: None)
        loop.timer(BOUND, print, ref=False)
    before = loop.statistics().syscalls
    assert loop.run_once(0) == 1000
    assert loop.statistics().syscalls - before <= 1


def test_level_triggered_watchers_cost_few_system_calls_an_iteration(loop):
    with eventfds(50, ready=True) as fds:
        for fd in fds:
            loop.io(fd, "r", lambda w, events: None)
        loop.run_once(0)
        before = loop.statistics()
        for _ in range(20):
            assert loop.run_once(0) == 50
        after = loop.statistics()
        assert after.iterations - before.iterations == 20
        # One wait, and one poll(2) for all that were ready the last time.
        assert after.syscalls - before.syscalls <= 40
        assert after.submissions == before.submissions


def test_chained_deferred_callbacks_do_not_grow_the_stack(loop):
    left = scaled(1_000_000)
    deepest = []

    def again(n):
        if n:
            loop.defer(again, n - 1)
        else:
            deepest.append(n)

    loop.defer(again, left)
    finish(loop)
    assert deepest == [0]
    assert loop.statistics().callbacks == left + 1
    assert loop.statistics().deferred == 0
