"""Loop: making one, run, run_once, and what keeps run going."""

import inspect
import math
import os
import time

import pytest
from _support import BOUND, finish, made_loop, open_fds

from linux_event import Loop, LoopClosedError

# --- making one ---------------------------------------------------------------------------------------------------


def test_signature_is_that_of_the_contract():
    parameters = inspect.signature(Loop).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "entries": 256,
        "cq_entries": None,
        "sqpoll": False,
        "busy_poll": 0.0,
        "signals": "handler",
        "idle_wait": 0.001,
        "max_events": 256,
        "debug": False,
    }
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())


@pytest.mark.parametrize(
    "arguments",
    [
        {"entries": 1},
        {"entries": 3},
        {"entries": 32768},
        {"entries": 8, "cq_entries": 8},
        {"entries": 8, "cq_entries": 64},
        {"entries": 8, "cq_entries": None},
        {"busy_poll": 0},
        {"busy_poll": 1},
        {"busy_poll": 0.0001},
        {"idle_wait": 0},
        {"idle_wait": 2},
        {"idle_wait": 1e300},
        {"max_events": 1},
        {"max_events": 100000},
        {"debug": True},
        {"sqpoll": True},
    ],
)
def test_arguments_that_are_accepted(arguments, pipe):
    with made_loop(**arguments) as loop:
        fired = []
        loop.timer(0.001, fired.append)
        loop.io(pipe.r, "r", lambda w, events: (pipe.take(), w.destroy()))
        pipe.put()
        finish(loop)
        assert len(fired) == 1
        assert loop.statistics().watchers == 1


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("entries", 0, ValueError),
        ("entries", -1, ValueError),
        ("entries", 32769, ValueError),
        ("entries", 2**70, ValueError),
        ("entries", 8.0, TypeError),
        ("entries", "8", TypeError),
        ("entries", None, TypeError),
        ("cq_entries", 0, ValueError),
        ("cq_entries", -1, ValueError),
        ("cq_entries", 255, ValueError),
        ("cq_entries", 2**70, ValueError),
        ("cq_entries", "512", TypeError),
        ("cq_entries", 512.0, TypeError),
        ("busy_poll", -1, ValueError),
        ("busy_poll", math.nan, ValueError),
        ("busy_poll", math.inf, ValueError),
        ("busy_poll", -math.inf, ValueError),
        ("busy_poll", "1", TypeError),
        ("busy_poll", None, TypeError),
        ("busy_poll", 1j, TypeError),
        ("idle_wait", -0.001, ValueError),
        ("idle_wait", math.nan, ValueError),
        ("idle_wait", math.inf, ValueError),
        ("idle_wait", "1", TypeError),
        ("idle_wait", None, TypeError),
        ("max_events", 0, ValueError),
        ("max_events", -5, ValueError),
        ("max_events", 2**70, ValueError),
        ("max_events", 1.0, TypeError),
        ("max_events", None, TypeError),
        ("sqpoll", "yes", TypeError),
        ("sqpoll", None, TypeError),
        ("debug", 2, TypeError),
    ],
)
def test_arguments_that_are_refused(argument, value, error):
    before = open_fds()
    with pytest.raises(error) as caught:
        Loop(**{argument: value})
    assert type(caught.value) is error
    assert argument in str(caught.value)
    assert repr(value) in str(caught.value)
    assert open_fds() == before


def test_arguments_are_keywords_only():
    with pytest.raises(TypeError):
        Loop(256)
    with pytest.raises(TypeError, match="nonsense"):
        Loop(nonsense=1)


def test_init_called_twice_is_refused(loop):
    fd = loop.fileno()
    with pytest.raises(RuntimeError, match="twice"):
        loop.__init__()
    assert loop.fileno() == fd
    loop.close()
    with pytest.raises(RuntimeError):
        loop.__init__()
    assert loop.is_closed()


