"""What the collector finds: loops dropped without close(), cycles, weak references, memory that must not grow."""

import gc
import sys
import warnings
import weakref

import pytest
from _fault import unexpected
from _support import (
    BOUND,
    KINDS,
    blocks_grown,
    finish,
    kind_arguments,
    living,
    made_loop,
    open_fds,
    pipes,
    resting_child,
    rings,
    scaled,
    unraisable,
)

from linux_event import Loop, Watcher


def drop(make):
    """Call make(), which returns a loop, and drop it; returns kind and text of the warnings."""
    with warnings.catch_warnings(record=True) as caught, unraisable() as swallowed:
        warnings.simplefilter("always")
        ref = weakref.ref(make())
        gc.collect()
        # A warning holds the object that it tells of.
        told = [(warning.category, str(warning.message)) for warning in caught]
        caught.clear()
        gc.collect()
    assert ref() is None
    assert swallowed == []
    return told


def everything(pipe):
    loop = Loop()
    loop.io(pipe.r, "r", print)
    loop.io(pipe.w, "w", print, edge=True, start=False)
    loop.timer(BOUND, print)
    loop.periodic(BOUND, print)
    loop.signal("USR1", print)
    loop.idle(print)
    loop.wakeup(print).notify()
    loop.child(resting_child(), print)
    if "fswatch" in KINDS:
        loop.fswatch(*kind_arguments("fswatch", pipe), print)
    loop.watch("/", "delete", print, recursive=False)
    loop.defer(print, object())
    loop.post(print, object())
    return loop


@pytest.mark.parametrize("runs", [0, 1])
def test_a_loop_dropped_with_active_watchers(pipe, runs):
    before = open_fds()

    def make():
        loop = everything(pipe)
        for _ in range(runs):
            for watcher in list(loop.watchers.values()):
                watcher.callback = lambda *args: None
            loop.run_once(0)
        return loop

    [(category, text)] = drop(make)
    assert category is ResourceWarning
    assert "Loop" in text
    assert open_fds() == before
    assert living(Loop, Watcher) == []


def test_a_loop_dropped_with_nothing_in_it(pipe):
    [(category, _)] = drop(Loop)
    assert category is ResourceWarning


def test_a_closed_loop_is_dropped_silently(pipe):
    def make():
        loop = everything(pipe)
        loop.close()
        return loop

    assert drop(make) == []


def test_a_loop_that_was_never_made():
    with pytest.raises(ValueError, match="entries"):
        Loop(entries=0)
    assert living(Loop) == []


def test_a_loop_in_cycles_with_callbacks_data_and_on_error(pipe):
    def make():
        loop = everything(pipe)
        watchers = list(loop.watchers.values())
        for watcher in watchers:
            watcher.callback = lambda *args: (loop, watchers)
            watcher.data = [loop, watcher, watchers]
        loop.on_error = lambda source, error: (loop, watchers)
        loop.defer(lambda: loop, loop, watchers)
        loop.post(lambda: loop, loop)
        return loop

    [(category, _)] = drop(make)
    assert category is ResourceWarning
    assert living(Loop, Watcher) == []


def test_a_subclass_with_attributes_in_cycles():
    class Mine(Loop):
        pass

    def make():
        loop = Mine()
        loop.itself = loop
        loop.timer(BOUND, loop.run)
        return loop

    [(category, text)] = drop(make)
    assert category is ResourceWarning
    assert "Mine" in text


def test_resource_warnings_as_errors_still_free_everything(pipe):
    before = open_fds()
    with warnings.catch_warnings(), unraisable() as swallowed:
        warnings.simplefilter("error")
        everything(pipe)
        gc.collect()
    assert len(swallowed) == 1
    assert "ResourceWarning" in swallowed[0]
    assert open_fds() == before
    assert rings(open_fds()) == []


def test_an_active_watcher_keeps_its_loop(pipe):
    loop = everything(pipe)
    watcher = next(iter(loop.watchers.values()))
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is watcher.loop
    assert not watcher.loop.is_closed()
    watcher.loop.close()


