"""Loop: stop, time, close, with, and what a closed loop refuses."""

import time

import pytest
from _support import BOUND, finish, open_fds, pipes, spend

from linux_event import DestroyedError, Loop, LoopClosedError, Periodic, Timer

# --- stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["stop", "stop_threadsafe"])
def test_stop_leaves_run_after_this_iteration(loop, stop):
    called = []
    with pipes(5) as many:
        for number, pipe in enumerate(many):
            pipe.put()
            loop.io(pipe.r, "r", lambda w, events: (called.append(w.data), getattr(loop, stop)()), data=number)
        began = time.monotonic()
        loop.run(BOUND)
        assert time.monotonic() - began < BOUND / 2
        # What was collected together still runs; the next round of the level-triggered watchers does not.
        assert sorted(called) == [0, 1, 2, 3, 4]
        assert not loop.is_running()
        assert loop.statistics().iterations == 1


@pytest.mark.parametrize("stop", ["stop", "stop_threadsafe"])
def test_stop_in_a_deferred_callback_does_not_let_the_iteration_sleep(loop, pipe, stop):
    called = []
    loop.io(pipe.r, "r", print)
    loop.defer(getattr(loop, stop))
    loop.defer(called.append, 1)
    began = time.monotonic()
    loop.run()
    assert time.monotonic() - began < BOUND
    assert called == [1]


def test_stop_in_an_idle_callback(loop, pipe):
    called = []
    loop.io(pipe.r, "r", print)
    loop.idle(lambda w: (called.append(1), loop.stop()))
    loop.idle(lambda w: called.append(2))
    loop.run()
    assert called == [1, 2]


def test_what_a_callback_defers_before_stop_waits_for_the_next_run(loop):
    called = []
    loop.timer(0, lambda w: (loop.defer(called.append, 1), loop.stop()))
    loop.run()
    assert called == []
    assert loop.statistics().deferred == 1
    loop.run()
    assert called == [1]


@pytest.mark.parametrize("stop", ["stop", "stop_threadsafe"])
def test_stop_before_run_ends_it_after_one_iteration_without_waiting(loop, pipe, stop):
    called = []
    loop.io(pipe.r, "r", lambda w, events: called.append("io"))
    loop.timer(BOUND, print)
    pipe.put()
    getattr(loop, stop)()
    getattr(loop, stop)()
    loop.run()
    assert called == ["io"]
    began = time.monotonic_ns()
    pipe.take()
    loop.run(0.02)
    assert time.monotonic_ns() - began >= 20_000_000
    assert called == ["io"]


@pytest.mark.parametrize("stop", ["stop", "stop_threadsafe"])
def test_stop_in_run_once_is_over_with_it(loop, stop):
    loop.timer(0, lambda w: getattr(loop, stop)())
    loop.timer(BOUND, print)
    assert loop.run_once() == 1
    began = time.monotonic_ns()
    loop.run(0.02)
    assert time.monotonic_ns() - began >= 20_000_000


def test_stop_returns_none(loop):
    assert loop.stop() is None
    assert loop.stop_threadsafe() is None


# --- time ---------------------------------------------------------------------------------------------------------


def test_time_is_the_monotonic_clock(loop):
    seen = []

    def check(watcher):
        for _ in range(3):
            before = time.monotonic()
            seen.append(loop.time())
            assert before <= seen[-1] <= time.monotonic()
            spend(0.002)

    check(None)
    loop.timer(0, check)
    finish(loop)
    assert len(seen) == 6
    assert all(type(value) is float for value in seen)


# --- close --------------------------------------------------------------------------------------------------------