def test_a_loop_that_was_not_initialised_is_a_closed_one():
    loop = Loop.__new__(Loop)
    assert loop.is_closed()
    for method in (loop.run, loop.run_once, loop.stop, loop.stop_threadsafe, loop.fileno):
        with pytest.raises(LoopClosedError):
            method()
    with pytest.raises(LoopClosedError):
        loop.timer(1, print)
    assert dict(loop.watchers) == {}
    assert not loop.is_running()
    assert loop.statistics().watchers == 0
    loop.close()


def test_making_and_closing_loops_leaves_no_fd():
    before = open_fds()
    for _ in range(50):
        Loop().close()
    assert open_fds() == before


def test_every_fd_is_close_on_exec():
    before = open_fds()
    with made_loop() as loop:
        loop.signal("USR1", print)
        loop.post(int)
        loop.run_once(0)
        fd = loop.fileno()
        opened = set(open_fds()) - set(before)
        assert fd in opened
        assert not any(os.get_inheritable(fd) for fd in opened)


def test_fileno_is_one_fd_of_the_loop():
    before = open_fds()
    with made_loop() as loop:
        fd = loop.fileno()
        assert type(fd) is int
        assert fd in set(open_fds()) - set(before)
        assert loop.fileno() == fd
    assert open_fds() == before


def test_loop_can_be_subclassed():
    class Named(Loop):
        def __init__(self, name, **arguments):
            super().__init__(**arguments)
            self.name = name

    with Named("mine", entries=8) as loop:
        assert loop.name == "mine"
        timer = loop.timer(0, lambda w: None)
        assert timer.loop is loop
        finish(loop)


def test_several_loops_in_one_thread_do_not_see_each_other(pipe):
    called = []
    with made_loop() as one, made_loop() as two:
        one.io(pipe.r, "r", lambda w, events: (called.append("one"), w.destroy()))
        two.io(pipe.r, "r", lambda w, events: (called.append("two"), w.destroy()))
        pipe.put()
        finish(two)
        assert called == ["two"]
        assert len(one.watchers) == 1
        finish(one)
        assert called == ["two", "one"]


def test_a_loop_runs_inside_the_callback_of_another():
    called = []
    with made_loop() as outer, made_loop() as inner:
        inner.timer(0, lambda w: called.append("inner"))
        outer.timer(0, lambda w: (called.append("before"), finish(inner), called.append("after")))
        finish(outer)
    assert called == ["before", "inner", "after"]


def test_repr_tells_the_state(loop):
    states = [repr(loop)]
    loop.defer(lambda: states.append(repr(loop)))
    loop.run()
    assert all(text.startswith("<Loop") and text.endswith(">") for text in states)
    with Loop() as other:
        pass
    assert "closed" in repr(other)
    assert len({states[0], states[1], repr(other)}) == 3


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_with_nothing_to_do_returns_at_once(loop):
    began = time.monotonic()
    assert loop.run() is None
    assert loop.run(BOUND) is None
    assert loop.run(timeout=BOUND) is None
    assert time.monotonic() - began < BOUND / 2


def test_run_ends_when_nothing_is_left(loop):
    fired = []
    loop.timer(0.01, fired.append)
    finish(loop)
    assert len(fired) == 1
    assert not loop.is_running()


@pytest.mark.parametrize("timeout", [0.05, 0.013, 0])
def test_run_lasts_for_its_timeout(loop, pipe, timeout):
    loop.io(pipe.r, "r", lambda w, events: None)
    began = time.monotonic_ns()
    loop.run(timeout)
    lasted = time.monotonic_ns() - began
    assert timeout * 1e9 <= lasted < (timeout + BOUND / 2) * 1e9


def test_run_timeout_ends_a_loop_that_never_sleeps(loop):
    def again():
        loop.defer(again)

    again()
    loop.timer(BOUND, print)
    began = time.monotonic_ns()
    loop.run(0.02)
    assert 0.02e9 <= time.monotonic_ns() - began < BOUND * 0.5e9


def test_run_timeout_counts_from_each_call(loop):
    loop.timer(BOUND, print)
    for _ in range(3):
        began = time.monotonic_ns()
        loop.run(0.02)
        assert time.monotonic_ns() - began >= 20_000_000