def test_a_loop_kept_by_a_bound_method(pipe):
    run = Loop().run
    gc.collect()
    run(0)
    run.__self__.close()


def test_watchers_dropped_while_requests_are_in_flight(pipe):
    with made_loop() as loop:
        for _ in range(scaled(200, least=20)):
            watcher = loop.io(pipe.r, "r", unexpected)
            loop.run_once(0)
            watcher.stop()
            del watcher
            gc.collect()
        pipe.put()
        loop.timer(0.001, lambda w: None)
        finish(loop)
        assert loop.statistics().requests_in_flight == 0
        assert loop.statistics().watchers == 0


def test_loops_do_not_leak(pipe):
    def action():
        for _ in range(20):
            with Loop() as loop:
                loop.io(pipe.r, "r", print)
                loop.timer(BOUND, print)
                loop.signal("USR1", print)
                loop.run_once(0)

    assert blocks_grown(action) < 20


def test_dropped_loops_do_not_leak(pipe):
    def action():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(20):
                everything(pipe)
            gc.collect()

    assert blocks_grown(action) < 20


def test_events_do_not_leak(loop):
    with pipes(10) as many:
        for number, pipe in enumerate(many):
            loop.io(pipe.r, "r", lambda w, events: many[w.data].take(), data=number)
        rounds = scaled(500, least=50)

        def action():
            for _ in range(rounds):
                for pipe in many:
                    pipe.put()
                assert loop.run_once(0) == 10

        assert blocks_grown(action) < rounds / 10


def test_errors_do_not_leak(loop, pipe):
    loop.on_error = lambda source, error: None
    rounds = scaled(300, least=30)

    def bad(call, *args, **keywords):
        try:
            call(*args, **keywords)
        except (TypeError, ValueError, OSError):
            return
        raise AssertionError(call)

    def action():
        for _ in range(rounds):
            bad(loop.io, -1, "r", print)
            bad(loop.io, 19_999, "r", print)
            bad(loop.io, pipe.r, "x", print)
            bad(loop.io, pipe.r, "r", None)
            bad(loop.timer, -1, print)
            bad(loop.timer, 1, print, priority=9)
            bad(loop.periodic, 0, print)
            bad(loop.signal, "KILL", print)
            bad(loop.idle, None)
            bad(loop.defer, None)
            bad(loop.run, -1)
            bad(Loop, entries=0)
            loop.timer(0, lambda w: 1 / 0)
            loop.defer(int, "x")
            loop.run_once(0)

    assert blocks_grown(action) < rounds / 10
    assert loop.statistics().watchers == 0


def test_reads_of_attributes_and_views_do_not_leak(loop, pipe):
    io = loop.io(pipe.r, "rw", print, data=object())
    timer = loop.timer(BOUND, print)
    periodic = loop.periodic(BOUND, print)
    rounds = scaled(300, least=30)

    def action():
        for _ in range(rounds):
            for watcher in (io, timer, periodic):
                repr(watcher)
                for name in ("id", "loop", "callback", "data", "priority", "ref"):
                    getattr(watcher, name)
            sum((io.fd, io.poll, io.edge, timer.after, timer.remaining, periodic.interval, periodic.missed))
            dict(loop.watchers)
            dict(loop.io_watchers)
            dict(loop.signals)
            loop.statistics()
            loop.time()
            repr(loop)
            loop.fileno()
            io.poll = "r"
            io.poll = "rw"
            io.callback = print
            io.data = None
            loop.on_error = None

    assert blocks_grown(action) < rounds / 10


def test_references_of_what_a_callback_is_given(loop, pipe):
    class Callback:
        def __call__(self, watcher, events=None):
            seen.append(events)

    seen = []
    callback = Callback()
    base = sys.getrefcount(callback)
    watcher = loop.io(pipe.r, "r", callback)
    assert sys.getrefcount(callback) == base + 1
    pipe.put()
    references = sys.getrefcount(watcher)
    for _ in range(100):
        loop.run_once(0)
    assert len(seen) == 100
    assert sys.getrefcount(callback) == base + 1
    assert sys.getrefcount(watcher) == references
    watcher.destroy()
    assert sys.getrefcount(callback) == base
