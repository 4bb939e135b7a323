"""Destructors, collections, recursion and tracing in the middle of the loop's work."""

import gc
import sys
import threading

import pytest
from _fault import WhenAsleep, in_thread
from _support import finish, kind_arguments, made_loop, pipes, unraisable

from linux_event import DestroyedError, Loop, Watcher

# --- the interpreter around it --------------------------------------------------------------------------------------


def test_a_collection_at_every_allocation():
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with made_loop() as loop, pipes(3) as many:
            called = []

            def on_read(watcher, events):
                called.append(watcher.data)
                many[watcher.data].take()
                loop.defer(lambda w: w.destroy(), watcher)

            for number, pipe in enumerate(many):
                loop.io(pipe.r, "r", on_read, data=number)
                pipe.put()
            loop.timer(0, lambda w: called.append("timer"))
            loop.periodic(0.001, lambda w: w.destroy())
            finish(loop)
            assert sorted(called, key=str) == [0, 1, 2, "timer"]
    finally:
        gc.set_threshold(*threshold)


def test_a_destructor_of_data_that_uses_the_loop(loop, pipe):
    class Data:
        def __del__(self):
            seen.append(len(loop.watchers))
            loop.timer(0, lambda w: seen.append("timer"))

    seen = []
    watcher = loop.io(pipe.r, "r", print, data=Data())
    watcher.data = None
    assert seen == [1]
    watcher.data = Data()
    watcher.destroy()
    del watcher
    finish(loop)
    gc.collect()
    finish(loop)
    assert seen.count("timer") == 2


def test_a_destructor_of_a_callback_that_uses_the_watcher(loop):
    class Callback:
        def __call__(self, watcher):
            watcher.callback = print
            called.append("called")

        def __del__(self):
            called.append("gone")
            timer.stop()
            timer.callback = repr

    called = []
    timer = loop.timer(0, Callback())
    loop.run_once(0)
    assert called == ["called", "gone"]
    assert timer.callback is repr
    assert not timer.is_active()


def test_destructors_while_close_destroys():
    class Callback:
        def __call__(self, *args):
            pass

        def __del__(self):
            try:
                loop.timer(0, print)
            except RuntimeError as error:
                refused.append(str(error))
            for watcher in loop.watchers.values():
                watcher.destroy()

    refused = []
    loop = Loop()
    for _ in range(10):
        loop.timer(1, Callback())
    loop.defer(Callback())
    with unraisable() as swallowed:
        loop.close()
        gc.collect()
    assert not swallowed
    assert loop.is_closed()
    assert len(loop.watchers) == 0
    assert loop.statistics().timers == 0
    assert len(refused) == 11


@pytest.mark.parametrize("where", ["callback", "thread"])
def test_the_destructor_of_a_running_loop_called_by_hand(loop, where):
    """It is refused, as close() is."""
    with unraisable() as swallowed:
        if where == "callback":
            loop.defer(loop.__del__)
        else:
            loop.post(lambda: in_thread(loop.__del__))
        finish(loop)
    [text] = swallowed
    assert text.startswith("RuntimeError: the loop is running")
    assert not loop.is_closed()


def test_the_destructor_of_a_sleeping_loop_called_by_hand(loop):
    with unraisable() as swallowed, WhenAsleep(loop.__del__):
        loop.timer(0.3, lambda watcher: None)
        finish(loop)
    [text] = swallowed
    assert text.startswith("RuntimeError: the loop is running")


def test_a_watcher_brought_back_to_life(loop):
    saved = []

    class Data:
        def __init__(self):
            self.watcher = loop.timer(0, print, start=False, data=self)

        def __del__(self):
            saved.append(self.watcher)

    data = Data()
    del data
    gc.collect()
    [watcher] = saved
    called = []
    assert not watcher.is_active()
    assert not watcher.is_destroyed()
    watcher.data = None
    watcher.callback = called.append
    watcher.start()
    finish(loop)
    assert called == [watcher]


def with_little_stack(function):
    """Call function() in a thread that has a quarter of a MiB of stack."""
    previous = threading.stack_size(256 * 1024)
    try:
        in_thread(function)
    finally:
        threading.stack_size(previous)


def test_a_long_chain_of_timers_is_freed_without_the_stack(loop):
    last = None
    for _ in range(300_000):
        last = loop.timer(3600, print, data=last, start=False)
    last = None
    assert loop.statistics().watchers == 0


# CPython 3.13 counts how deep destructors may go, and takes no account of how much stack there is.
knows_its_stack = pytest.mark.skipif(sys.version_info >= (3, 13), reason="CPython itself does not survive it")


@knows_its_stack
def test_a_chain_of_watchers_is_freed_without_the_stack(pipe, kind):
    def body():
        with made_loop() as loop:
            last = None
            for _ in range(10_000):
                last = getattr(loop, kind)(*kind_arguments(kind, pipe), print, data=last, start=False)
            last = None
            assert loop.statistics().watchers == 0

    with_little_stack(body)


@knows_its_stack
def test_a_chain_of_empty_watchers_is_freed_without_the_stack():
    def body():
        last = None
        for _ in range(10_000):
            last, former = Watcher.__new__(Watcher), last
            last.data = former

    with_little_stack(body)


@pytest.mark.parametrize("how", ["destroys the watcher", "closes the loop"])
def test_an_argument_that_ends_what_is_being_made(pipe, kind, how):
    class Priority:
        def __index__(self):
            if how == "closes the loop":
                loop.close()
            else:
                for watcher in loop.watchers.values():
                    watcher.destroy()
            return 1

    with made_loop() as loop:
        with pytest.raises(DestroyedError):
            getattr(loop, kind)(*kind_arguments(kind, pipe), print, priority=Priority())
        left = loop.statistics()
        assert left.active_watchers == left.timers == left.requests_in_flight == left.watchers == 0


@pytest.mark.parametrize("how", ["destroys the watcher", "closes the loop"])
def test_a_collection_during_the_start_that_ends_the_watcher(pipe, how):
    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            if how == "closes the loop":
                loop.close()
            else:
                watcher.destroy()

    threshold = gc.get_threshold()
    # A loop that is debugged notes what the fd is: that makes objects that the collector knows.
    with made_loop(debug=True) as loop:
        watcher = loop.io(pipe.r, "r", print, start=False)
        gc.collect()
        gc.disable()
        gc.set_threshold(1)
        Garbage()
        gc.enable()
        try:
            watcher.start()
        except DestroyedError:
            pass
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        assert watcher.is_destroyed()
        assert not watcher.is_active()
        assert loop.statistics().active_watchers == 0


def test_deep_recursion_in_a_callback(loop):
    seen = []
    loop.on_error = lambda source, error: seen.append(type(error))

    def recurse(watcher):
        recurse(watcher)

    loop.timer(0, recurse)
    loop.timer(0, seen.append)
    finish(loop)
    assert seen[0] is RecursionError
    assert len(seen) == 2


def test_callbacks_in_a_trace_function(loop):
    lines = []

    def trace(frame, event, arg):
        lines.append(event)
        return trace

    previous = sys.gettrace()
    loop.timer(0, lambda w: None)
    sys.settrace(trace)
    try:
        loop.run_once(0)
    finally:
        sys.settrace(previous)
    assert "call" in lines