def test_run_timeout_zero_does_one_pass_without_waiting(loop, pipe):
    called = []
    loop.io(pipe.r, "r", lambda w, events: called.append("io"))
    loop.timer(BOUND, called.append)
    loop.defer(called.append, "deferred")
    pipe.put()
    loop.run(0)
    assert called == ["deferred", "io"]


def test_an_int_timeout_is_accepted(loop):
    loop.timer(BOUND, print)
    loop.timer(0, lambda w: loop.stop())
    began = time.monotonic()
    loop.run(int(BOUND))
    assert time.monotonic() - began < BOUND / 2


@pytest.mark.parametrize("timeout", [1e300, 2**63, 10**400, 10**18, 9.3e9])
def test_huge_timeouts_just_wait(loop, timeout):
    loop.timer(0.001, lambda w: None)
    loop.run(timeout)
    loop.timer(0.001, lambda w: None)
    assert loop.run_once(timeout) == 1


@pytest.mark.parametrize("method", ["run", "run_once"])
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, -(10**400)])
def test_timeouts_of_bad_value(loop, method, timeout):
    loop.timer(BOUND, print)
    with pytest.raises(ValueError, match="timeout") as caught:
        getattr(loop, method)(timeout)
    if timeout != -(10**400):
        assert repr(timeout) in str(caught.value)
    assert not loop.is_running()


@pytest.mark.parametrize("method", ["run", "run_once"])
@pytest.mark.parametrize("timeout", ["1", b"1", [1], 1j, object])
def test_timeouts_of_bad_type(loop, method, timeout):
    loop.timer(BOUND, print)
    with pytest.raises(TypeError, match="timeout") as caught:
        getattr(loop, method)(timeout)
    assert repr(timeout) in str(caught.value)
    assert not loop.is_running()


def test_run_can_be_entered_again(loop):
    fired = []
    for _ in range(5):
        loop.timer(0, fired.append)
        finish(loop)
    assert len(fired) == 5


@pytest.mark.parametrize("outer", ["run", "run_once"])
@pytest.mark.parametrize("inner", ["run", "run_once"])
def test_run_while_running_is_an_error(loop, outer, inner):
    seen = []

    def nested(watcher):
        with pytest.raises(RuntimeError) as caught:
            getattr(loop, inner)()
        assert not isinstance(caught.value, LoopClosedError)
        seen.append(str(caught.value))
        assert loop.is_running()

    loop.timer(0, nested)
    loop.timer(0, seen.append)
    getattr(loop, outer)()
    finish(loop)
    assert "running" in seen[0]
    assert len(seen) == 2


def test_is_running(loop):
    seen = [loop.is_running()]
    loop.timer(0, lambda w: seen.append(loop.is_running()))
    loop.run()
    seen.append(loop.is_running())
    loop.defer(lambda: seen.append(loop.is_running()))
    loop.run_once(0)
    seen.append(loop.is_running())
    assert seen == [False, True, False, True, False]


# --- run_once -----------------------------------------------------------------------------------------------------


def test_run_once_returns_the_number_of_callbacks(loop, pipe):
    assert loop.run_once(0) == 0
    assert loop.run_once() == 0
    loop.defer(int)
    loop.defer(int)
    loop.timer(0, lambda w: None)
    loop.io(pipe.r, "r", lambda w, events: w.destroy())
    pipe.put()
    assert loop.run_once(0) == 4
    assert loop.run_once(0) == 0
    loop.idle(lambda w: w.destroy())
    loop.idle(lambda w: w.destroy())
    assert loop.run_once(0) == 2
    assert type(loop.run_once(0)) is int


def test_run_once_counts_callbacks_that_raise(loop):
    loop.on_error = lambda source, error: None
    loop.defer(int, "no number")
    loop.timer(0, lambda w: 1 / 0)
    assert loop.run_once(0) == 2
    assert loop.statistics().callbacks == 2