def test_close_destroys_all_watchers_and_frees_all_fds(pair, pipe):
    before = open_fds()
    loop = Loop()
    made = [
        loop.io(pair[0], "r", print),
        loop.io(pair[0], "w", print, edge=True),
        loop.io(pipe.r, "r", print, start=False),
        loop.timer(BOUND, print),
        loop.timer(BOUND, print, start=False),
        loop.periodic(BOUND, print),
        loop.signal("USR1", print),
        loop.idle(print),
    ]
    assert len(loop.watchers) == len(made)
    loop.run_once(0)
    loop.defer(print)
    # Two polls, and the one of the signal.
    assert loop.statistics().requests_in_flight == 3
    assert loop.close() is None
    assert loop.is_closed()
    assert all(w.is_destroyed() and not w.is_active() and w.callback is None for w in made)
    statistics = loop.statistics()
    assert statistics.requests_in_flight == statistics.watchers == statistics.active_watchers == 0
    assert statistics.timers == statistics.deferred == 0
    assert len(loop.watchers) == len(loop.io_watchers) == len(loop.signals) == 0
    assert open_fds() == before


def test_close_is_idempotent():
    loop = Loop()
    assert not loop.is_closed()
    for _ in range(3):
        assert loop.close() is None
        assert loop.is_closed()


def test_with_closes():
    made = Loop()
    with made as loop:
        assert loop is made
        assert not loop.is_closed()
    assert loop.is_closed()
    with pytest.raises(LookupError), Loop() as loop:
        raise LookupError
    assert loop.is_closed()
    with Loop() as loop:
        loop.close()


def test_close_before_the_first_run_and_after_it(pipe):
    for run in (False, True):
        loop = Loop()
        loop.io(pipe.r, "r", print)
        if run:
            loop.run_once(0)
        loop.close()
        assert loop.is_closed()


@pytest.mark.parametrize("run", ["run", "run_once"])
def test_close_in_a_callback_is_an_error(loop, run):
    seen = []

    def attempt(watcher):
        with pytest.raises(RuntimeError) as caught:
            loop.close()
        seen.append(caught.type)
        with pytest.raises(RuntimeError), loop:
            pass

    loop.timer(0, attempt)
    loop.timer(0, seen.append)
    getattr(loop, run)()
    finish(loop)
    assert len(seen) == 2
    assert seen[0] is not LoopClosedError
    assert not loop.is_closed()


CLOSED_CALLS = {
    "run": lambda loop: loop.run(),
    "run_0": lambda loop: loop.run(0),
    "run_once": lambda loop: loop.run_once(),
    "run_once_0": lambda loop: loop.run_once(0),
    "stop": lambda loop: loop.stop(),
    "stop_threadsafe": lambda loop: loop.stop_threadsafe(),
    "defer": lambda loop: loop.defer(print),
    "post": lambda loop: loop.post(print),
    "fileno": lambda loop: loop.fileno(),
    "io": lambda loop: loop.io(0, "r", print),
    "io_decorator": lambda loop: loop.io(0, "r"),
    "timer": lambda loop: loop.timer(1, print),
    "timer_decorator": lambda loop: loop.timer(1),
    "timer_not_started": lambda loop: loop.timer(1, print, start=False),
    "periodic": lambda loop: loop.periodic(1, print),
    "signal": lambda loop: loop.signal("USR1", print),
    "idle": lambda loop: loop.idle(print),
    "Timer": lambda loop: Timer(loop, 1, print),
    "Periodic": lambda loop: Periodic(loop, 1, print),
}


@pytest.mark.parametrize("call", CLOSED_CALLS)
def test_a_closed_loop_refuses(call):
    loop = Loop()
    loop.close()
    with pytest.raises(LoopClosedError, match="closed"):
        CLOSED_CALLS[call](loop)


def test_a_closed_loop_still_answers():
    loop = Loop()
    watcher = loop.timer(1, print)
    loop.close()
    assert loop.is_closed()
    assert not loop.is_running()
    assert loop.time() > 0
    assert loop.statistics().iterations == 0
    assert dict(loop.watchers) == dict(loop.io_watchers) == dict(loop.signals) == {}
    assert loop.on_error is None or callable(loop.on_error)
    assert watcher.loop is loop


def test_a_decorator_made_before_close_is_refused_after_it():
    loop = Loop()
    decorate = loop.timer(1)
    loop.close()
    with pytest.raises((LoopClosedError, DestroyedError)):
        decorate(print)
