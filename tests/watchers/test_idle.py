"""Idle: when it runs, and how long the loop sleeps while it is active."""

import time

import pytest
from _support import BOUND, blocks_grown, finish, made_loop, pipes, run_until, scaled


def test_runs_once_in_each_idle_iteration(loop):
    called = []
    idle = loop.idle(called.append)
    for expected in range(1, 6):
        assert loop.run_once(0) == 1
        assert called == [idle] * expected
    idle.stop()
    assert loop.run_once(0) == 0
    idle.start()
    assert loop.run_once(0) == 1


def test_keeps_run_going_until_it_stops(loop):
    called = []

    def on_idle(watcher):
        called.append(1)
        if len(called) == 10:
            watcher.stop()

    loop.idle(on_idle)
    finish(loop)
    assert len(called) == 10


def test_several_run_in_the_order_of_their_start(loop):
    order = []
    kept = [loop.idle(lambda w: order.append(w.data), data=n) for n in range(5)]
    loop.run_once(0)
    assert order == [0, 1, 2, 3, 4]
    order.clear()
    kept[1].stop().start()
    loop.run_once(0)
    assert order == [0, 2, 3, 4, 1]


@pytest.mark.parametrize("idle_wait", [0.001, 0.01, 0.05])
def test_the_loop_sleeps_no_longer_than_idle_wait(pipe, idle_wait):
    with made_loop(idle_wait=idle_wait) as loop:
        loop.io(pipe.r, "r", print)
        called = []
        loop.idle(called.append)
        loop.timer(BOUND, print)
        for expected in range(1, 4):
            began = time.monotonic()
            assert loop.run_once() == 1
            assert len(called) == expected
            assert time.monotonic() - began < idle_wait + BOUND / 2


def test_the_loop_does_sleep_between_idle_calls(pipe):
    with made_loop(idle_wait=0.05) as loop:
        loop.io(pipe.r, "r", print)
        called = []
        loop.idle(called.append)
        loop.run(0.2)
        assert 1 <= len(called) <= 8


def test_idle_wait_zero_spins(pipe):
    with made_loop(idle_wait=0) as loop:
        loop.io(pipe.r, "r", print)
        called = []
        loop.idle(called.append)
        run_until(loop, lambda: len(called) == 1000)
        called.clear()
        loop.run(0.1)
        assert len(called) > 100


def test_a_timer_nearer_than_idle_wait_is_on_time():
    with made_loop(idle_wait=BOUND / 2) as loop:
        order = []
        loop.idle(lambda w: order.append("idle"), ref=False)
        loop.timer(0.01, lambda w: order.append("timer"))
        began = time.monotonic()
        finish(loop)
        assert time.monotonic() - began < BOUND / 4
        assert order == ["timer"]


def test_io_ends_the_sleep(pipe):
    with made_loop(idle_wait=BOUND / 2) as loop:
        order = []
        loop.idle(lambda w: order.append("idle"))
        loop.io(pipe.r, "r", lambda w, events: (order.append("io"), loop.stop()))
        pipe.put()
        began = time.monotonic()
        loop.run()
        assert time.monotonic() - began < BOUND / 4
        assert order == ["io"]


def test_the_timeout_of_run_once_is_kept_too(pipe):
    with made_loop(idle_wait=BOUND / 2) as loop:
        loop.io(pipe.r, "r", print)
        called = []
        loop.idle(called.append)
        began = time.monotonic()
        assert loop.run_once(0.01) == 1
        assert loop.run_once(0) == 1
        assert time.monotonic() - began < BOUND / 4


def test_never_between_busy_io(loop):
    with pipes(3) as many:
        called = []
        loop.idle(lambda w: called.append("idle"))
        for pipe in many:
            pipe.put()
            loop.io(pipe.r, "r", lambda w, events: called.append("io"))
        for _ in range(10):
            assert loop.run_once(0) == 3
        assert called == ["io"] * 30


def test_an_unreferenced_idle_watcher_does_not_make_the_loop_run(loop):
    called = []
    loop.idle(called.append, ref=False)
    finish(loop)
    assert len(called) <= 1


@pytest.mark.parametrize("action", ["stop", "destroy"])
def test_removing_itself_and_others_while_they_run(loop, action):
    order = []

    def on_idle(watcher):
        order.append(watcher.data)
        if watcher.data == 2:
            for n in (0, 2, 3, 5):
                getattr(kept[n], action)()

    kept = [loop.idle(on_idle, data=n) for n in range(6)]
    assert loop.run_once(0) == 4
    assert order == [0, 1, 2, 4]
    order.clear()
    assert loop.run_once(0) == 2
    assert order == [1, 4]


def test_started_while_they_run_begins_in_the_next_iteration(loop):
    order = []

    def on_idle(watcher):
        order.append("first")
        watcher.callback = lambda w: order.append("first")
        loop.idle(lambda w: order.append("second"))

    loop.idle(on_idle)
    assert loop.run_once(0) == 1
    assert loop.run_once(0) == 2
    assert order == ["first", "first", "second"]


def test_restarting_itself_runs_once_an_iteration(loop):
    called = []
    loop.idle(lambda w: (called.append(1), w.stop().start()))
    for expected in range(1, 5):
        assert loop.run_once(0) == 1
        assert len(called) == expected


def test_deferring_from_idle_ends_idleness_for_one_iteration(loop):
    order = []
    loop.idle(lambda w: (order.append("idle"), loop.defer(order.append, "deferred")))
    for _ in range(6):
        loop.run_once(0)
    assert order == ["idle", "deferred"] * 3


def test_stop_of_the_loop_in_idle(loop):
    called = []
    loop.idle(lambda w: (called.append(1), loop.stop()))
    loop.run()
    assert called == [1]
    loop.run()
    assert called == [1, 1]


def test_no_memory_is_left(loop):
    idle = loop.idle(lambda w: None)
    count = scaled(2000, least=200)

    def action():
        for _ in range(count):
            idle.stop().start()
            loop.run_once(0)

    assert blocks_grown(action) < 50


def test_repr(loop):
    idle = loop.idle(print)
    assert repr(idle) == f"<Idle id={idle.id} active>"
    idle.stop()
    assert repr(idle).startswith(f"<Idle id={idle.id} ")
    assert repr(idle) != f"<Idle id={idle.id} active>"


def test_all_belong_to_one_iteration_however_many():
    with made_loop(max_events=2) as loop:
        called = []
        for number in range(10):
            loop.idle(lambda watcher: called.append(watcher.data), data=number)
        assert loop.run_once(0) == 10
        assert called == list(range(10))


def test_those_left_over_by_an_interrupt_wait_for_the_next_idle_iteration(loop):
    called = []

    def interrupt(watcher):
        watcher.destroy()
        raise KeyboardInterrupt

    loop.idle(interrupt)
    loop.idle(lambda watcher: called.append("idle"))
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    loop.timer(0, lambda watcher: called.append("timer"))
    assert loop.run_once(0) == 1
    assert called == ["timer"]
    assert loop.run_once(0) == 1
    assert called == ["timer", "idle"]