def test_run_once_waits_at_most_its_timeout(loop, pipe):
    loop.io(pipe.r, "r", lambda w, events: None)
    began = time.monotonic_ns()
    assert loop.run_once(0.03) == 0
    assert 30_000_000 <= time.monotonic_ns() - began < BOUND * 0.5e9
    began = time.monotonic_ns()
    assert loop.run_once(timeout=0) == 0
    assert time.monotonic_ns() - began < BOUND * 0.5e9


def test_run_once_waits_until_something_happens(loop, pipe):
    fired = []
    loop.io(pipe.r, "r", lambda w, events: None)
    loop.timer(0.02, fired.append)
    began = time.monotonic_ns()
    assert loop.run_once() == 1
    assert len(fired) == 1
    assert time.monotonic_ns() - began >= 20_000_000
    loop.timer(0.02, fired.append)
    assert loop.run_once(BOUND) == 1
    assert len(fired) == 2


def test_run_once_is_one_iteration(loop):
    loop.timer(0, lambda w: None)
    for expected in range(1, 4):
        loop.defer(int)
        loop.run_once(0)
        assert loop.statistics().iterations == expected


def test_run_once_with_only_unreferenced_watchers_does_not_wait(loop, pipe):
    called = []
    loop.io(pipe.r, "r", lambda w, events: called.append("io"), ref=False)
    loop.timer(BOUND, called.append, ref=False)
    began = time.monotonic()
    assert loop.run_once() == 0
    assert time.monotonic() - began < BOUND / 2
    pipe.put()
    assert loop.run_once() == 1
    assert called == ["io"]


# --- what keeps run going -----------------------------------------------------------------------------------------


def test_unreferenced_watchers_do_not_keep_run_going(loop, pipe):
    for make in (
        lambda: loop.io(pipe.r, "r", print, ref=False),
        lambda: loop.timer(BOUND, print, ref=False),
        lambda: loop.periodic(BOUND, print, ref=False),
        lambda: loop.signal("USR1", print, ref=False),
        lambda: loop.idle(lambda w: None, ref=False),
    ):
        make()
        finish(loop)
    assert loop.statistics().active_watchers == 5


def test_unreferenced_watchers_are_called_while_run_goes_on(loop, pipe):
    called = []
    loop.timer(0, lambda w: called.append("timer"), ref=False)
    loop.io(pipe.r, "r", lambda w, events: (called.append("io"), pipe.take()), ref=False)
    loop.timer(0.02, lambda w: called.append("last"))
    pipe.put()
    finish(loop)
    assert sorted(called[:2]) == ["io", "timer"]
    assert called[2:] == ["last"]


def test_ref_assigned_in_a_callback_counts_at_once(loop, pipe):
    watcher = loop.io(pipe.r, "r", print)
    loop.timer(0, lambda w: setattr(watcher, "ref", False))
    finish(loop)
    assert watcher.is_active()
    watcher.ref = True
    loop.timer(0, lambda w: None)
    loop.run(0.02)
    assert watcher.is_active()
    began = time.monotonic_ns()
    loop.run(0.02)
    assert time.monotonic_ns() - began >= 20_000_000


def test_inactive_watchers_do_not_keep_run_going(loop, pipe):
    kept = [
        loop.io(pipe.r, "r", print, start=False),
        loop.timer(BOUND, print, start=False),
        loop.periodic(BOUND, print).stop(),
        loop.idle(print).stop(),
    ]
    finish(loop)
    assert not any(watcher.is_active() for watcher in kept)


def test_a_deferred_callback_keeps_run_going(loop):
    left = [100]

    def again():
        left[0] -= 1
        if left[0]:
            loop.defer(again)

    loop.defer(again)
    finish(loop)
    assert left == [0]


def test_the_last_watcher_stopped_in_a_deferred_callback_ends_run(loop, pipe):
    watcher = loop.io(pipe.r, "r", print)
    loop.defer(watcher.stop)
    finish(loop)
    assert not watcher.is_active()
