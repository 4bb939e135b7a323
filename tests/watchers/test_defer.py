"""defer and post: order, arguments, errors, and how long their arguments live."""

import gc
import logging
import time
import weakref

import pytest
from _fault import unexpected
from _support import BOUND, blocks_grown, finish, made_loop, scaled, unraisable

from linux_event import Loop

METHODS = ["defer", "post"]


@pytest.mark.parametrize("method", METHODS)
def test_first_in_first_out(loop, method):
    called = []
    count = scaled(10_000, least=1000)
    for n in range(count):
        getattr(loop, method)(called.append, n)
    assert loop.statistics().deferred == count
    assert called == []
    assert loop.run_once(0) == count
    assert called == list(range(count))
    assert loop.statistics().deferred == 0


def test_defer_and_post_from_one_thread_keep_their_order(loop):
    called = []
    for n in range(0, 100, 2):
        loop.defer(called.append, n)
        loop.post(called.append, n + 1)
    finish(loop)
    assert sorted(called) == list(range(100))
    assert called[0::2] == sorted(called[0::2])
    assert called[1::2] == sorted(called[1::2])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 300])
def test_any_number_of_arguments(loop, method, count):
    seen = []
    arguments = tuple(object() for _ in range(count))
    getattr(loop, method)(lambda *got: seen.append(got), *arguments)
    loop.run_once(0)
    assert seen == [arguments]


@pytest.mark.parametrize("method", METHODS)
def test_returns_none_and_takes_any_callable(loop, method):
    class Callable:
        def __call__(self, *args):
            called.append(args)

        def method(self, *args):
            called.append(args)

    called = []
    for callback in (Callable(), Callable().method, called.append, lambda *args: called.append(args)):
        assert getattr(loop, method)(callback, 1) is None
    finish(loop)
    assert called == [(1,), (1,), 1, (1,)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("callback", [None, 1, "print", [print]])
def test_what_cannot_be_called_is_refused(loop, method, callback):
    with pytest.raises(TypeError, match="callback") as caught:
        getattr(loop, method)(callback)
    assert repr(callback) in str(caught.value)
    assert loop.statistics().deferred == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_is_needed_and_keywords_are_not_taken(loop, method):
    with pytest.raises(TypeError):
        getattr(loop, method)()
    with pytest.raises(TypeError):
        getattr(loop, method)(print, end="")


@pytest.mark.parametrize("method", METHODS)
def test_what_a_deferred_callback_defers_runs_one_iteration_later(loop, method):
    order = []

    def first():
        order.append("first")
        getattr(loop, method)(third)

    def second():
        order.append("second")

    def third():
        order.append("third")

    getattr(loop, method)(first)
    getattr(loop, method)(second)
    assert loop.run_once(0) == 2
    assert order == ["first", "second"]
    assert loop.run_once(0) == 1
    assert order == ["first", "second", "third"]


def test_deferred_in_a_watcher_callback_runs_in_the_next_iteration(loop):
    order = []
    loop.timer(0, lambda w: (loop.defer(order.append, "deferred"), order.append("timer")))
    loop.timer(0, lambda w: order.append("timer"))
    assert loop.run_once(0) == 2
    assert order == ["timer", "timer"]
    assert loop.run_once(0) == 1
    assert order == ["timer", "timer", "deferred"]


@pytest.mark.parametrize("method", METHODS)
def test_an_error_goes_to_on_error_with_the_callable(loop, method):
    seen = []
    loop.on_error = lambda source, error: seen.append((source, error))
    after = []

    def fails():
        raise ValueError("mine")

    getattr(loop, method)(fails)
    getattr(loop, method)(after.append, 1)
    assert loop.run_once(0) == 2
    [(source, error)] = seen
    assert source is fails
    assert type(error) is ValueError
    assert error.args == ("mine",)
    assert after == [1]


def test_an_error_is_logged_by_default(loop, caplog):
    def fails():
        raise ValueError("mine")

    loop.defer(fails)
    loop.run_once(0)
    [record] = caplog.records
    assert record.name == "linux_event"
    assert record.levelno == logging.ERROR
    assert "fails" in record.getMessage()
    assert record.exc_info[0] is ValueError
    assert record.exc_info[2].tb_frame.f_code is not None
    caplog.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_leaves_the_rest_for_the_next_run(loop, kind):
    called = []

    def fails():
        called.append("fails")
        raise kind

    loop.defer(called.append, 1)
    loop.defer(fails)
    loop.defer(called.append, 2)
    loop.timer(0, lambda w: called.append("timer"))
    with pytest.raises(kind):
        loop.run()
    assert called == [1, "fails"]
    assert not loop.is_running()
    assert loop.statistics().deferred == 1
    finish(loop)
    assert called == [1, "fails", 2, "timer"]


@pytest.mark.parametrize("method", METHODS)
def test_arguments_live_until_the_call_and_no_longer(loop, method):
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    getattr(loop, method)(lambda got: None, thing)
    del thing
    gc.collect()
    assert ref() is not None
    loop.run_once(0)
    assert ref() is None


@pytest.mark.parametrize("method", METHODS)
def test_arguments_are_freed_when_the_callback_raises(loop, method):
    class Thing:
        pass

    def fails(got):
        raise ValueError

    loop.on_error = lambda source, error: None
    thing = Thing()
    ref = weakref.ref(thing)
    getattr(loop, method)(fails, thing)
    del thing
    loop.run_once(0)
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("method", METHODS)
def test_close_forgets_what_was_deferred(method):
    class Thing:
        pass

    loop = Loop()
    thing = Thing()
    ref = weakref.ref(thing)
    getattr(loop, method)(unexpected, thing)
    del thing
    loop.close()
    gc.collect()
    assert ref() is None
    assert loop.statistics().deferred == 0


def test_a_destructor_that_defers_while_the_loop_closes():
    class Deferring:
        def __del__(self):
            try:
                loop.defer(print, "never")
            except RuntimeError:
                refused.append(True)

    refused = []
    loop = Loop()
    loop.defer(print, Deferring())
    loop.defer(Deferring)
    with unraisable() as swallowed:
        loop.close()
    assert not swallowed
    assert loop.is_closed()
    assert loop.statistics().deferred == 0


def test_a_destructor_that_defers_while_its_call_ends(loop):
    class Deferring:
        def __del__(self):
            loop.defer(called.append, "from the destructor")

    called = []
    loop.defer(lambda thing: None, Deferring())
    finish(loop)
    assert called == ["from the destructor"]


def test_post_wakes_a_sleeping_loop_from_a_callback_of_another(pipe):
    # Both run in this thread: what is posted to the outer loop from within its own callback must not be lost.
    with made_loop() as loop:
        called = []
        loop.io(pipe.r, "r", print)
        loop.timer(0.001, lambda w: loop.post(lambda: (called.append(1), loop.stop())))
        began = time.monotonic()
        loop.run(BOUND)
        assert called == [1]
        assert time.monotonic() - began < BOUND / 2


@pytest.mark.parametrize("method", METHODS)
def test_no_memory_is_left(loop, method):
    count = scaled(5000, least=500)

    def action():
        for n in range(count):
            getattr(loop, method)(int, n)
        loop.run_once(0)

    assert blocks_grown(action) < count / 20


@pytest.mark.parametrize("method", METHODS)
def test_memory_of_a_long_queue_is_given_back(method):
    with made_loop() as loop:
        count = scaled(200_000, least=10_000)
        for _ in range(3):
            for n in range(count):
                getattr(loop, method)(int, n)
            assert loop.statistics().deferred == count
            assert loop.run_once(0) == count
